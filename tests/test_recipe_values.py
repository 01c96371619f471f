"""A value that a setting of a recipe cannot take is refused by name; the ends of each range are where they are told."""

import pytest

import helpers

ALLOWED = {
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
