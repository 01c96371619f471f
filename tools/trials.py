"""Trials: one training with one thing changed, and a row in docs/trials.csv when it ends.

`python -m tools.trials NAME --dataset FOLDER` trains the recipe `best` with what TRIALS says under NAME, predicts
the held-out patients and appends a row; its verdict is written by hand. The same command resumes a stopped trial.
The valid patients are held out; with `--held-out train` those of train are, and the network learns from valid.
`--held-out 0` to `4` are the folds of a cross-validation over all patients, those of test included.
TRIALS holds the recipe and one idea as an example; those of the other rows are in the commit that the row names.
"""

import argparse
import datetime
import itertools
import json
import os
from pathlib import Path

import numpy as np

import helpers
from course.arrays import train_patients
from course.folds import FOLDS
from course.recipes import PROFILES
from course.workspace import COURSE_FOLDER, fingerprint
from tools.common import append_rows, current_commit, fit, new_network, processor_name

TABLE = COURSE_FOLDER / "docs" / "trials.csv"
THRESHOLDS = np.array(helpers.THRESHOLDS)


def augmented(change):
    """Change the crops of a batch once more: change(images, masks, seed) returns images and masks."""
    augment = helpers.augment

    def augment_more(images, masks, seed, crop_size, compiled=False):
        """Return the batch augmented as ever, and then changed."""
        return change(*augment(images, masks, seed, crop_size, compiled), seed + 2**40)

    helpers.augment = augment_more


def low_resolution(images, masks, seed):
    """Reduce one picture in three to a half or a third of its resolution, and bring it back to its size."""
    import tensorflow as tf

    size = tf.shape(images)[1]
    for factor, share in ((2, 0.17), (3, 0.17)):
        seed = seed + 1
        chosen = tf.random.stateless_uniform([tf.shape(images)[0], 1, 1, 1], seed) < share
        small = tf.image.resize(images, [size // factor, size // factor], "area")
        images = tf.where(chosen, tf.image.resize(small, [size, size], "bilinear"), images)
    return images, masks


# The idea, the settings that differ from `best`, and a function for a change that is not a setting
TRIALS = {
    "best": ("the recipe as it is", {}, None),
    "low_resolution": ("one crop of three at a lower resolution", {}, lambda: augmented(low_resolution)),
}


def prepare(folder, dataset, settings, held_out):
    """Bring the dataset and its arrays into a folder that trials with the same pictures share; return it."""
    work_dir = folder / f"pictures_{held_out}_{settings['image_size']}"
    description = helpers.import_dataset(dataset, work_dir, progress=False)
    if held_out != "valid":
        description = hold_out(description, held_out)
        helpers.write_json(work_dir / "dataset.json", description)
    arrays_as_in_02(description, work_dir, settings)
    return work_dir


def hold_out(description, held_out):
    """Return a description, without twins, whose valid patients are those held out: `train`, or a fold "0" to "4"."""
    subsets, left_out = description["subsets"], helpers.left_out_twins(description)
    whole = {subset: [pair for pair in pairs if pair["patient"] not in left_out] for subset, pairs in subsets.items()}
    if held_out == "train":
        train, valid = whole["valid"], whole["train"]
    else:
        pairs = sorted(itertools.chain(*whole.values()), key=lambda pair: (pair["patient"], pair["slice"]))
        fold = sorted({pair["patient"] for pair in pairs})[int(held_out) :: FOLDS]
        valid = [pair for pair in pairs if pair["patient"] in fold]
        train = [pair for pair in pairs if pair["patient"] not in fold]
    return {
        **description,
        "subsets": {"train": train, "valid": valid, "test": subsets["test"]},
        "stored_in": {pair["name"]: subset for subset, pairs in subsets.items() for pair in pairs},
        "fingerprint": fingerprint(description["fingerprint"], f"{held_out} held out"),
    }


def arrays_as_in_02(description, work_dir, settings):
    """Make the arrays of a work folder as 02 does."""
    leave_out = helpers.left_out_twins(description)
    helpers.prepare_arrays(description, work_dir, settings["image_size"], leave_out, progress=False)


def train(run_dir, shared, settings):
    """Train as notebooks 01 to 04 do, in a work folder of its own; return the model."""
    arrays_as_in_02(helpers.import_dataset(str(shared / "dataset.json"), run_dir, progress=False), run_dir, settings)
    helpers.write_json(run_dir / "settings.json", settings)
    helpers.save_untrained_model(new_network(settings), run_dir, settings)
    model = helpers.load_untrained_model(run_dir)
    pictures = helpers.load_training_pictures(run_dir, settings)
    callbacks, first_epoch = helpers.prepare_training(model, run_dir, settings, len(pictures.X))
    X, y = helpers.load_arrays(run_dir, "valid")
    validated = helpers.validated_slices(len(X), settings)
    seen = helpers.ordered_batches(X[validated], y[validated])
    fit(model, pictures, settings, first_epoch, validation_data=seen, verbose=2, callbacks=callbacks)
    return helpers.load_trained_model(run_dir)


def dice_curves(work_dir, probabilities):
    """Return {patient: Dice at each of THRESHOLDS} of the held-out patients, all components kept."""
    return {
        patient: [helpers.dice(truth, probability >= threshold) for threshold in THRESHOLDS]
        for patient, _, truth, probability in helpers.patient_volumes(work_dir, "valid", probabilities)
    }


def in_words(values, form):
    """Return a dict as `name value name value`, which a cell of a table can hold."""
    return " ".join(f"{name} {value:{form}}" for name, value in values.items())


def summary_of_curves(curves):
    """Return the cells about Dice and thresholds, from `dice_curves`; the Dice are at the best threshold for all."""
    mean = np.mean(list(curves.values()), axis=0)
    best = {patient: THRESHOLDS[np.argmax(curve)] for patient, curve in curves.items()}
    chosen, half = int(np.argmax(mean)), int(np.argmin(abs(THRESHOLDS - 0.5)))
    dice_of = {patient: curve[chosen] for patient, curve in curves.items()}
    return {
        "dice": f"{mean[chosen]:.4f}",
        "worst": f"{min(dice_of.values()):.4f}",
        "dice_per_patient": in_words(dice_of, ".4f"),
        "threshold": f"{THRESHOLDS[chosen]:.2f}",
        "dice_at_half": f"{mean[half]:.4f}",
        "dice_at_half_per_patient": in_words({patient: curve[half] for patient, curve in curves.items()}, ".4f"),
        "dice_at_own_best": f"{np.mean([max(curve) for curve in curves.values()]):.4f}",
        "best_threshold_deviation": f"{np.std(list(best.values()), ddof=1):.3f}",
        "best_threshold_per_patient": in_words(best, ".2f"),
    }


COLUMNS = [
    *("trial", "idea", "settings", "seed", "start", "held_out", "trained_on", "pictures"),
    *("dice", "worst", "threshold", "dice_at_half", "dice_at_own_best", "best_threshold_deviation"),
    *("dice_per_patient", "dice_at_half_per_patient", "best_threshold_per_patient"),
    *("minutes", "machine", "commit", "date", "verdict"),
]


def read_arguments():
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=TRIALS)
    parser.add_argument("--dataset", default=os.environ.get("HEART_DATASET"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pictures", type=int, default=24000)
    parser.add_argument("--held-out", choices=("valid", "train", *map(str, range(FOLDS))), default="valid")
    profiles = [name for name, profile in PROFILES.items() if profile["images_per_epoch"]]
    parser.add_argument("--profile", default="hour", choices=profiles)
    parser.add_argument("--folder", type=Path, default=COURSE_FOLDER / "data" / "trials")
    return parser.parse_args()


def main():
    """Train, predict the held-out patients, and append the row."""
    arguments = read_arguments()
    commit = current_commit()  # before the training, which runs the code as it is now
    helpers.set_up()
    idea, changes, change = TRIALS[arguments.name]
    settings = helpers.new_settings(arguments.dataset, arguments.profile, "best", arguments.seed) | changes
    settings["epochs"] = max(1, arguments.pictures // settings["images_per_epoch"])
    run_dir = arguments.folder / f"{arguments.name}_{arguments.held_out}_{arguments.seed}_{arguments.pictures}"
    shared = prepare(arguments.folder, arguments.dataset, settings, arguments.held_out)
    if change:
        change()
    model = train(run_dir, shared, settings)
    probabilities = helpers.predict_subset(model, run_dir, "valid", settings["planes"])
    seconds = helpers.read_json(run_dir / "model" / "training.json", "04_training")["seconds"]
    row = {
        "trial": arguments.name,
        "idea": idea,
        "settings": json.dumps(changes),
        "seed": arguments.seed,
        "held_out": arguments.held_out,
        "trained_on": " ".join(train_patients(run_dir)),
        "pictures": arguments.pictures,
        **summary_of_curves(dice_curves(run_dir, probabilities)),
        "minutes": f"{seconds / 60:.1f}",
        "machine": processor_name(),
        "commit": commit,
        "date": datetime.date.today().isoformat(),
    }
    append_rows(TABLE, [row], COLUMNS)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
