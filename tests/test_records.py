"""Every file says what it was made from, and no notebook uses it with anything else.

Epochs are made up here: the tests ask what a training keeps, not what it learns.
"""

import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import helpers
from course import training
from course.source_code import code_shape, source_fingerprint
from course.workspace import COURSE_FOLDER, CourseError, check_made_from, read_json, write_json

SETTINGS = {**helpers.new_settings("sample", "smoke", "report", 0), "image_size": 16, "epochs": 4}
FILES = ("best.keras", "history.csv", "resume.weights.h5", "training.json")


def make_network(work_dir, settings, precision="float32"):
    """What 03 does, with a network of one layer."""
    import keras

    keras.utils.set_random_seed(settings["seed"])
    image = keras.Input((settings["image_size"], settings["image_size"], 1))
    answer = keras.layers.Conv2D(1, 1, activation="sigmoid", dtype=precision)(image)
    helpers.save_untrained_model(keras.Model(image, answer), work_dir, settings)


def begin(work_dir, settings=SETTINGS):
    """What 04 does before `fit`: return the model, its callbacks and the first epoch."""
    model = helpers.load_untrained_model(work_dir)
    callbacks, first_epoch = helpers.prepare_training(model, work_dir, settings, 30)
    for callback in callbacks:
        callback.set_model(model)
    return model, callbacks, first_epoch


def train(work_dir, losses, settings=SETTINGS, finish=False):
    """Train one epoch for each validation loss; after epoch e each bias is e + 1. Return the model."""
    model, callbacks, first_epoch = begin(work_dir, settings)
    for epoch, loss in enumerate(losses, start=first_epoch):
        callbacks[1].on_epoch_begin(epoch)
        model.layers[-1].bias.assign([epoch + 1.0])
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"loss": loss + 1, "val_loss": loss})
    if finish:
        callbacks[1].on_train_end()
    return model


def kept_bias(work_dir):
    """The bias of the weights in best.keras."""
    import keras

    return float(keras.saving.load_model(work_dir / "model" / "best.keras", compile=False).layers[-1].bias[0])


@pytest.fixture(scope="session")
def finished(small_dataset, tmp_path_factory):
    """A work folder in which 01 to 04 have run on fold 0: read it, never write to it."""
    work_dir = tmp_path_factory.mktemp("finished") / "data"
    description = helpers.import_dataset(small_dataset / "dataset.json", work_dir, fold=0)
    write_json(work_dir / "settings.json", SETTINGS)
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    make_network(work_dir, SETTINGS)
    train(work_dir, [0.4, 0.1, 0.3, 0.2], finish=True)
    return work_dir


@pytest.fixture()
def folder(finished, tmp_path):
    """A copy of `finished` that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "data"))


def record_of(work_dir):
    return read_json(work_dir / "model" / "training.json", "04_training")


def contents(work_dir):
    return {name: (work_dir / "model" / name).read_bytes() for name in FILES}


# --- what each notebook reads of those before it ----------------------------------------------------------------------


def choose_settings(work_dir, **changes):
    """What 01 does, with other choices."""
    write_json(work_dir / "settings.json", {**SETTINGS, **changes})


def edit(work_dir, name, **changes):
    write_json(work_dir / name, {**read_json(work_dir / name, ""), **changes})


def change_distances(work_dir):
    geometry = read_json(work_dir / "dataset.json", "")["geometry"]
    edit(work_dir, "dataset.json", geometry={**geometry, min(geometry): {"spacing": [1, 1, 5], "axes": None}})


def change_code_of_network(work_dir):
    made_from = read_json(work_dir / "model" / "untrained.json", "")["made_from"]
    edit(work_dir, "model/untrained.json", made_from={**made_from, "code": "before"})


def leave_out_first_patient(work_dir):
    description = read_json(work_dir / "dataset.json", "")
    first = description["subsets"]["train"][0]["patient"]
    helpers.prepare_arrays(description, work_dir, 16, [first], progress=False)


def take_other_fold(work_dir):
    return helpers.import_dataset(work_dir / "dataset.json", work_dir, fold=1)


def rewrite(name, change):
    """Return a function that changes the bytes of a file in model/ of a work folder."""

    def damage(work_dir):
        path = work_dir / "model" / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def remove(name):
    """Return a function that removes a file in model/ of a work folder."""
    return lambda work_dir: (work_dir / "model" / name).unlink()


READERS = {
    "02 and later": lambda work_dir: helpers.load_arrays(work_dir, "valid"),
    "03": lambda work_dir: helpers.choose_arithmetic(work_dir, helpers.load_settings(work_dir)),
    "04": lambda work_dir: begin(work_dir, helpers.load_settings(work_dir)),
    "05": lambda work_dir: helpers.load_trained_model(work_dir),
}
OTHER_DATA = dict.fromkeys(READERS, "02_preprocessing ran with another dataset: run 02_preprocessing again.")
OTHER_SIZE = "02_preprocessing ran with other settings (image_size was 16, now 32): run 02_preprocessing again."
CASES = {  # what was done after 04: (how, {the notebook that runs next: what it says})
    "01 took another fold": (take_other_fold, OTHER_DATA),
    "01 took other mask values": (lambda folder: edit(folder, "dataset.json", mask_values=[0, 1]), OTHER_DATA),
    "01 and 02 took another fold": (
        lambda folder: helpers.prepare_arrays(take_other_fold(folder), folder, 16, progress=False),
        {"05": "04_training ran with another dataset and other arrays: run 04_training again."},
    ),
    "01 took other distances": (change_distances, {"05": "04_training ran with other spacing: run 04_training again."}),
    "01 chose another size": (
        lambda folder: choose_settings(folder, image_size=32),
        {"03": OTHER_SIZE, "04": "03_model ran with other settings (image_size was 16, now", "05": OTHER_SIZE},
    ),
    "02 left out a patient that would now stay": (
        leave_out_first_patient,
        dict.fromkeys(["03", "04", "05"], "02_preprocessing ran with other settings (left_out was ["),
    ),
    "01 chose another recipe": (
        lambda folder: choose_settings(folder, recipe="best", output_bias=-4.0),
        {
            "04": "03_model ran with other settings (output_bias was 0.0, now -4.0): run 03_model again.",
            "05": "(recipe was 'report', now 'best'; output_bias was 0.0, now -4.0): run 04_training again.",
        },
    ),
    "the network has other code": (change_code_of_network, {"04": "03_model ran with other code: run 03_model again."}),
    "untrained.keras is another": (
        rewrite("untrained.keras", lambda whole: b"other"),
        {"04": "is not the file that 03_model recorded: run 03_model again."},
    ),
    "best.keras is another": (
        rewrite("best.keras", lambda whole: b"other"),
        {"05": "is not the file that 04_training recorded: run 04_training again."},
    ),
    "best.keras is gone": (remove("best.keras"), {"05": "run 04_training first."}),
    "training.json is of an earlier version": (
        lambda folder: edit(folder, "model/training.json", made_from="0123456789abcdef"),
        {"05": "04_training ran with another dataset and other spacing and other arrays and other settings ("},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_notebook_uses_files_made_from_something_else(folder, case):
    change, expected = CASES[case]
    change(folder)
    before = {path: path.read_bytes() for path in (folder / "model").iterdir()}
    for reader, sentence in expected.items():
        with pytest.raises(helpers.CourseError) as refusal:
            READERS[reader](folder)
        assert sentence in str(refusal.value) and len(str(refusal.value)) < 400
    assert {path: path.read_bytes() for path in (folder / "model").iterdir()} == before
    for reader in set(READERS) - set(expected) - {"04"}:
        READERS[reader](folder)


def test_files_that_belong_together_are_used(folder):
    make_network(folder, SETTINGS)  # the same first weights in a new file: the training is still the same
    for read in READERS.values():
        read(folder)
    assert record_of(folder)["complete"]
    choose_settings(folder, threshold=0.3, dataset="a new name of the folder", largest_component=True)
    assert helpers.load_trained_model(folder).layers[-1].bias.numpy() == [2.0]  # the second epoch had the lowest loss


def test_a_dataset_changed_in_place_is_not_mixed_with_what_was_made_from_it(small_dataset, tmp_path):
    own, work_dir = tmp_path / "own", tmp_path / "data"
    shutil.copytree(small_dataset / read_json(small_dataset / "dataset.json", "")["root"], own)
    write_json(work_dir / "settings.json", SETTINGS)
    description = helpers.import_dataset(own, work_dir, progress=False)
    helpers.prepare_arrays(description, work_dir, 16, progress=False)
    helpers.import_dataset(work_dir / "dataset.json", tmp_path / "run", fold=1)
    write_json(tmp_path / "run" / "settings.json", SETTINGS)
    mask = own / "valid" / "masks" / f"{description['subsets']['valid'][0]['name']}.png"
    Image.fromarray(255 - np.array(Image.open(mask))).save(mask)
    os.utime(mask, (1, 1))  # with a very old date
    of_run = read_json(tmp_path / "run" / "dataset.json", "")
    for use in (
        lambda: helpers.prepare_arrays(description, work_dir, 16, progress=False),
        lambda: training.training_inputs(work_dir, SETTINGS),
        lambda: helpers.prepare_arrays(of_run, tmp_path / "run", 16, progress=False),
        lambda: helpers.import_dataset(work_dir / "dataset.json", tmp_path / "other"),
    ):
        with pytest.raises(helpers.CourseError, match="Files in .*own have been changed .* run 01_dataset_upload"):
            use()
    again = helpers.import_dataset(description["source"], work_dir, progress=False)
    assert again["fingerprint"] != description["fingerprint"]
    helpers.prepare_arrays(again, work_dir, 16, progress=False)
    training.training_inputs(work_dir, SETTINGS)
    mask.unlink()
    with pytest.raises(helpers.CourseError, match=f"{mask.name} of the dataset is missing: put it back, or run 01"):
        helpers.pair_paths(again, work_dir, "valid", mask.stem)
    shutil.rmtree(own)
    training.training_inputs(work_dir, SETTINGS)  # a network can be used on scans without its dataset


def test_a_sentence_names_three_settings_at_most():
    recorded = {"settings": dict.fromkeys("abcd", 1)}
    for names, more in (("abc", ""), ("abcd", "; 1 more")):
        with pytest.raises(helpers.CourseError) as refusal:
            check_made_from(recorded, {"settings": dict.fromkeys(names, 2)}, "02")
        told = "a was 1, now 2; b was 1, now 2; c was 1, now 2"
        assert str(refusal.value) == f"02 ran with other settings ({told}{more}): run 02 again."
    check_made_from(recorded, recorded, "02")


def test_an_interrupted_training_is_reported_when_its_weights_are_used(folder, capsys):
    write_json(folder / "settings.json", {**SETTINGS, "seed": 7})
    make_network(folder, {**SETTINGS, "seed": 7})
    train(folder, [0.4, 0.3], {**SETTINGS, "seed": 7})
    capsys.readouterr()
    helpers.load_trained_model(folder)
    told = "The training was interrupted after epoch 2 of 4, and these are its weights so far. Run 04_training again"
    assert capsys.readouterr().out == f"{told} to continue it.\n"
    train(folder, [0.2, 0.1], {**SETTINGS, "seed": 7}, finish=True)
    capsys.readouterr()
    helpers.load_trained_model(folder)
    assert capsys.readouterr().out == ""


# --- a training whose files do not belong together --------------------------------------------------------------------


def edit_weights(work_dir, of_layers):
    """Let `of_layers` change the layers in resume.weights.h5."""
    with h5py.File(work_dir / "model" / "resume.weights.h5", "a") as file:
        of_layers(file)


def change_bias(file):
    names = []
    file["layers"].visit(names.append)
    [bias] = [name for name in names if getattr(file["layers"][name], "shape", None) == (1,)]
    file["layers"][bias][...] = 7


DAMAGES = {
    "history.csv is altered": rewrite("history.csv", lambda whole: whole.replace(b"1.4", b"1.5", 1)),
    "history.csv is truncated": rewrite("history.csv", lambda whole: whole[:-8]),
    "history.csv is gone": remove("history.csv"),
    "the weights are truncated": rewrite("resume.weights.h5", lambda whole: whole[: len(whole) // 2]),
    "the weights lack their layers": lambda work_dir: edit_weights(work_dir, lambda file: file.pop("layers")),
    "the weights are altered": lambda work_dir: edit_weights(work_dir, change_bias),
    "the weights are gone": remove("resume.weights.h5"),
    "the best weights are altered": rewrite("best.keras", lambda whole: b"other"),
    "the best weights are gone": remove("best.keras"),
}


@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_training_whose_files_do_not_belong_together_starts_again_and_is_kept(folder, capsys, damage):
    DAMAGES[damage](folder)
    before = {name: path.read_bytes() for name in FILES if (path := folder / "model" / name).exists()}
    first = helpers.load_untrained_model(folder).get_weights()
    model, _, first_epoch = begin(folder)
    assert first_epoch == 0 and int(model.optimizer.iterations) == 0
    assert all(np.array_equal(one, other) for one, other in zip(model.get_weights(), first))
    told = "The files of the training in model/ do not belong together, so a new training begins."
    assert capsys.readouterr().out == f"{told} The earlier one is kept in model/earlier/1.\n"
    assert {path.name: path.read_bytes() for path in (folder / "model" / "earlier" / "1").iterdir()} == before
    assert helpers.read_history(folder) == []


def test_a_damaged_history_is_reported(folder):
    (folder / "model" / "history.csv").write_text("epoch,loss\n0,0.5\n1")
    with pytest.raises(helpers.CourseError, match="history.csv in .*model is damaged .*: run 04_training again"):
        helpers.read_history(folder)


def test_a_training_without_a_readable_record_is_kept(folder, capsys):
    before = contents(folder)
    for text in ("", '{"made_from"'):
        (folder / "model" / "training.json").write_text(text)
        for name in FILES[:3]:
            (folder / "model" / name).write_bytes(before[name])
        assert begin(folder)[2] == 0
        assert (
            "training.json, which records what the training in model/ learned from, is missing"
            in capsys.readouterr().out
        )
    assert sorted(path.name for path in (folder / "model" / "earlier").iterdir()) == ["1", "2"]
    for number in "12":
        kept = {path.name: path.read_bytes() for path in (folder / "model" / "earlier" / number).iterdir()}
        assert {name: kept[name] for name in FILES[:3]} == {name: before[name] for name in FILES[:3]}


def test_older_weights_of_the_same_training_resume_from_their_own_epoch(folder, capsys):
    """As when Drive has kept an older state: the newer history is used up to that state."""
    settings = {**SETTINGS, "monitor": None}
    choose_settings(folder, monitor=None)
    train(folder, [0.5, 0.4], settings)
    state = (folder / "model" / "resume.weights.h5").read_bytes()
    train(folder, [0.3, 0.2], settings)
    (folder / "model" / "resume.weights.h5").write_bytes(state)
    capsys.readouterr()
    model, _, first_epoch = begin(folder, settings)
    told = "history.csv has 4 epochs, the saved weights 2: the training continues after epoch 2.\n"
    assert capsys.readouterr().out == told
    assert first_epoch == 2 and [row["val_loss"] for row in helpers.read_history(folder)] == [0.5, 0.4]
    assert model.layers[-1].bias.numpy() == [2.0] and kept_bias(folder) == 2.0


@pytest.mark.parametrize("losses", [[0.4, 0.3], [0.3, 0.4]], ids=["a better epoch", "a worse epoch"])
@pytest.mark.parametrize("last", range(5))
def test_a_kill_between_any_two_files_of_an_epoch_loses_at_most_that_epoch(folder, monkeypatch, last, losses):
    settings = {**SETTINGS, "epochs": 9}
    choose_settings(folder, epochs=9)
    train(folder, losses[:1], settings)
    replace, replaced = os.replace, []

    def kill(source, target):
        """Let `last` files appear, then be killed."""
        if len(replaced) == last:
            raise KeyboardInterrupt
        replaced.append(Path(target).name)
        replace(source, target)

    model, callbacks, _ = begin(folder, settings)
    monkeypatch.setattr(os, "replace", kill)
    model.layers[-1].bias.assign([2.0])
    callbacks[1].on_epoch_begin(1)
    files = ["history.csv", "resume.weights.h5", "training.json", *(["best.keras"] if losses[1] < losses[0] else [])]
    with pytest.raises(KeyboardInterrupt) if last < len(files) else contextlib.nullcontext():
        callbacks[1].on_epoch_end(1, {"loss": losses[1] + 1, "val_loss": losses[1]})
    assert replaced == files[:last]
    monkeypatch.undo()
    model, _, first_epoch = begin(folder, settings)
    assert first_epoch == (2 if last >= 2 else 1)
    assert len(helpers.read_history(folder)) == first_epoch and model.layers[-1].bias.numpy() == [float(first_epoch)]
    assert kept_bias(folder) == (2.0 if last >= 2 and losses[1] < losses[0] else 1.0)
    record = record_of(folder)
    assert (record["epochs"], record["images_seen"]) == (first_epoch, first_epoch * settings["images_per_epoch"])
    helpers.load_trained_model(folder)


def test_a_training_names_every_device_that_it_ran_on(folder, monkeypatch):
    settings = {**SETTINGS, "epochs": 5}
    write_json(folder / "settings.json", settings)
    monkeypatch.setattr("course.training.device_name", lambda: "stopped in the first epoch")
    train(folder, [], settings)
    for name in ("one core", "two cores", "one core"):
        monkeypatch.setattr("course.training.device_name", lambda name=name: name)
        train(folder, [0.5], settings)
    assert (record_of(folder)["devices"], record_of(folder)["epochs"]) == (["one core", "two cores"], 3)


def test_a_replaced_training_is_kept_beside_those_replaced_before(folder, capsys):
    best = [(folder / "model" / "best.keras").read_bytes()]
    for name in ("looks.npz", "curves.png"):  # what 04 draws at its end
        (folder / "model" / name).write_bytes(b"of the first")
    for number, epochs in ((1, 9), (2, 8)):
        train(folder, [0.3], {**SETTINGS, "epochs": epochs})
        best.append((folder / "model" / "best.keras").read_bytes())
        told = "Data, settings or code differ from those of the training in model/, so a new training begins."
        assert capsys.readouterr().out == f"{told} The earlier one is kept in model/earlier/{number}.\n"
    earlier = folder / "model" / "earlier"
    assert [(earlier / number / "best.keras").read_bytes() for number in "12"] == best[:2]
    for name in ("looks.npz", "curves.png"):
        assert (earlier / "1" / name).read_bytes() == b"of the first" and not (folder / "model" / name).exists()
    begin(folder, {**SETTINGS, "epochs": 7})
    begin(folder, {**SETTINGS, "epochs": 6})  # the one before has not finished an epoch: it is not worth keeping
    assert sorted(path.name for path in earlier.iterdir()) == ["1", "2", "3"]


@pytest.mark.parametrize("epochs", [8, 9], ids=["other settings", "same settings"])
def test_one_of_two_simultaneous_trainings_in_a_folder_ends(folder, epochs):
    _, callbacks, _ = begin(folder, {**SETTINGS, "epochs": 9})
    train(folder, [0.3], {**SETTINGS, "epochs": epochs})
    kept = contents(folder)
    callbacks[1].on_epoch_begin(0)
    with pytest.raises(helpers.CourseError, match="Another training has begun in .*model, .* one notebook at a time"):
        callbacks[1].on_epoch_end(0, {"loss": 1.0, "val_loss": 0.1})
    assert contents(folder) == kept


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_a_kill_while_the_earlier_training_is_moved_away_loses_nothing(folder, monkeypatch, moved):
    kept, original, calls = contents(folder), Path.replace, []

    def replace(path, target):
        """Let `moved` files move, then be killed."""
        if target.parent.parent.name == "earlier":
            calls.append(path.name)
            if len(calls) > moved:
                raise KeyboardInterrupt
        return original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        begin(folder, {**SETTINGS, "epochs": 9})
    monkeypatch.undo()
    begin(folder, {**SETTINGS, "epochs": 9})
    earlier = folder / "model" / "earlier"
    assert [path.name for path in earlier.iterdir()] == ["1"]
    assert {path.name: path.read_bytes() for path in (earlier / "1").iterdir()} == kept


@pytest.mark.parametrize(
    ("changes", "losses", "stops", "kept"),
    [
        ({"patience": 2}, [0.1, 0.2], False, 1),
        ({"patience": 2}, [0.3, 0.1, 0.2, 0.2], True, 2),
        ({"patience": 1, "monitor": None}, [0.1, 0.2, 0.3], False, 3),
        ({"patience": 9, "epochs": 3}, [0.3, 0.2, 0.1], True, 3),
    ],
)
def test_a_training_ends_after_its_epochs_or_when_it_no_longer_improves(folder, changes, losses, stops, kept):
    """Also if it was killed before that could be recorded."""
    settings = {**SETTINGS, "epochs": 9, **changes}
    model = train(folder, losses, settings)
    assert model.stop_training is stops and kept_bias(folder) == kept and record_of(folder)["complete"] is False
    assert begin(folder, settings)[2] == (settings["epochs"] if stops else len(losses))
    assert (record_of(folder)["complete"], record_of(folder)["epochs"]) == (stops, len(losses))
    assert len(helpers.read_history(folder)) == len(losses)


@pytest.mark.parametrize(("monitor", "expected"), [("val_loss", 1), ("val_iou", 2), (None, 3)])
def test_the_epoch_kept_is_the_best_of_the_monitored_value_or_the_last(monitor, expected):
    figures = ((0.3, 0.1), (0.1, 0.2), (0.2, 0.9), (0.4, 0.5))
    rows = [{"loss": 0.1, "accuracy": 0.9, "val_loss": loss, "val_iou": iou} for loss, iou in figures]
    assert training.kept_epoch(rows, monitor) == expected


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_a_training_resumes_in_the_arithmetic_it_began_in(folder, monkeypatch, capsys):
    for suitable in ("float32", "bfloat16", "mixed_bfloat16"):
        monkeypatch.setattr(training, "choose_precision", lambda precision, suitable=suitable: suitable)
        assert helpers.choose_arithmetic(folder, SETTINGS) == "float32"
        told = "The training in model/ began in float32 and continues in it, so the network gets this arithmetic."
        told += f" For a new training, this machine would use {suitable}.\n"
        assert capsys.readouterr().out == ("" if suitable == "float32" else told)
    assert helpers.choose_arithmetic(folder, {**SETTINGS, "learning_rate": 0.5}) == "mixed_bfloat16"  # a new training
    record = record_of(folder)
    write_json(folder / "model" / "training.json", {**record, "epochs": 0})  # nothing is lost with it
    assert helpers.choose_arithmetic(folder, SETTINGS) == "mixed_bfloat16"
    (folder / "model" / "training.json").unlink()
    assert helpers.choose_arithmetic(folder, SETTINGS) == "mixed_bfloat16"
    assert capsys.readouterr().out == ""


def test_a_network_in_another_arithmetic_does_not_replace_the_training(folder):
    make_network(folder, SETTINGS, "mixed_bfloat16")
    before = contents(folder)
    with pytest.raises(helpers.CourseError) as refusal:
        begin(folder)
    assert str(refusal.value) == (
        "The training in model/ began in float32, but the network of 03_model computes in mixed_bfloat16. Run 03_model "
        "again, which then uses the arithmetic of the training, and after it this notebook. Nothing was changed."
    )
    assert contents(folder) == before and not (folder / "model" / "earlier").exists()
    assert begin(folder, {**SETTINGS, "learning_rate": 0.5})[2] == 0  # another training: there is nothing to resume


def test_a_training_in_float16_resumes_with_its_loss_scale(folder):
    import keras

    make_network(folder, SETTINGS, "mixed_float16")
    settings = {**SETTINGS, "learning_rate": 0.5}
    model, callbacks, _ = begin(folder, settings)
    model.optimizer.apply([keras.ops.ones(variable.shape) for variable in model.trainable_variables])
    model.optimizer.dynamic_scale.assign(512)
    callbacks[1].on_epoch_begin(0)
    callbacks[1].on_epoch_end(0, {"loss": 1.0, "val_loss": 1.0})
    resumed, _, first_epoch = begin(folder, settings)
    assert first_epoch == 1 and float(resumed.optimizer.dynamic_scale) == 512
    assert int(resumed.optimizer.iterations) == 1
    for one, other in zip(resumed.optimizer.variables, model.optimizer.variables, strict=True):
        assert np.array_equal(one.numpy(), other.numpy())
    record = record_of(folder)
    assert record["made_from"]["arithmetic"] == "mixed_float16"


# --- code -------------------------------------------------------------------------------------------------------------


def load_module(monkeypatch, name, path, text):
    """Import a module of this name from a file with this text."""
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def codes(module, work_dir):
    """The hashes of the code that makes arrays, that trains, and that builds the network."""
    record = module.prepare_arrays(read_json(work_dir / "dataset.json", ""), work_dir, 16, progress=False)
    trains = module._training_code("bce_dice_loss")
    return record["made_from"]["code"], trains, module._network_made_from(SETTINGS)["code"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('    """Read a picture as', '    """Read the picture as', ""),
        ("    covered = mask_share(mask, size)\n", "    # what is covered\n    covered = mask_share(mask, size)\n", ""),
        ("LOSSES = {", 'LOSSES = {"mine": lambda truth, answer: 0, ', ""),
        ("np.zeros((size, size), np.float32)", "np.ones((size, size), np.float32)", "arrays"),
        ("share >= 0.5 - 1e-6", "share >= 0.5", "arrays"),
        ("math.radians(20)", "math.radians(25)", "training"),
        ("round(0.03 * steps", "round(0.05 * steps", "training"),
        ("+ 1 - soft_dice", "+ 2 - soft_dice", "training"),
        ("(32, 64, 128), start=1", "(16, 64, 128), start=1", "training, network"),
    ],
)
def test_trainings_are_discarded_only_if_the_code_behind_them_changes(folder, monkeypatch, tmp_path, old, new, changed):
    text = (COURSE_FOLDER / "helpers.py").read_text(encoding="utf-8")
    assert old in text
    before = codes(helpers, folder)
    after = codes(load_module(monkeypatch, "helpers", tmp_path / "edited.py", text.replace(old, new, 1)), folder)
    differ = [name for name, one, other in zip(("arrays", "training", "network"), before, after) if one != other]
    assert ", ".join(differ) == changed


MODULE = '''
"""A module."""
STEPS = 3

def half(value):
    """Say something."""
    return value / 2  # half

def twice(value):
    return [half(value)] * STEPS

class Counter:
    def count(self):
        return twice(1)
'''


@pytest.mark.parametrize(
    ("old", "new", "is_other"),
    [
        ("  # half", "", False),
        ('    """Say something."""\n', "", False),
        *[("STEPS = 3", "STEPS = 4", True), ("value / 2", "value / 3", True), ("twice(1)", "twice(2)", True)],
    ],
)
def test_a_hash_of_code_covers_what_it_names_and_no_comments(monkeypatch, tmp_path, old, new, is_other):
    hashes = []
    for number, text in enumerate((MODULE, MODULE.replace(old, new))):
        module = load_module(monkeypatch, "course.made_up", tmp_path / f"made_up{number}.py", text)
        hashes.append(source_fingerprint(module.Counter))
    assert (hashes[0] != hashes[1]) is is_other


def test_a_hash_of_code_is_the_same_in_every_version_of_python():
    """Fields of the syntax tree that Python 3.12 and 3.13 have added or left out are empty."""
    shapes = [code_shape(text) for text in ("def f(): pass", "def f(): return", "def f(): return None")]
    assert len(set(map(str, shapes))) == 3
    name, body = ("name", "'f'"), ("body", [["Pass"]])
    assert shapes[0] == ["Module", ("body", [["FunctionDef", name, ("args", ["arguments"]), body]])]


@pytest.mark.parametrize("edited", [MODULE.replace("value / 2", "value / 3"), f"# a line more\n{MODULE}", None])
def test_code_edited_since_its_import_cannot_be_hashed(monkeypatch, tmp_path, edited):
    file = tmp_path / "made_up.py"
    module = load_module(monkeypatch, "course.made_up", file, MODULE)
    before = source_fingerprint(module.twice)
    file.unlink() if edited is None else file.write_text(edited, encoding="utf-8")
    with pytest.raises(CourseError, match="edited or moved .* Restart the kernel"):
        source_fingerprint(module.twice)
    module = load_module(monkeypatch, "course.made_up", file, edited or MODULE)
    assert (source_fingerprint(module.twice) != before) is ("/ 3" in (edited or ""))


LAMBDAS = [
    {"loss": lambda value: value + 1},
    {
        "loss": lambda value: value + 1  # this line alone is not valid Python
    },
    {"loss": lambda value: value + 2},
]


def test_a_lambda_is_hashed_by_its_lines():
    hashes = [source_fingerprint(losses["loss"]) for losses in LAMBDAS]
    assert len(set(hashes)) == 3 and hashes == [source_fingerprint(losses["loss"]) for losses in LAMBDAS]
