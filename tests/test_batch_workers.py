"""Workers: how many there are, which GPU each sees, and that nothing is lost when one is killed or a batch is stopped.

In the slow tests the course is a copy with short notebooks that train, save and resume with functions of helpers.py.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import dask
import pytest
from test_settings import H200, nvidia_smi

from course import batch, terminal, workers
from course.workspace import COURSE_FOLDER, CourseError, write_json

GIB = 2**30


def run_of(profile="smoke", recipe="report", **values):
    return {"dataset": "sample", "profile": profile, "recipe": recipe, "seed": 0, **values}


@pytest.fixture()
def machine(tmp_path, monkeypatch):
    """A machine with four cores and 8 GiB; call it with a number of GPUs."""
    import dask.system
    import distributed.system

    monkeypatch.setattr(dask.system, "CPU_COUNT", 4)
    monkeypatch.setattr(distributed.system, "MEMORY_LIMIT", 8 * GIB)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return lambda count: nvidia_smi(monkeypatch, tmp_path, count * [H200])


def planned(count, **values):
    return workers.plan_workers({str(number): run_of(**values) for number in range(count)})


@pytest.mark.parametrize(
    ("chosen", "runs", "expected"),
    [
        *[(None, 5, ["0", "1", "2"]), (None, 2, ["0", "1"])],
        *[("2,0", 5, ["2", "0"]), (" GPU-b ", 5, ["GPU-b"]), ("1,-1,2", 5, ["1"])],
    ],
)
def test_each_gpu_has_a_worker_that_sees_no_other_gpu(machine, monkeypatch, chosen, runs, expected):
    machine(3)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert [worker["CUDA_VISIBLE_DEVICES"] for worker in planned(runs)] == expected
    assert {worker["TF_NUM_INTRAOP_THREADS"] for worker in planned(runs)} == {str(4 // len(expected))}


@pytest.mark.parametrize("chosen", ["", "-1", "-1,0"])
def test_hidden_gpus_are_not_used(machine, monkeypatch, chosen):
    machine(3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert len(planned(9)) == 4 and not any("CUDA_VISIBLE_DEVICES" in worker for worker in planned(9))


@pytest.mark.parametrize(
    ("count", "values", "expected"),
    [
        (9, {}, 4),  # as many as cores
        (3, {}, 3),  # as many as runs
        (9, {"profile": "full"}, 1),  # 32 slices of 256x256 at once: two do not fit into 8 GiB
        (9, {"profile": "full", "batch_size": 16}, 2),
        (9, {"profile": "full", "batch_size": 64}, 1),  # too large for this memory, but tried anyway
    ],
)
def test_without_a_gpu_cores_runs_and_memory_limit_the_number_of_workers(machine, count, values, expected):
    each = {"TF_NUM_INTRAOP_THREADS": str(4 // expected), "TF_CPP_MIN_LOG_LEVEL": "3"}
    assert planned(count, **values) == [each] * expected


def test_the_largest_run_of_a_grid_decides_how_many_fit(machine):
    runs = {"small": run_of(), "large": run_of("full"), "middle": run_of("hour")}
    assert len(workers.plan_workers(runs)) == 1


# Peak anonymous memory in MiB, as in docs/BATCH.md
@pytest.mark.parametrize(
    ("profile", "recipe", "batch_size", "measured"),
    [
        *[("quick", "report", None, 1168), ("hour", "report", None, 3600), ("full", "report", None, 5392)],
        *[("full", "report", 16, 2930), ("full", "best", None, 1334)],
    ],
)
def test_the_estimate_of_memory_is_at_most_one_gib_above_the_measurement(profile, recipe, batch_size, measured):
    needed = workers.memory_needed(run_of(profile, recipe, batch_size=batch_size)) / 2**20
    assert measured < needed < measured + 1024


def test_the_estimate_of_memory_grows_with_batch_and_area_and_covers_prediction():
    def above_a_process(**values):
        return workers.memory_needed(run_of("full", **values)) - workers.MEMORY_OF_A_PROCESS

    assert above_a_process() == 2600 * 32 * 256 * 256
    assert above_a_process(batch_size=8, image_size=512) == above_a_process()
    assert above_a_process(recipe="best") == 800 * 16 * 256 * 256
    assert above_a_process(recipe="best", dataset="/pictures") == 800 * 16 * 256 * 256 + 2**30


def test_workers_get_the_planned_environment_in_addition_to_the_users(tmp_path, monkeypatch):
    """They also find the course wherever they start, and no worker is profiled."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(workers, "plan_workers", lambda runs: [{"CUDA_VISIBLE_DEVICES": name} for name in "ab"])
    monkeypatch.chdir(tmp_path)

    def look():
        names = ("CUDA_VISIBLE_DEVICES", "PYTHONPATH")
        return [dask.config.get("distributed.worker.profile.enabled"), *map(os.environ.get, names)]

    with workers.open_cluster({}) as client:
        seen = client.run(look).values()
        assert sorted(seen) == [[False, "a", str(tmp_path)], [False, "b", str(tmp_path)]]
        assert list(client.run(batch.compared_names, {"recipe": [1, 2]}).values()) == [["recipe"]] * 2
        assert set(client.nthreads().values()) == {1}
        assert {worker["memory_limit"] for worker in client.scheduler_info()["workers"].values()} == {0}  # no limit
        assert client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures) == workers.RETRIES == 2
        assert client.dashboard_link.startswith("http://127.0.0.1:")


def test_an_unreachable_scheduler_is_explained_in_one_sentence(monkeypatch):
    import distributed

    original = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, timeout: original(address, timeout=1))
    with pytest.raises(CourseError, match="No dask scheduler answers at tcp://127.0.0.1:9"):
        workers.open_cluster({}, "tcp://127.0.0.1:9").__enter__()


WATCHED = """import sys, time; from course import workers
workers.end_with_batch(sys.argv[1], 'one'); print('on', flush=True); time.sleep(60)"""


@pytest.mark.parametrize("change", ["begun by another", "stopped", "deleted"])
def test_a_kernel_ends_when_its_run_no_longer_belongs_to_its_batch(tmp_path, change):
    path = tmp_path / "run.json"
    write_json(path, {"batch": "one", "state": "running"})
    process = subprocess.Popen([sys.executable, "-c", WATCHED, tmp_path], cwd=COURSE_FOLDER, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"on\n"
    workers.stop_runs(tmp_path.parent, [tmp_path.name], "another")  # which it does not belong to
    write_json(path, {"batch": "one", "state": "running", "notebook": "02_preprocessing"})
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    if change == "begun by another":
        write_json(path, {"batch": "two", "state": "running"})
    elif change == "stopped":
        workers.stop_runs(tmp_path.parent, [tmp_path.name], "one")
        assert read(path) == {"batch": None, "state": "running", "notebook": "02_preprocessing"}
    else:
        path.unlink()
    assert process.wait(20) == 1
    process.stdout.close()


SET_UP = """
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd().parent))
import helpers

work_dir = Path(work_dir)"""
NOTEBOOKS = {
    "01_dataset_upload": (
        "dataset = None; profile = None; recipe = None; seed = None; fold = None",
        """
import users_own
if seed == 13:
    raise helpers.CourseError("thirteen is unlucky")
helpers.import_dataset(dataset, work_dir)
helpers.write_json(work_dir / "settings.json", helpers.new_settings(dataset, profile, recipe, seed))""",
    ),
    "02_preprocessing": (
        "image_size = None",
        """
settings = helpers.load_settings(work_dir, image_size=image_size)
description = helpers.read_json(work_dir / "dataset.json", "01")
helpers.prepare_arrays(description, work_dir, settings["image_size"], progress=False)""",
    ),
    "03_model": (
        "learning_rate = None",
        """
helpers.load_settings(work_dir, learning_rate=learning_rate)
(work_dir / "model").mkdir(exist_ok=True)""",
    ),
    "04_training": (
        "epochs = None; batch_size = None",
        """
import keras, os, time
settings = helpers.load_settings(work_dir, epochs=epochs, batch_size=batch_size)
keras.utils.set_random_seed(settings["seed"])
layer = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")  # a network that is quickly built
model = keras.Sequential([keras.Input((None, None, 1)), layer])
pictures = helpers.load_training_pictures(work_dir, settings)
callbacks, first_epoch = helpers.prepare_training(model, work_dir, settings, len(pictures.X))
with open(work_dir / "starts.txt", "a") as file:
    print(first_epoch, file=file)
(work_dir / "processes.txt").write_text(f"{os.getppid()} {os.getpid()}")
callbacks.append(keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: time.sleep(0.5)))
model.fit(helpers.training_batches(pictures, settings, first_epoch), initial_epoch=first_epoch,
          epochs=settings["epochs"], steps_per_epoch=helpers.steps_per_epoch(len(pictures.X), settings),
          validation_data=helpers.ordered_batches(*helpers.load_arrays(work_dir, "valid")),
          callbacks=callbacks, shuffle=False, verbose=0)""",
    ),
    "05_evaluation": (
        "open_test = None; threshold = None",
        """
with open(work_dir / "ends.txt", "a") as file:
    print("end", file=file)
(work_dir / "results").mkdir(exist_ok=True)
helpers.write_json(work_dir / "results" / "metrics.json", {"epochs": len(helpers.read_history(work_dir))})""",
    ),
}


@pytest.fixture()
def course(tmp_path, write_notebook):
    """A copy of the course with short notebooks."""
    folder = shutil.copytree(COURSE_FOLDER / "course", tmp_path / "course" / "course").parent
    for name in ("helpers.py", "requirements.txt"):
        shutil.copy(COURSE_FOLDER / name, folder)
    for name, (parameters, source) in NOTEBOOKS.items():
        sources = [f"work_dir = None; {parameters}".replace("; ", "\n"), SET_UP.strip(), source.strip()]
        write_notebook(folder / "notebooks" / f"{name}.ipynb", *sources)
    return folder


@pytest.fixture()
def start(course, tmp_path):
    """Start a process that has a module of the user's on its PYTHONPATH; all are killed at the end."""
    processes = []
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "users_own.py").touch()

    def start(*arguments, **variables):
        environment = {"PYTHONPATH": str(tmp_path / "users"), "UNET_WORK_DIR": str(tmp_path), **variables}
        options = {"cwd": course, "env": {**os.environ, **environment}, "stderr": subprocess.STDOUT}
        with open(tmp_path / f"process-{len(processes)}.log", "w") as log:
            processes.append(subprocess.Popen([sys.executable, *arguments], stdout=log, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "this took too long"
        time.sleep(0.1)
    return found


def read(path):
    return json.loads(path.read_text()) if path.exists() else {}


def is_running(process):
    """Whether a process exists and is not a zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return done.stdout[:1] not in ("", "Z")


BATCH = """
import json, sys
from course import batch
runs, open_test = batch.plan_runs(
    {"seed": [0, 1, 13], "epochs": [6]}, dataset="sample", profile="smoke", recipe="report", seed=0)
outcomes = batch.run_batch(sys.argv[1], runs, open_test, scheduler=sys.argv[2])
print("OUTCOMES", json.dumps({name: outcome["state"] for name, outcome in outcomes.items()}))
"""


@pytest.mark.slow
def test_a_worker_killed_during_training_loses_nothing_and_no_run_is_completed_twice(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    start("-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")
    command = ("-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard")
    started_workers = [start(*command) for _ in range(2)]
    started = start("-c", BATCH, str(tmp_path / "runs"), address)
    run_dir = tmp_path / "runs" / "recipe-report_seed-0_epochs-6"

    wait_for(lambda: read(run_dir / "model" / "training.json").get("epochs", 0) >= 2)
    worker, kernel = map(int, (run_dir / "processes.txt").read_text().split())
    os.kill(next(process.pid for process in started_workers if process.pid == worker), signal.SIGKILL)
    wait_for(lambda: not is_running(kernel), 10)
    wait_for(lambda: started.poll() is not None, 200)

    log = (tmp_path / "process-3.log").read_text()
    states = json.loads(re.search("OUTCOMES (.*)", log)[1])
    names = [f"recipe-report_seed-{seed}_epochs-6" for seed in (0, 1, 13)]
    assert states == dict(zip(names, ["complete", "complete", "failed"])), log
    progress = r"seed-0_epochs-6: 04_training, epoch \d of 6, \d+ (seconds?|minutes) left, soft Dice 0\.\d+"
    assert re.search(progress, log)
    for name in list(states)[:2]:
        assert (tmp_path / "runs" / name / "ends.txt").read_text() == "end\n"
        assert read(tmp_path / "runs" / name / "results" / "metrics.json") == {"epochs": 6}
    first_epochs = [int(line) for line in (run_dir / "starts.txt").read_text().split()]
    assert len(first_epochs) == 2 and first_epochs[0] == 0 and first_epochs[1] >= 2
    failed = read(tmp_path / "runs" / list(states)[2] / "run.json")
    assert (failed["notebook"], failed["cell"]) == ("01_dataset_upload", 4)
    assert "thirteen is unlucky" in failed["message"]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "runs" / "shared").iterdir()) == ["arrays", "dataset"]

    again = start("-c", BATCH, str(tmp_path / "runs"), address)
    wait_for(lambda: again.poll() is not None)
    states = json.loads(re.search("OUTCOMES (.*)", (tmp_path / "process-4.log").read_text())[1])
    assert list(states.values()) == ["reused", "reused", "failed"]
    assert (run_dir / "ends.txt").read_text() == "end\n"


@pytest.mark.slow
def test_a_run_begun_by_two_batches_goes_on_in_the_later_one(start, course, tmp_path):
    shutil.copy(COURSE_FOLDER / "notebooks" / "00_run_all.ipynb", course / "notebooks")
    folder = tmp_path / "runs" / "sample-smoke"
    run_dir = folder / "recipe-best_seed-0_epochs-200"
    command = {"PROFILE": "smoke", "GRID": '{"epochs": [200]}'}
    first = start("-m", "course.terminal", **command)
    wait_for(lambda: read(run_dir / "model" / "training.json").get("epochs", 0) >= 2)
    later = start("-m", "course.terminal", **command)
    assert first.wait(120) == 1
    message = "1 of 1 runs failed. The first was recipe-best_seed-0_epochs-200: another batch has begun this run"
    assert message in (tmp_path / "process-0.log").read_text()
    wait_for(lambda: len((run_dir / "starts.txt").read_text().split()) == 2)
    first_epoch, later_epoch = map(int, (run_dir / "starts.txt").read_text().split())
    assert first_epoch == 0 and later_epoch >= 2

    # a stopped batch prints one sentence and leaves no process
    wait_for(lambda: read(run_dir / "model" / "training.json")["epochs"] > later_epoch)
    processes = list(map(int, (run_dir / "processes.txt").read_text().split()))
    assert all(map(is_running, processes))
    later.terminate()  # Ctrl-C has the same effect, but a background process of a shell ignores it
    assert later.wait(60) == 1
    printed = (tmp_path / "process-1.log").read_text()
    assert printed.endswith(f"{terminal.STOPPED}\n") and "\x1b" not in printed
    assert "Traceback" not in printed and "Warning" not in printed
    wait_for(lambda: not any(map(is_running, processes)), 10)
    assert not (tmp_path / "runs" / "00_run_all.ipynb").exists()
