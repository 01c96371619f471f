"""An invalid value of a recipe's setting is refused by name; each range ends where its message says."""

import pytest

import helpers

VALUES = {  # valid and invalid values of each setting
    "image_size": ([16, 24, 256], [0, 8, 15, 20, 16.0, True, "32"]),
    "learning_rate": ([1e-9, 0.001, 9.99], [0, 10, -0.001, True, "fast"]),
    "activation": (["relu", "elu", "selu", "gelu", "silu", "leaky_relu", "tanh"], ["sigmoid", 0]),
    "kernel_initializer": (
        [f"{name}_{how}" for name in ("he", "glorot", "lecun") for how in ("normal", "uniform")],
        ["zeros", 0],
    ),
    "dropout_rate": ([0, 0.5, 0.999], [-0.01, 1, True]),
    "epochs": ([1, 20], [0, 1.5, True]),
    "batch_size": ([1, 32], [0, 2.5, True]),
    "threshold": ([0.01, 0.5, 0.99], [0, 1, True, "half"]),
    "largest_component": ([True, False], [1, "no"]),
    "learning_rate_schedule": (["constant", "cosine"], ["linear", 0.001]),
    "augment": ([True, False], [1, "yes"]),
    "crop_share": ([0.1, 1], [0, 1.01, True]),
    "foreground_share": ([0, 0.5, 1], [-0.01, 1.01, "half"]),
    "repeats": ([1, 7], [0, 1.5, True]),
    "batch_normalization_momentum": ([0, 0.999], [-0.1, 1, "0.9"]),
    "output_bias": ([-4.0, 0, 2], ["-4", False]),
    "monitor": (["val_loss", "val_iou", "val_accuracy"], ["loss", 0]),
    "leave_out_twins": ([True, False], [0, "no"]),
    "planes": ([1, 3], [0, 2, True, 3.0]),
    "soft_masks": ([True, False], [1, "no"]),
    "patience": ([1, 10], [0, 2.5, True]),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_valid_value_is_accepted_and_an_invalid_one_is_refused_by_name(name):
    allowed, refused = VALUES[name]
    for value in (*allowed, None):
        helpers.check_values({name: value})
    for value in refused:
        with pytest.raises(helpers.CourseError, match=f"^{name} is {value!r}: choose "):
            helpers.check_values({name: value})


@pytest.mark.parametrize("recipe", helpers.RECIPES)
def test_every_recipe_has_valid_values(recipe):
    helpers.check_values(helpers.RECIPES[recipe])


def test_the_learning_rate_rises_for_3_percent_of_the_steps_and_falls_along_a_cosine():
    import math

    settings = {"learning_rate": 0.002, "learning_rate_schedule": "cosine", "epochs": 10}
    rate = helpers.learning_rates(settings, 100)
    assert float(rate(0)) == 0 and float(rate(15)) == pytest.approx(0.001) and float(rate(30)) == pytest.approx(0.002)
    for step in (200, 515, 900):
        expected = 0.001 * (1 + math.cos(math.pi * (step - 30) / 970))
        assert float(rate(step)) == pytest.approx(expected, rel=1e-4)
    assert float(rate(1000)) == pytest.approx(0, abs=1e-9)
    assert helpers.learning_rates({**settings, "learning_rate_schedule": "constant"}, 100) == 0.002
