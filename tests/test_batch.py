"""The batch hands parameters on, refuses what cannot work before anything runs, and says which cell failed."""

import contextlib
import os
import subprocess
import sys
import time

import dask
import nbformat
import pytest

import helpers
from course import batch, workspace
from course.training import write_history

CHOICE = {"dataset": "sample", "profile": "smoke", "recipe": "best", "seed": 0}


def make_notebook(folder, *sources):
    (folder / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "notebooks" / "01_made_up.ipynb")


def test_parameters_reach_the_notebook_and_the_executed_copy_is_kept(tmp_path, monkeypatch):
    make_notebook(tmp_path, "seed = 0  # a number", "print('the seed is', seed)")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    batch.run_notebook("01_made_up", tmp_path / "run", seed=7)
    executed = nbformat.read(tmp_path / "run" / "notebooks" / "01_made_up.ipynb", as_version=4)
    assert "the seed is 7" in executed.cells[-1].outputs[0].text
    assert "the seed is 7" in (tmp_path / "run" / "run.log").read_text()


def test_what_libraries_write_to_stderr_goes_to_the_log_alone(tmp_path, monkeypatch, capfd):
    make_notebook(tmp_path, "seed = 0  # a number", "import os\nos.write(2, b'a line of TensorFlow');")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    batch.run_notebook("01_made_up", tmp_path / "run")
    executed = nbformat.read(tmp_path / "run" / "notebooks" / "01_made_up.ipynb", as_version=4)
    assert "a line of TensorFlow" in (tmp_path / "run" / "run.log").read_text()
    assert not [output for output in executed.cells[-1].outputs if output.output_type == "stream"]
    assert capfd.readouterr().err == ""


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path, monkeypatch):
    make_notebook(tmp_path, "seed = 0  # a number")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    with pytest.raises(helpers.CourseError, match="01_made_up.ipynb has no parameter sead"):
        batch.run_notebook("01_made_up", tmp_path / "run", sead=7)
    assert not (tmp_path / "run" / "notebooks" / "01_made_up.ipynb").exists()


def test_a_failing_cell_is_named(tmp_path, monkeypatch):
    make_notebook(tmp_path, "seed = 0  # a number", "print('fine')", "1 / seed")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    with pytest.raises(helpers.CourseError, match=r"01_made_up stopped in cell 3: ZeroDivisionError: division by zero"):
        batch.run_notebook("01_made_up", tmp_path / "run")


@pytest.mark.parametrize("failures", [2, 3])
def test_a_kernel_that_does_not_answer_is_started_again(tmp_path, monkeypatch, failures):
    make_notebook(tmp_path, "seed = 0  # a number", "print('the seed is', seed)")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    starts, kernel = tmp_path / "starts.txt", tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (tmp_path / "start.py").write_text(
        f"""
import runpy, sys
with open({str(starts)!r}, "a+") as file:
    file.write("start\\n")
    file.seek(0)
    if len(file.readlines()) <= {failures}:
        sys.exit("the port is taken")
runpy.run_module("ipykernel_launcher", run_name="__main__")
""",
        encoding="utf-8",
    )
    command = [sys.executable, str(tmp_path / "start.py"), "-f", "{connection_file}"]
    helpers.write_json(kernel / "kernel.json", {"argv": command, "display_name": "Python 3", "language": "python"})
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    if failures < batch.KERNEL_STARTS:
        batch.run_notebook("01_made_up", tmp_path / "run", seed=7)
        assert "the seed is 7" in (tmp_path / "run" / "run.log").read_text()
    else:
        with pytest.raises(batch.NotebookFailed, match="01_made_up stopped: its kernel did not start: Kernel died"):
            batch.run_notebook("01_made_up", tmp_path / "run", seed=7)
    assert starts.read_text() == 3 * "start\n"


def test_a_dataset_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert batch.resolve_dataset("mine") == str(tmp_path / "mine")
    assert [batch.resolve_dataset(name) for name in ("sample", "heart")] == ["sample", "heart"]
    with pytest.raises(helpers.CourseError, match="There is no dataset at yours"):
        batch.resolve_dataset("yours")


# --- planning -----------------------------------------------------------------------------------------


def test_a_grid_gives_one_run_for_each_combination_and_no_grid_gives_one():
    runs, open_test = batch.plan_runs({"recipe": ["report", "best"], "fold": [0, 1, 2], "image_size": [32]}, **CHOICE)
    assert len(runs) == 6 and not open_test
    expected = {**CHOICE, "recipe": "report", "fold": 2, "image_size": 32}
    assert runs["recipe-report_seed-0_fold-2_image_size-32"] == expected
    assert batch.plan_runs({}, **CHOICE) == ({"recipe-best_seed-0": CHOICE}, True)


@pytest.mark.parametrize(
    "name", ["recipe", "seed", "fold", "profile", "epochs", "image_size", "learning_rate", "threshold", "exclude"]
)
def test_a_grid_may_name_any_parameter_of_the_notebooks(name):
    value = {"recipe": "report", "seed": 3, "profile": "quick", "image_size": 64, "threshold": 0.4}.get(name, 1)
    [run] = batch.plan_runs({name: [value]}, **CHOICE)[0].values()
    assert run[name] == value


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ({"sead": [0]}, "names 'sead', which no notebook takes"),
        ({"work_dir": ["a"]}, "names 'work_dir'"),
        ({"open_test": [True]}, "names 'open_test'"),
        ({"seed": 0}, "give a list"),
        ({"seed": []}, "give a list"),
        ({"seed": [0, 0]}, "no value twice"),
        ({"recipe": ["worst"]}, "no recipe 'worst'"),
        ({"seed": [-1]}, "whole number"),
        ({"image_size": [100]}, "image_size is 100: choose a multiple of 8"),
        ({"epochs": [2, 0]}, "epochs is 0"),
    ],
)
def test_a_grid_that_cannot_work_is_refused(grid, expected):
    with pytest.raises(helpers.CourseError, match=expected):
        batch.plan_runs(grid, **CHOICE)


def test_test_stays_closed_while_anything_is_compared():
    with pytest.raises(helpers.CourseError, match="compares recipe, so test stays closed"):
        batch.plan_runs({"recipe": ["report", "best"], "seed": [0, 1]}, open_test=True, **CHOICE)
    assert batch.plan_runs({"seed": [0, 1], "fold": [0, 1]}, **CHOICE)[1] is True
    assert batch.plan_runs({"seed": [0, 1]}, open_test=False, **CHOICE)[1] is False


def test_names_of_runs_are_folder_names_and_differ():
    runs = batch.plan_runs({"exclude": [["a/b"], ["a:b"], ["x" * 300]]}, **CHOICE)[0]
    assert len(runs) == 3 and all(len(name) < 130 and not set(name) & set("/: '") for name in runs)


def test_runs_of_one_dataset_share_one_task_for_its_arrays(tmp_path):
    from distributed import Client

    def keys(**changed):
        return [future.key for future in batch._share(client, tmp_path, {**CHOICE, **changed}, seed=0)]

    with Client(n_workers=0, processes=False, dashboard_address=":0") as client:  # nothing runs: no worker
        assert keys() == keys(seed=1) == keys(recipe="crops")
        assert keys()[0] == keys(image_size=64)[0] and keys()[1] != keys(image_size=64)[1]
        assert keys()[1] != keys(recipe="report")[1] and keys()[1] != keys(fold=1)[1]


def test_the_heart_archive_is_the_same_for_all_batches_and_for_01(tmp_path, monkeypatch):
    taken = []

    def remember(dataset, home, progress, **options):
        taken.append((home.parent, options["heart_source"]))

    monkeypatch.setattr(batch, "import_dataset", remember)
    (tmp_path / "Task02_Heart.tar").touch()
    for profile in ("quick", "hour"):
        batch.share_dataset(tmp_path / "runs" / f"heart-{profile}", "heart", {"seed": 0})
    shared = [tmp_path / "runs" / f"heart-{profile}" / "shared" for profile in ("quick", "hour")]
    assert taken == list(zip(shared, [tmp_path / "Task02_Heart.tar"] * 2))


def test_the_heart_archive_is_fetched_once_and_before_the_workers_begin(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(batch, "fetch_heart", calls.append)
    monkeypatch.setattr(batch, "open_cluster", lambda count, scheduler: 1 / 0)
    runs, _ = batch.plan_runs({"exclude": [["la_003"], ["la_004"]]}, **{**CHOICE, "dataset": "heart"})
    with pytest.raises(ZeroDivisionError):
        batch.run_batch(tmp_path / "runs" / "heart-smoke", runs, open_test=False)
    assert calls == [tmp_path]


def test_a_run_of_another_dataset_is_not_written_over(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "run.json").write_text('{"parameters": {"dataset": "/a/images"}}')
    with pytest.raises(helpers.CourseError, match="holds a run of another dataset, /a/images: move .* away"):
        batch.run_batch(tmp_path, {"one": {**CHOICE, "dataset": "/b/images"}}, open_test=False)
    assert os.listdir(tmp_path) == ["one"]


def test_a_batch_tells_how_far_it_is_and_what_came_of_each_run(tmp_path, monkeypatch):
    import distributed

    @contextlib.contextmanager
    def open_cluster(count, scheduler):
        """A worker in this process."""
        with distributed.Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as client:
            yield client

    shown, folder = [], tmp_path / "runs"

    def run_notebook(name, run_dir, owner, **parameters):
        """Write what the notebook would, and wait until it is shown."""
        (run_dir / "notebooks").mkdir(exist_ok=True)
        (run_dir / "notebooks" / f"{name}.ipynb").touch()
        if name == "01_dataset_upload" and parameters["seed"] == 13:
            raise batch.NotebookFailed(name, 4, "thirteen is unlucky")
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

    monkeypatch.setattr(batch, "open_cluster", open_cluster)
    monkeypatch.setattr(batch, "run_notebook", run_notebook)
    runs, open_test = batch.plan_runs({"seed": [0, 13], "image_size": [32]}, **{**CHOICE, "recipe": "report"})
    outcomes = batch.run_batch(folder, runs, open_test, show=shown.append)

    assert [outcome["state"] for outcome in outcomes.values()] == ["complete", "failed"]
    assert list(outcomes.values())[1]["message"] == "thirteen is unlucky"
    assert helpers.read_json(folder / "batch.json", "00")["runs"] == outcomes
    assert sorted(path.name.split("-")[0] for path in (folder / "shared").iterdir()) == ["arrays", "dataset"]
    line = (
        "recipe-report_seed-0_image_size-32: 04_training, epoch 1 of 3, soft Dice on valid 0.250, "
        "3 min of training left"
    )
    assert any(line in text for text in shown)
    assert "1 of 2 runs are done, about" in "".join(shown) and shown[-1] == "2 of 2 runs are done, 1 of them failed"

    monkeypatch.setattr(batch, "share_arrays", lambda *_: 1 / 0)
    outcomes = batch.run_batch(folder, runs, open_test, show=shown.append)
    assert [outcome["message"] for outcome in outcomes.values()] == ["ZeroDivisionError: division by zero"] * 2


def test_a_gpu_gets_one_training_at_a_time_and_no_worker_is_profiled(monkeypatch):
    monkeypatch.setattr(batch, "gpu_found", lambda: True)
    with batch.open_cluster(5) as client:
        assert len(client.scheduler_info()["workers"]) == 1
        assert list(client.run(lambda: dask.config.get("distributed.worker.profile.enabled")).values()) == [False]


def test_a_failed_run_ends_the_batch_with_its_name():
    fine = {"name": "one", "state": "reused", "seconds": 3.0}
    failed = {"name": "two", "state": "failed", "notebook": "04_training", "cell": 7, "message": "ValueError: no"}
    batch.check_outcomes({"one": fine})
    outcomes = {"one": fine, "two": failed}
    expected = r"1 of 2 runs failed, the first is two \(04_training: ValueError: no\)"
    with pytest.raises(helpers.CourseError, match=expected):
        batch.check_outcomes(outcomes)
    assert batch._time_left({"one": 1, "two": 2}, outcomes, None) == "2 of 2 runs are done, 1 of them failed"
    assert "04_training 7 ValueError: no" in batch.outcome_table(outcomes)


def test_what_the_import_noted_is_told_once(tmp_path):
    for name, notes in (("one", ["split by chance"]), ("two", ["split by chance", "blurred"])):
        helpers.write_json(tmp_path / f"{name}.json", {"notes": notes})
    outcomes = {name: {"shared": {"path": str(tmp_path / f"{name}.json")}} for name in ("one", "two")}
    assert batch.dataset_notes({**outcomes, "lost": {"state": "failed"}}) == ["split by chance", "blurred"]


def test_no_dataset_at_all_is_refused():
    with pytest.raises(helpers.CourseError, match="There is no dataset at : give 'sample', 'heart', or a folder"):
        batch.resolve_dataset("")


def test_a_scheduler_that_is_not_there_is_one_sentence(monkeypatch):
    import distributed

    original = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: original(address, timeout=1))
    with (
        pytest.raises(helpers.CourseError, match="No dask scheduler answers at tcp://127.0.0.1:9"),
        batch.open_cluster(1, "tcp://127.0.0.1:9"),
    ):
        pass


# --- owners and retries ---------------------------------------------------------------------------------


WATCHED = (
    "import os, sys, time; from course import batch; batch.end_with_owner(sys.argv[1], 'one', os.getppid()); "
    "print('on', flush=True); time.sleep(60)"
)


@pytest.mark.parametrize("owner", [{"owner": "another"}, None])
def test_a_process_ends_when_its_run_has_another_owner_or_none(tmp_path, owner):
    helpers.write_json(tmp_path / "owner.json", {"owner": "one"})
    environment = {**os.environ, "PYTHONPATH": str(workspace.COURSE_FOLDER)}
    command = [sys.executable, "-c", WATCHED, tmp_path]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(3 * batch.WATCH_INTERVAL)
    if owner:
        helpers.write_json(tmp_path / "owner.json", owner)
    else:
        (tmp_path / "owner.json").unlink()
    assert process.wait(20) == 1
    process.stdout.close()


def test_a_run_whose_worker_died_three_times_is_given_up(work_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "WATCH_INTERVAL", 0)
    ran = []
    monkeypatch.setattr(batch, "run_notebook", lambda name, *_, **__: ran.append(name))
    for start, state in ((2, "complete"), (3, "failed")):
        (tmp_path / "run").mkdir(exist_ok=True)
        helpers.write_json(tmp_path / "run" / "owner.json", {"owner": "dead", "batch": "a", "start": start})
        record = batch.run_one(tmp_path, "run", CHOICE, str(work_dir / "dataset.json"), True, "a")
        assert (record["state"], record["starts"]) == (state, start + 1)
    assert record["message"] == "its worker died 3 times" and ran == list(batch.NOTEBOOKS)
    in_a_new_batch = batch.run_one(tmp_path, "run", CHOICE, str(work_dir / "dataset.json"), True, "b")
    assert in_a_new_batch["starts"] == 1


def test_only_a_change_of_the_inputs_runs_a_complete_run_again(work_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(
        batch,
        "run_notebook",
        lambda name, run_dir, *_, **__: (
            (run_dir / "results").mkdir(exist_ok=True),
            helpers.write_json(run_dir / "results" / "metrics.json", {}),
        ),
    )

    def state(run=CHOICE, open_test=False):
        return batch.run_one(tmp_path, "run", run, str(work_dir / "dataset.json"), open_test, "a")["state"]

    assert [state(), state()] == ["complete", "reused"]
    assert [state(open_test=True), state(open_test=True)] == ["complete", "reused"]
    assert state({**CHOICE, "epochs": 3}, True) == "complete"
    description = helpers.read_json(work_dir / "dataset.json", "01")
    helpers.write_json(work_dir / "dataset.json", {**description, "fingerprint": "other"})
    assert [state({**CHOICE, "epochs": 3}, True), state({**CHOICE, "epochs": 3}, True)] == ["complete", "reused"]
    monkeypatch.setattr(batch, "code_fingerprint", lambda: "other")
    assert state({**CHOICE, "epochs": 3}, True) == "complete"
    (tmp_path / "run" / "results" / "metrics.json").unlink()
    assert state({**CHOICE, "epochs": 3}, True) == "complete"
