"""A value that a setting of a recipe cannot take is refused by name; the ends of each range are where they are told."""

import pytest

import helpers

ALLOWED = {
    "image_size": [16, 24, 256],
    "learning_rate": [1e-9, 0.001, 9.99],
    "activation": ["relu", "elu", "selu", "gelu", "silu", "leaky_relu", "tanh"],
    "kernel_initializer": [
        f"{name}_{spread}" for name in ("he", "glorot", "lecun") for spread in ("normal", "uniform")
    ],
    "dropout_rate": [0, 0.5, 0.999],
    "epochs": [1, 20],
    "batch_size": [1, 32],
    "threshold": [0.01, 0.5, 0.99],
    "largest_component": [True, False],
    "learning_rate_schedule": ["constant", "cosine"],
    "augment": [True, False],
    "crop_share": [0.1, 1],
    "foreground_share": [0, 0.5, 1],
    "repeats": [1, 7],
    "batch_normalization_momentum": [0, 0.999],
    "output_bias": [-4.0, 0, 2],
    "monitor": ["val_loss", "val_iou", "val_accuracy"],
    "leave_out_twins": [True, False],
    "planes": [1, 3],
    "soft_masks": [True, False],
    "patience": [1, 10],
}
REFUSED = {
    "image_size": [0, 8, 15, 20, 16.0, True, "32"],
    "learning_rate": [0, 10, -0.001, True, "fast"],
    "activation": ["sigmoid", 0],
    "kernel_initializer": ["zeros", 0],
    "dropout_rate": [-0.01, 1, True],
    "epochs": [0, 1.5, True],
    "batch_size": [0, 2.5, True],
    "threshold": [0, 1, True, "half"],
    "largest_component": [1, "no"],
    "learning_rate_schedule": ["linear", 0.001],
    "augment": [1, "yes"],
    "crop_share": [0, 1.01, True],
    "foreground_share": [-0.01, 1.01, "half"],
    "repeats": [0, 1.5, True],
    "batch_normalization_momentum": [-0.1, 1, "0.9"],
    "output_bias": ["-4", False],
    "monitor": ["loss", 0],
    "leave_out_twins": [0, "no"],
    "planes": [0, 2, True, 3.0],
    "soft_masks": [1, "no"],
    "patience": [0, 2.5, True],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in ALLOWED for value in [*ALLOWED[name], None]])
def test_a_value_that_can_work_is_let_through(name, value):
    helpers.check_values({name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in REFUSED for value in REFUSED[name]])
def test_a_value_that_cannot_work_is_refused_by_name(name, value):
    with pytest.raises(helpers.CourseError, match=f"^{name} is {value!r}: choose "):
        helpers.check_values({name: value})


@pytest.mark.parametrize("recipe", helpers.RECIPES)
def test_every_recipe_has_values_that_can_work(recipe):
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
