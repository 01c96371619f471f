"""Profiles and recipes, and the settings of a run.

A choice is made once, in notebook 01, and travels as `settings.json` in the work folder.
"""

import itertools
import operator
import os
from pathlib import Path

from course.folds import FOLDS
from course.machine import device_name, estimate_seconds, gpu_found
from course.workspace import CourseError, duration, read_json, write_json

# A profile says how much work is done. `sample` is the size of the made-up dataset, if that is used.
# `images_per_epoch=None`: an epoch has as many pictures as there are training slices, times `repeats` of the recipe.
SAMPLE = {"patients": {"train": 12, "valid": 4, "test": 4}, "slices": 20}
SMALL_SAMPLE = {"patients": {"train": 3, "valid": 1, "test": 1}, "slices": 10}
PROFILES = {
    "smoke": {"image_size": 32, "epochs": 2, "images_per_epoch": 64, "sample": SMALL_SAMPLE},
    "quick": {"image_size": 96, "epochs": 10, "images_per_epoch": 360, "sample": SAMPLE},
    "ladder": {"image_size": 128, "epochs": 10, "images_per_epoch": 2400, "sample": SAMPLE},
    "hour": {"image_size": 200, "epochs": 18, "images_per_epoch": 3000, "sample": SAMPLE},
    "full": {"image_size": 256, "epochs": 20, "images_per_epoch": None, "sample": SAMPLE},
}

# A recipe says how the network is trained. `report` is that of the student report of 2022. From it a ladder leads to
# `best`: each rung is the one before it with the changes listed here.
LADDER = {
    "report": {
        "batch_size": 32,
        "loss": "binary_crossentropy",
        "learning_rate": 0.001,
        "learning_rate_schedule": "constant",
        "augment": False,
        "crop_share": 1.0,  # side of the square cut from a slice, as a share of its side
        "foreground_share": None,  # share of an epoch's pictures that hold atrium; None: as in the training set
        "repeats": 1,  # pictures of an epoch for each training slice, if the profile gives no number of images
        "batch_normalization_momentum": 0.99,
        "output_bias": 0.0,
        "monitor": "val_loss",  # the weights of the epoch that is best by this metric are kept; None: of the last one
        "leave_out_twins": False,
        "planes": 1,  # 1: the slices; 3: also the volume's cuts along its rows and columns
        "soft_masks": False,  # True: train on the share of each pixel that is atrium, not on 0 and 1
        "threshold": 0.5,  # probabilities from here on count as atrium; None: chosen on valid
        "largest_component": False,  # True: keep only the largest piece of a patient's atrium; None: chosen on valid
    },
    "small_batches": {  # more steps for the same pictures; and no scan in train that is also in valid
        "batch_size": 4,
        "batch_normalization_momentum": 0.95,  # moving averages that keep up with the weights
        "leave_out_twins": True,
    },
    "crops": {  # crops that are rotated, scaled and shaded: less work per picture, and none is seen twice
        "augment": True,
        "crop_share": 0.6,
        "repeats": 5,
        "soft_masks": True,
    },
    "overlap": {  # a loss and a monitor that measure overlap, and a start that predicts little atrium
        "loss": "bce_dice_loss",
        "output_bias": -4.0,  # a probability of 2 % to begin with: nearly all pixels are background
        "monitor": "val_iou",
    },
    "schedule": {  # larger steps first, smaller ones later, and more slices that hold atrium
        "learning_rate": 0.002,
        "learning_rate_schedule": "cosine",
        "foreground_share": 0.75,
    },
    "best": {  # three planes of each volume, the last weights, and the post-processing chosen on valid
        "loss": "binary_crossentropy",  # again: with all the other changes it does better
        "planes": 3,
        "monitor": None,
        "threshold": None,
        "largest_component": None,
    },
}
RECIPES = dict(zip(LADDER, itertools.accumulate(LADDER.values(), operator.or_)))

# The ablation, from the top: `best` with one thing as it is on a rung below.
ABLATION = {
    "with_dice_loss": {"loss": "bce_dice_loss"},
    "without_small_batches": {"batch_size": 32},
    "without_cosine": {"learning_rate_schedule": "constant"},
    "without_foreground": {"foreground_share": None},
    "without_augmentation": {"augment": False},
    "without_planes": {"planes": 1},
}
RECIPES.update({recipe: RECIPES["best"] | change for recipe, change in ABLATION.items()})

# What all recipes share: the report's settings, in the arithmetic that suits the machine.
COMMON_SETTINGS = {
    "kernel_initializer": "he_normal",
    "dropout_rate": 0.0,
    "activation": "relu",
    "patience": 10,
    "precision": "auto",
}


def _check_name(kind, name, known):
    if not isinstance(name, str) or name not in known:
        raise CourseError(f"There is no {kind} {name!r}: choose one of {', '.join(known)}.")


def choose_profile(profile: str | None = None) -> tuple[str, str]:
    """Return (profile, why): the one asked for, else UNET_PROFILE, else `full` with a GPU and `quick` without.

    Raises CourseError if there is no profile of that name.
    """
    if profile is not None:
        why = "you chose it"
    elif os.environ.get("UNET_PROFILE"):
        profile, why = os.environ["UNET_PROFILE"], "the environment variable UNET_PROFILE says so"
    elif gpu_found():
        profile, why = "full", "nvidia-smi lists a GPU"
    else:
        profile, why = "quick", "there is no GPU here"
    _check_name("profile", profile, PROFILES)
    return profile, why


def new_settings(dataset: str, profile: str, recipe: str, seed: int) -> dict:
    """Return all settings of a run as one flat dict: the choices, then what profile and recipe stand for.

    Raises CourseError for an unknown profile or recipe, or a seed that is no whole number from 0 to 2**32 - 1.
    """
    _check_name("profile", profile, PROFILES)
    _check_name("recipe", recipe, RECIPES)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise CourseError(f"seed is {seed!r}: choose a whole number from 0 to 4294967295.")
    choices = {"dataset": str(dataset), "profile": profile, "recipe": recipe, "seed": seed}
    return choices | COMMON_SETTINGS | PROFILES[profile] | RECIPES[recipe]


def check_values(values: dict) -> None:
    """Raise CourseError for the first setting of a dict whose value cannot work; None stands for what 01 recorded."""
    for name, value in values.items():
        allowed, sentence = _ALLOWED.get(name, (lambda value: True, ""))
        if value is not None and not allowed(value):
            raise CourseError(f"{name} is {value!r}: {sentence}.")


def load_settings(work_dir: Path, **overrides) -> dict:
    """Return the settings that 01 recorded, with every override that is not None applied and recorded.

    None takes back an earlier override: `replaced` holds the value that 01 had recorded under its name.
    Raises CourseError if 01 has not run, or ran in an older version of the course, or if a value cannot work.
    """
    names = new_settings("sample", "smoke", "best", 0)
    settings = read_json(work_dir / "settings.json", "01_dataset_upload", names)
    check_values(settings)
    check_values(overrides)
    from_01 = {**{name: settings[name] for name in overrides}, **settings.get("replaced", {})}
    wanted = {name: from_01[name] if value is None else value for name, value in overrides.items()}
    if any(settings[name] != value for name, value in wanted.items()):
        settings.update(wanted)
        settings["replaced"] = {name: value for name, value in from_01.items() if settings[name] != value}
        write_json(work_dir / "settings.json", settings)
    return settings


def crop_side(settings: dict, size: int) -> int:
    """Return the side of the squares that are cut from pictures of `size`: the nearest multiple of 8, at least 8.

    The network halves the picture three times, so it needs a multiple of 8: 80 for 0.6 of 128.
    """
    return max(8, round(settings["crop_share"] * size / 8) * 8)


def steps_per_epoch(slices: int, settings: dict) -> int:
    """Return the number of batches in an epoch; the last one is filled up from the next pass over the data.

    slices: the number of training slices, which sets the length of an epoch if the profile does not.
    """
    return -(-(settings["images_per_epoch"] or settings["repeats"] * slices) // settings["batch_size"])


def images_in_epoch(slices: int, settings: dict) -> int:
    """Return how many images an epoch shows, for `slices` training slices: a whole number of batches."""
    return steps_per_epoch(slices, settings) * settings["batch_size"]


OPERATIONS_A_PIXEL = 0.834e6  # of a training step of the U-Net, forward and backward: counted for 256x256


def _estimate(settings, slices, arithmetic):
    """Return (side of a picture, steps, seconds or None) of a training on `slices` slices."""
    side, steps = crop_side(settings, settings["image_size"]), settings["epochs"] * steps_per_epoch(slices, settings)
    operations = steps * settings["batch_size"] * side**2 * OPERATIONS_A_PIXEL
    return side, steps, estimate_seconds(operations, steps, arithmetic)


def training_plan(work_dir: Path, settings: dict, slices: int) -> str:
    """Return a sentence for 04: the device, the work of the training, and about how long it will take.

    slices: the number of training slices. If it takes more than an hour, a second sentence names a shorter choice.
    Raises CourseError if 03 has not run.
    """
    arithmetic = read_json(work_dir / "model" / "untrained.json", "03_model").get("arithmetic")
    side, steps, seconds = _estimate(settings, slices, arithmetic)
    time = f"about {duration(seconds)}, by an estimate" if seconds else "there is no estimate of the time for this card"
    plan = (
        f"Device: {device_name()}. Arithmetic: {arithmetic}. {steps:,} steps of {settings['batch_size']} pictures of "
        f"{side} x {side} pixels: {time}."
    )
    if seconds and seconds > 3600:
        _, _, seconds = _estimate({**settings, **PROFILES["quick"]}, slices, arithmetic)
        plan += f" Shorter: profile 'quick', chosen in 01, takes about {duration(seconds)}."
    return plan


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_ACTIVATIONS = ("relu", "elu", "selu", "gelu", "silu", "leaky_relu", "tanh")
_INITIALIZERS = ("he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal", "lecun_uniform")
_TRUE_OR_FALSE = (lambda v: type(v) is bool, "choose True or False")
_AT_LEAST_1 = (lambda v: type(v) is int and v >= 1, "choose a whole number of at least 1")
_BELOW_1 = (lambda v: _is_number(v) and 0 <= v < 1, "choose a number of at least 0 and below 1")
_ALLOWED = {
    "image_size": (
        lambda v: type(v) is int and v >= 16 and v % 8 == 0,
        "choose a multiple of 8, at least 16: the network halves the image three times",
    ),
    "learning_rate": (lambda v: _is_number(v) and 0 < v < 10, "choose a number above 0, such as 0.001"),
    "activation": (lambda v: v in _ACTIVATIONS, f"choose one of {', '.join(_ACTIVATIONS)}"),
    "kernel_initializer": (lambda v: v in _INITIALIZERS, f"choose one of {', '.join(_INITIALIZERS)}"),
    "dropout_rate": _BELOW_1,
    "epochs": _AT_LEAST_1,
    "batch_size": _AT_LEAST_1,
    "learning_rate_schedule": (lambda v: v in ("constant", "cosine"), 'choose "constant" or "cosine"'),
    "augment": _TRUE_OR_FALSE,
    "crop_share": (lambda v: _is_number(v) and 0 < v <= 1, "choose a number above 0 and at most 1"),
    "foreground_share": (lambda v: _is_number(v) and 0 <= v <= 1, "choose a number from 0 to 1"),
    "repeats": _AT_LEAST_1,
    "batch_normalization_momentum": _BELOW_1,
    "output_bias": (_is_number, "choose a number"),
    "monitor": (lambda v: v in ("val_loss", "val_iou", "val_accuracy"), "choose val_loss, val_iou or val_accuracy"),
    "leave_out_twins": _TRUE_OR_FALSE,
    "planes": (lambda v: type(v) is int and v in (1, 3), "choose 1 or 3"),
    "soft_masks": _TRUE_OR_FALSE,
    "patience": _AT_LEAST_1,
    "threshold": (lambda v: _is_number(v) and 0 < v < 1, "choose a number between 0 and 1"),
    "largest_component": _TRUE_OR_FALSE,
    "open_test": _TRUE_OR_FALSE,
    "allow_slow": _TRUE_OR_FALSE,
    "allow_incomplete": _TRUE_OR_FALSE,
    "fold": (lambda v: type(v) is int and 0 <= v < FOLDS, f"choose a whole number from 0 to {FOLDS - 1}"),
    "picture": (lambda v: isinstance(v, str), "give the path of a picture"),
}
