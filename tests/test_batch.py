"""The batch passes parameters on, refuses what cannot work before anything runs, and says which cell failed."""

import contextlib
import json
import os
import re
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import nbformat
import papermill
import pytest

import helpers
from course import batch
from course.training import write_history
from course.workspace import fingerprint

CHOICE = {"dataset": "sample", "profile": "smoke", "recipe": "best", "seed": 0}


def test_a_notebook_gets_its_parameters_leaves_a_log_and_names_the_cell_that_fails(
    tmp_path, monkeypatch, capfd, write_notebook
):
    printing = "import os\nos.write(2, b'a line of TensorFlow')\nprint('the seed is', seed)"
    tmp_path /= "in {seed} braces {}"  # for papermill these would be names of parameters
    tmp_path.mkdir()
    write_notebook(tmp_path / "notebooks" / "01_made_up.ipynb", "seed = 0  # a number", printing, "1 / 0")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    with pytest.raises(batch.NotebookFailed) as caught:
        batch.run_notebook("01_made_up", tmp_path / "run", seed=7)
    told = "ZeroDivisionError: division by zero", "01_made_up", 4
    assert (str(caught.value), caught.value.notebook, caught.value.cell) == told
    executed = nbformat.read(tmp_path / "run" / "notebooks" / "01_made_up.ipynb", as_version=4)
    printed = [output for cell in executed.cells for output in cell.get("outputs", []) if "text" in output]
    assert [output.text for output in printed] == ["the seed is 7\n"]
    log = (tmp_path / "run" / "run.log").read_text()
    assert re.match(r"--- 01_made_up, \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n", log)
    assert "the seed is 7" in log and "a line of TensorFlow" in log
    os.write(2, b"afterwards")
    assert capfd.readouterr().err == "afterwards"


@pytest.mark.parametrize(
    ("cell", "seconds", "why"),
    [
        ("import os; os._exit(1)", 60, "its kernel died, most often because memory ran out"),
        ("import time; time.sleep(600)", 5, "a cell took longer than 0 hours"),
    ],
)
def test_a_dead_kernel_and_an_endless_cell_are_reported(tmp_path, monkeypatch, write_notebook, cell, seconds, why):
    write_notebook(tmp_path / "notebooks" / "01_made_up.ipynb", "seed = 0  # a number", cell)
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    monkeypatch.setattr(batch, "CELL_TIMEOUT", seconds)
    with pytest.raises(batch.NotebookFailed) as caught:
        batch.run_notebook("01_made_up", tmp_path / "run")
    assert (str(caught.value), caught.value.notebook, caught.value.cell) == (why, "01_made_up", None)


def test_a_kernel_that_does_not_start_raises_a_separate_error(tmp_path, monkeypatch, write_notebook):
    """The notebook is not at fault, so dask starts the run again."""
    write_notebook(tmp_path / "notebooks" / "01_made_up.ipynb", "seed = 0  # a number")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    kernel = {"argv": ["false"], "display_name": "Python 3", "language": "python"}
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    helpers.write_json(tmp_path / "kernels" / "python3" / "kernel.json", kernel)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="Kernel died"):
        batch.run_notebook("01_made_up", tmp_path / "run")


@pytest.mark.parametrize("dataset", ["yours", ""])
def test_a_missing_dataset_is_refused(tmp_path, monkeypatch, dataset):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert batch.resolve_dataset("mine") == str(tmp_path / "mine")
    assert [batch.resolve_dataset(name) for name in ("sample", "heart")] == ["sample", "heart"]
    with pytest.raises(helpers.CourseError, match=f"There is no dataset at {dataset}: give 'sample', 'heart', or a "):
        batch.resolve_dataset(dataset)


# --- planning -----------------------------------------------------------------------------------------


def test_a_grid_gives_one_run_for_each_combination_and_no_grid_gives_one():
    runs, open_test = batch.plan_runs({"recipe": ["report", "best"], "fold": [0, 1, 4], "image_size": [32]}, **CHOICE)
    assert len(runs) == 6 and not open_test
    expected = {**CHOICE, "recipe": "report", "fold": 4, "image_size": 32}
    assert runs["recipe-report_seed-0_fold-4_image_size-32"] == expected
    assert batch.plan_runs({}, **CHOICE) == ({"recipe-best_seed-0": CHOICE}, True)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({"sead": [0]}, "names 'sead', which is not a notebook's parameter"),
        *[({"work_dir": ["a"]}, "names 'work_dir'"), ({"open_test": [True]}, "names 'open_test'")],
        *[({"seed": 0}, "give a list"), ({"seed": []}, "give a list"), ({"seed": [0, 0]}, "list of different")],
        ({"foreground": [1, "1"]}, "give a list of different values"),  # their runs would have one folder
        ("seed", "grid is 'seed': give a dict of lists"),
        ({"recipe": [["report"]]}, r"no recipe \['report'\]"),
        ({"dataset": [5]}, "no dataset at 5"),
        ({"allow_slow": ["no"]}, "allow_slow is 'no': choose True or False"),
        ({"seed": [-1]}, "whole number"),
        ({"image_size": [100]}, "image_size is 100: choose a multiple of 8"),
        ({"fold": [None, 0]}, r"fold is \[None, 0\]: None, the dataset's own split, must stand alone"),
        ({"fold": [0, 5]}, "fold is 5: choose a whole number from 0 to 4"),
        *[({"fold": [-1]}, "fold is -1: choose"), ({"fold": [1.0]}, "fold is 1.0: choose")],
        ({"picture": [3]}, "picture is 3: give the path of a picture"),
        ({"picture": ["nothing.png"]}, "There is no picture at /.*nothing.png: give the path of one"),
        ({"recipe": ["report", "best"], "seed": [0, 1]}, "compares recipe, so test stays closed"),
    ],
)
def test_an_impossible_grid_is_refused(grid, expected):
    with pytest.raises(helpers.CourseError, match=expected):
        batch.plan_runs(grid, open_test=True, **CHOICE)


def test_every_grid_in_the_docs_can_be_planned():
    pages = [batch.COURSE_FOLDER / "README.md", *sorted((batch.COURSE_FOLDER / "docs").glob("*.md"))]
    grids = re.findall(r"GRID='(.+?)'", "\n".join(page.read_text(encoding="utf-8") for page in pages))
    assert len(grids) > 5
    for grid in grids:
        runs, _ = batch.plan_runs(json.loads(grid), **CHOICE)
        pattern = next(iter(runs.values())).get("patient_pattern")
        assert not pattern or re.fullmatch(pattern, "case07-sl003").groups() == ("case07", "003")


def test_open_test_must_be_true_or_false_not_text():
    with pytest.raises(helpers.CourseError, match="open_test is 'False': choose True or False"):
        batch.plan_runs({}, open_test="False", **CHOICE)


def test_a_picture_in_a_grid_gets_an_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "own.png").touch()
    monkeypatch.chdir(tmp_path)
    [run] = batch.plan_runs({"picture": ["own.png"]}, **CHOICE)[0].values()
    assert run["picture"] == str(tmp_path / "own.png")


def test_run_names_are_valid_folder_names_and_unique():
    runs = batch.plan_runs({"exclude": [["a/b"], ["a:b"], ["x" * 300]]}, **CHOICE)[0]
    assert len(runs) == 3 and all(len(name) < 130 and not set(name) & set("/: '") for name in runs)


def test_runs_of_one_dataset_share_one_task_for_its_arrays(tmp_path):
    from distributed import Client

    def keys(**changed):
        return [future.key for future in batch._share(client, tmp_path, {**CHOICE, **changed}, seed=0)]

    with Client(n_workers=0, processes=False, dashboard_address=":0") as client:  # without a worker nothing runs
        assert keys() == keys(seed=1) == keys(recipe="crops")
        assert keys()[0] == keys(image_size=64)[0] and keys()[1] != keys(image_size=64)[1]
        assert keys()[1] != keys(recipe="report")[1] and keys()[1] != keys(fold=1)[1]


def test_arrays_have_the_fold_and_size_and_leave_out_the_twins_as_the_run_asks(work_dir, monkeypatch):
    def first_of_train(description):
        return [description["subsets"]["train"][0]["patient"]]

    monkeypatch.setattr(batch, "left_out_twins", first_of_train)
    homes = set()
    for fold, size, leave_out in ((2, 48, True), (2, 48, False), (1, 48, True), (2, 64, True)):
        file = Path(batch.share_arrays(str(work_dir / "dataset.json"), fold, size, leave_out))
        homes.add(file.parent)
        description = helpers.read_json(file, "01")
        record = helpers.read_json(file.parent / "npy" / "arrays.json", "02")
        assert description["fold"] == fold and file.parent.parent == work_dir.parent
        left_out = first_of_train(description) if leave_out else []
        assert record["made_from"]["settings"] == {"image_size": size, "left_out": left_out}
    assert len(homes) == 4


def test_results_depend_on_the_code_that_makes_them_not_on_the_code_that_runs_it(tmp_path, monkeypatch):
    course = shutil.copytree(batch.COURSE_FOLDER / "course", tmp_path / "course").parent
    shutil.copytree(batch.COURSE_FOLDER / "notebooks", course / "notebooks")
    shutil.copy(batch.COURSE_FOLDER / "helpers.py", course)
    monkeypatch.setattr(batch, "COURSE_FOLDER", course)
    seen = [batch.code_fingerprint()]
    for name in ("batch", "report", "terminal", "workers"):
        with open(course / "course" / f"{name}.py", "a") as file:
            file.write("# a change\n")
    path = course / "notebooks" / "04_training.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += " A word more."
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    last.outputs = []
    nbformat.write(notebook, path)
    assert batch.code_fingerprint() == seen[0]
    last.source += "\nprint()"
    nbformat.write(notebook, path)
    seen.append(batch.code_fingerprint())
    for changed in (course / "helpers.py", course / "course" / "metrics.py"):
        for text in ("# a comment\n", "a_change = 1\n"):
            with open(changed, "a") as file:
                file.write(text)
            seen.append(batch.code_fingerprint())
    assert seen[2] == seen[1] and seen[4] == seen[3] and len(set(seen)) == 4


def test_the_heart_archive_is_the_same_for_all_batches_and_for_01(tmp_path, monkeypatch):
    remember = Mock()
    monkeypatch.setattr(batch, "import_dataset", remember)
    (tmp_path / "Task02_Heart.tar").touch()
    for profile in ("quick", "hour"):
        batch.share_dataset(tmp_path / "runs" / f"heart-{profile}", "heart", {"seed": 0})
    shared = [tmp_path / "runs" / f"heart-{profile}" / "shared" for profile in ("quick", "hour")]
    assert [call.args[1].parent for call in remember.call_args_list] == shared
    assert {call.kwargs["heart_source"] for call in remember.call_args_list} == {tmp_path / "Task02_Heart.tar"}


def test_the_heart_archive_is_fetched_once_and_before_the_workers_begin(tmp_path, monkeypatch):
    calls, shown = [], []
    monkeypatch.setattr(batch, "fetch_heart", calls.append)
    monkeypatch.setattr(batch, "open_cluster", lambda runs, scheduler: 1 / 0)
    runs, _ = batch.plan_runs({"exclude": [["la_003"], ["la_004"]]}, **{**CHOICE, "dataset": "heart"})
    with pytest.raises(ZeroDivisionError):
        batch.run_batch(tmp_path / "runs" / "heart-smoke", runs, open_test=False, show=shown.append)
    assert calls == [tmp_path] and shown == ["downloading the heart data, unless they are already here"]


@pytest.mark.parametrize("recipe", ["best", "overlap"])
def test_runs_of_another_dataset_are_not_mixed_in(tmp_path, recipe):
    folder, dataset = tmp_path / "sample-smoke", tmp_path / "sample"
    dataset.mkdir()
    (folder / "recipe-best_seed-0").mkdir(parents=True)
    helpers.write_json(folder / "recipe-best_seed-0" / "run.json", {"parameters": {"dataset": "/a/sample"}})
    runs, _ = batch.plan_runs({}, **{**CHOICE, "dataset": str(dataset), "recipe": recipe})
    with pytest.raises(helpers.CourseError, match="0 holds a run of another dataset, /a/sample: move .*smoke away, or"):
        batch.run_batch(folder, runs, open_test=False)
    assert os.listdir(folder) == ["recipe-best_seed-0"]


@pytest.mark.parametrize(
    ("earlier", "dataset", "grid"),
    [
        ("recipe-report_seed-0", "sample", {}),
        ("recipe-best_seed-0", "sample", {"dataset": ["heart"]}),
        ("recipe-best_seed-0_dataset-heart", "heart", {"dataset": ["sample"]}),
    ],
)
def test_runs_named_without_and_with_their_dataset_share_a_folder(tmp_path, monkeypatch, earlier, dataset, grid):
    for name in (earlier, "recipe-best_seed-1", "recipe-best_seed-2"):
        (tmp_path / name).mkdir()
    helpers.write_json(tmp_path / earlier / "run.json", {"parameters": {"dataset": dataset}})
    (tmp_path / "recipe-best_seed-1" / "run.json").write_text('{"parame')  # damaged: the run is done again
    (tmp_path / "recipe-best_seed-2" / "run.json").write_text("{}")
    monkeypatch.setattr(batch, "fetch_heart", lambda *_: None)
    monkeypatch.setattr(batch, "open_cluster", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # nothing is refused
        batch.run_batch(tmp_path, batch.plan_runs(grid, **CHOICE)[0], open_test=False, show=lambda text: None)


@pytest.fixture()
def one_worker(monkeypatch):
    """A cluster of one worker, a thread of this process."""
    import distributed

    @contextlib.contextmanager
    def open_cluster(runs, scheduler):
        with distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as client:
            yield client

    monkeypatch.setattr(batch, "open_cluster", open_cluster)


@pytest.mark.slow
def test_a_batch_reports_its_progress_and_the_outcome_of_each_run(tmp_path, monkeypatch, one_worker):
    shown, folder = [], tmp_path / "runs"

    def run_notebook(name, run_dir, batch_name, **parameters):
        """Write what the notebook would, and wait until it is shown."""
        if name == "01_dataset_upload" and parameters["seed"] == 13:
            raise batch.NotebookFailed("thirteen is unlucky", name, 4)
        if name == "04_training":
            (run_dir / "model").mkdir()
            helpers.write_json(run_dir / "settings.json", {"epochs": 3})
            helpers.write_json(run_dir / "model" / "training.json", {"epochs": 1, "seconds": 100.0})
            write_history(run_dir, [{"epoch": 0, "val_dice_coef": 0.25}])
            while not any("epoch 1 of 3" in text for text in shown):
                time.sleep(0.1)
        if name == "05_evaluation":
            (run_dir / "results").mkdir()
            helpers.write_json(run_dir / "results" / "metrics.json", {})

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    runs, open_test = batch.plan_runs({"seed": [0, 13], "image_size": [32]}, **{**CHOICE, "recipe": "report"})
    outcomes = batch.run_batch(folder, runs, open_test, seed=5, show=shown.append)

    assert [outcome["state"] for outcome in outcomes.values()] == ["complete", "failed"]
    assert list(outcomes.values())[1]["message"] == "thirteen is unlucky"
    assert helpers.read_json(folder / "batch.json", "00")["runs"] == outcomes
    assert helpers.read_json(folder / list(runs)[0] / "run.json", "00") == list(outcomes.values())[0]
    arrays, dataset = sorted(path.name for path in (folder / "shared").iterdir())
    sample = {"patients": {"train": 3, "valid": 1, "test": 1}, "slices": 10}
    assert dataset == f"dataset-{fingerprint('sample', {'seed': 5, 'sample': sample})}"
    assert arrays.startswith("arrays-")
    name = "recipe-report_seed-0_image_size-32"
    assert shown[0].splitlines()[:2] == [f"{name}: waiting for its data", "0 of 2 runs are done"]
    line = f"{name}: 04_training, epoch 1 of 3, 3 minutes left, soft Dice 0.250\n"
    assert any(text.startswith(line) for text in shown)
    assert "1 of 2 runs are done, about" in "".join(shown)

    def run_one(folder, name, *_):
        raise ValueError(name)

    monkeypatch.setattr(batch, "run_one", run_one)
    outcomes = batch.run_batch(folder, runs, open_test, show=shown.append)
    assert [outcome["message"] for outcome in outcomes.values()] == [f"ValueError: {name}" for name in runs]

    monkeypatch.setattr(batch, "share_arrays", lambda *_: 1 / 0)
    with pytest.raises(helpers.CourseError, match=rf"2 of 2 runs failed. The first was {name}: ZeroDivisionError: div"):
        batch.run_batch(folder, runs, open_test, show=shown.append)
    outcomes = helpers.read_json(folder / "batch.json", "00")["runs"]
    assert [outcome["message"] for outcome in outcomes.values()] == ["ZeroDivisionError: division by zero"] * 2


@pytest.mark.parametrize(("failures", "state"), [(2, "complete"), (3, "failed")])
def test_a_run_whose_kernel_does_not_start_is_tried_three_times(
    work_dir, tmp_path, monkeypatch, one_worker, failures, state
):
    starts, shown = [], []

    def run_notebook(name, *_, **__):
        starts.append(name)
        if len(starts) <= failures:
            raise RuntimeError("Kernel didn't respond")

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    monkeypatch.setattr(batch, "share_dataset", lambda *_: None)
    monkeypatch.setattr(batch, "share_arrays", lambda *_: str(work_dir / "dataset.json"))
    runs, open_test = batch.plan_runs({}, **{**CHOICE, "recipe": "report"})
    with contextlib.suppress(helpers.CourseError):
        batch.run_batch(tmp_path / "runs", runs, open_test, show=shown.append)
    [outcome] = helpers.read_json(tmp_path / "runs" / "batch.json", "00")["runs"].values()
    assert outcome["state"] == state
    assert starts == [batch.NOTEBOOKS[0]] * failures + list(batch.NOTEBOOKS if failures < 3 else [])
    assert all("\n" not in text for text in shown)  # one line is enough for one run
    assert outcome.get("message", "") == ("" if failures < 3 else "RuntimeError: Kernel didn't respond")


def test_a_run_that_another_batch_has_begun_again_with_other_inputs_counts_as_failed(
    work_dir, tmp_path, monkeypatch, one_worker
):
    folder = tmp_path / "runs"
    runs, open_test = batch.plan_runs({"seed": [0, 1]}, **CHOICE)
    first, second = [folder / name for name in runs]

    def run_notebook(name, run_dir, *_, **__):
        """Have the first run begun again by another batch during the second one."""
        if run_dir == second:
            helpers.write_json(first / "run.json", {"batch": "another", "inputs": "others", "state": "running"})

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    monkeypatch.setattr(batch, "share_dataset", lambda *_: None)
    monkeypatch.setattr(batch, "share_arrays", lambda *_: str(work_dir / "dataset.json"))
    outcomes = batch.run_batch(folder, runs, open_test, show=lambda text: None)
    assert [outcome["state"] for outcome in outcomes.values()] == ["failed", "complete"]
    assert outcomes[first.name]["message"] == batch.BEGUN_BY_ANOTHER


def test_a_batch_that_is_stopped_leaves_its_runs(work_dir, tmp_path, monkeypatch, one_worker):
    begun, folder = [], tmp_path / "runs"
    runs, open_test = batch.plan_runs({}, **CHOICE)

    def run_notebook(name, run_dir, *_, **__):
        """Run until the kernel would end, or for a minute."""
        begun.append(name)
        end = time.monotonic() + 60
        while batch.batch_of(run_dir) and time.monotonic() < end:
            time.sleep(0.1)

    def show(text):
        """Press Ctrl-C when the first notebook runs."""
        if batch.NOTEBOOKS[0] in text:
            raise KeyboardInterrupt

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    monkeypatch.setattr(batch, "share_dataset", lambda *_: None)
    monkeypatch.setattr(batch, "share_arrays", lambda *_: str(work_dir / "dataset.json"))
    with pytest.raises(KeyboardInterrupt):
        batch.run_batch(folder, runs, open_test, show=show)
    assert helpers.read_json(folder / list(runs)[0] / "run.json", "00")["batch"] is None
    assert begun == [batch.NOTEBOOKS[0]]


def test_a_worker_that_keeps_dying_is_explained():
    from distributed import KilledWorker

    future = SimpleNamespace(status="error", exception=lambda: KilledWorker("run_one-1", None, 3))
    outcome = batch._outcome("one", CHOICE, future)
    assert outcome["message"] == "its worker died every time it was started, most often because memory ran out"
    assert (outcome["name"], outcome["state"], outcome["parameters"]) == ("one", "failed", CHOICE)


def test_the_time_left_is_estimated_from_complete_runs_and_the_number_of_workers():
    took = [("complete", 100.0), ("complete", 200.0), ("reused", 5000.0), ("failed", 3.0)]
    outcomes = {str(number): {"state": state, "seconds": seconds} for number, (state, seconds) in enumerate(took)}
    line = batch._time_left(dict.fromkeys("0123456789"), outcomes, workers=2)
    assert line == "4 of 10 runs are done, 1 of them failed, about 8 minutes left"  # 6 runs of 150 s on two workers
    assert batch._time_left(dict.fromkeys("01"), {}, workers=2) == "0 of 2 runs are done"


def test_a_failed_run_ends_the_batch_with_its_name():
    fine = {"name": "one", "state": "reused", "seconds": 3.0}
    failed = {"name": "two", "state": "failed", "notebook": "04_training", "cell": 7, "message": "ValueError: no"}
    batch.check_outcomes({"one": fine})
    outcomes = {"one": fine, "two": failed}
    expected = r"1 of 2 runs failed. The first was two, in 04_training: ValueError: no\. Remove"
    with pytest.raises(helpers.CourseError, match=expected):
        batch.check_outcomes(outcomes)
    assert batch.outcome_table(outcomes).splitlines() == [
        "run  outcome  time  what went wrong: notebook, cell, message",
        "---  -------  ----  ----------------------------------------",
        "one  reused   3 s",
        "two  failed   0 s   04_training 7 ValueError: no",
    ]
    assert batch.outcome_table({"one": fine}).splitlines()[0] == "run  outcome  time"


def test_notes_of_the_import_are_shown_once(work_dir, tmp_path):
    description = helpers.read_description(work_dir)
    for name, notes in (("one", ["split by chance"]), ("two", ["split by chance", "blurred"])):
        helpers.write_json(tmp_path / name / "dataset.json", {**description, "notes": notes})
    outcomes = {name: {"shared": {"path": str(tmp_path / name / "dataset.json")}} for name in ("one", "two")}
    assert batch.dataset_notes({**outcomes, "lost": {"state": "failed"}}) == ["split by chance", "blurred"]


# --- one run --------------------------------------------------------------------------------------------


def run_one(folder, run, dataset_file, open_test):
    return batch.run_one(folder, "run", run, str(dataset_file), open_test, "a", batch.code_fingerprint())


@pytest.mark.parametrize("open_test", [True, False])
@pytest.mark.parametrize(
    "grid",
    [
        {},
        {"fold": [2], "exclude": [["la_007"]], "image_size": [48], "learning_rate": [0.01], "threshold": [0.4]},
        {"activation": ["elu"], "epochs": [3], "batch_size": [2], "seed": [5], "largest_component": [True]},
        {"profile": ["quick"], "recipe": ["report"]},
    ],
)
def test_papermill_gets_each_notebooks_own_parameters(work_dir, tmp_path, monkeypatch, grid, open_test):
    reached, states = {}, []

    def execute_notebook(source, executed, parameters, **options):
        reached[source.stem] = parameters
        assert source.parent == batch.COURSE_FOLDER / "notebooks"
        assert executed == tmp_path / "run" / "notebooks" / source.name
        assert (options["cwd"], options["execution_timeout"]) == (source.parent, 12 * 3600)
        assert options["kernel_name"] == "python3" and options["progress_bar"] is False
        states.append(helpers.read_json(tmp_path / "run" / "run.json", "00"))

    monkeypatch.setattr(papermill, "execute_notebook", execute_notebook)
    runs, opened = batch.plan_runs(grid, open_test=open_test, **CHOICE)
    [run] = runs.values()
    record = run_one(tmp_path, run, work_dir / "dataset.json", opened)
    chosen = {name: values[0] for name, values in grid.items()}
    given = CHOICE | chosen | {"work_dir": str(tmp_path / "run"), "open_test": open_test}
    given["dataset"] = str(work_dir / "dataset.json")
    names = {
        "01_dataset_upload": ("work_dir", "dataset", "profile", "recipe", "seed"),
        "02_preprocessing": ("work_dir", "image_size"),
        "03_model": ("work_dir", "activation", "learning_rate"),
        "04_training": ("work_dir", "batch_size", "epochs"),
        "05_evaluation": ("work_dir", "open_test", "largest_component", "threshold"),
    }
    assert list(reached) == list(batch.NOTEBOOKS) == list(names)
    for notebook, known in names.items():
        assert reached[notebook] == {name: given[name] for name in known if name in given}
    told = [(state["state"], state["notebook"], state["batch"]) for state in states]
    assert told == [("running", name, "a") for name in batch.NOTEBOOKS]
    assert (record["state"], record["open_test"], record["parameters"]) == ("complete", open_test, run)


@pytest.mark.parametrize(
    ("grid", "asked", "opened"),
    [
        *[({}, None, True), ({}, False, False), ({"seed": [0, 1], "fold": [0, 1]}, None, True)],
        *[({"recipe": ["report", "best"]}, None, False), ({"threshold": [0.4, 0.5]}, False, False)],
    ],
)
def test_test_is_opened_only_if_nothing_is_compared(grid, asked, opened):
    assert batch.plan_runs(grid, open_test=asked, **CHOICE)[1] is opened


@pytest.mark.parametrize("other", [{"batch": "b", "state": "running"}, None], ids=["another batch", "deleted"])
def test_a_run_that_another_batch_has_begun_is_left_to_it(work_dir, tmp_path, monkeypatch, other):
    path = tmp_path / "run" / "run.json"

    def run_notebook(name, *_, **__):
        """Have the run begun by another batch during the last notebook."""
        if name == batch.NOTEBOOKS[-1]:
            helpers.write_json(path, other) if other else path.unlink()

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    record = run_one(tmp_path, CHOICE, work_dir / "dataset.json", True)
    told = "another batch has begun this run, or its run.json was deleted"
    assert (record["state"], record["message"]) == ("failed", told)
    assert (helpers.read_json(path, "00") if path.exists() else None) == other


def test_a_run_fails_if_the_code_has_changed_since_the_batch_began(work_dir, tmp_path, monkeypatch):
    done = []

    def run_notebook(name, *_, **__):
        """Have the code edited while the third notebook runs."""
        done.append(name)
        if len(done) == 3:
            monkeypatch.setattr(batch, "code_fingerprint", lambda: "other")

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    record = run_one(tmp_path, CHOICE, work_dir / "dataset.json", True)
    assert (record["state"], record["notebook"], len(done)) == ("failed", "03_model", 3)
    assert record["message"].startswith("the code was edited after the batch began") and "reported" not in record


def test_a_jump_of_the_clock_does_not_change_a_runs_times(work_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "run_notebook", lambda *_, **__: monkeypatch.setattr(batch.time, "time", lambda: 0))
    assert 0 <= run_one(tmp_path, CHOICE, work_dir / "dataset.json", True)["seconds"] < 60


def test_a_complete_run_is_repeated_only_if_its_inputs_change(work_dir, tmp_path, monkeypatch):
    def run_notebook(name, run_dir, *_, **__):
        for file in batch.REPORTED:
            helpers.write_json(run_dir / file, {})

    def states(run, open_test=True):
        """The states in which a run ends when it is started twice."""
        return [run_one(tmp_path, run, work_dir / "dataset.json", open_test)["state"] for _ in range(2)]

    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    once, longer = ["complete", "reused"], {**CHOICE, "epochs": 3}
    assert states(CHOICE, open_test=False) == once
    moved = shutil.copytree(work_dir, tmp_path / "moved") / "dataset.json"
    assert run_one(tmp_path, CHOICE, moved, False)["shared"]["path"] == str(moved)  # not its former place
    assert states(CHOICE) == once and states(longer) == once
    description = helpers.read_json(work_dir / "dataset.json", "01")
    helpers.write_json(work_dir / "dataset.json", {**description, "fingerprint": "other"})
    assert states(longer) == once
    geometry = {patient: {**entry, "spacing": [1, 1, 5]} for patient, entry in description["geometry"].items()}
    helpers.write_json(work_dir / "dataset.json", {**description, "fingerprint": "other", "geometry": geometry})
    assert states(longer) == once
    monkeypatch.setattr(batch, "code_fingerprint", lambda: "other")
    assert states(longer) == once
    for name in ("results/metrics.json", "results/best_median_worst.png", "model/history.csv", "npy/arrays.json"):
        (tmp_path / "run" / name).unlink()  # the report could not be written without it
        assert states(longer) == once
    helpers.write_json(tmp_path / "run" / "results" / "metrics.json", {"threshold": 0.3})  # 05 was run here by hand
    assert states(longer) == once


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (None, "waiting for its data"),
        ({"batch": "earlier", "state": "complete"}, "waiting for its data"),
        ({"batch": "a", "state": "running", "notebook": "03_model"}, "03_model"),
        ({"batch": "a", "state": "running", "notebook": "04_training"}, "04_training, before its first epoch"),
        ({"batch": "a", "state": "failed", "notebook": "04_training"}, "failed"),
    ],
)
def test_the_progress_of_a_run_is_what_its_record_says(tmp_path, record, expected):
    if record:
        helpers.write_json(tmp_path / "run.json", record)
    assert batch._progress("one", tmp_path, "a") == f"one: {expected}"
