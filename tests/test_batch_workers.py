"""Workers of a cluster on loopback: one is killed in the middle of a training, and nothing is lost or made twice.

The course is a copy whose notebooks are short, but train, save and resume with the very functions of helpers.py.
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

import nbformat
import pytest

from course.workspace import COURSE_FOLDER

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
import keras, time
settings = helpers.load_settings(work_dir, epochs=epochs, batch_size=batch_size)
keras.utils.set_random_seed(settings["seed"])
layer = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")  # a network that is quickly built
model = keras.Sequential([keras.Input((None, None, 1)), layer])
pictures = helpers.load_training_pictures(work_dir, settings)
callbacks, first_epoch = helpers.prepare_training(model, work_dir, settings, len(pictures.X))
with open(work_dir / "starts.txt", "a") as file:
    print(first_epoch, file=file)
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
def course(tmp_path):
    """A copy of the course with short notebooks."""
    folder = tmp_path / "course"
    (folder / "notebooks").mkdir(parents=True)
    shutil.copytree(COURSE_FOLDER / "course", folder / "course")
    for path in [COURSE_FOLDER / "helpers.py", COURSE_FOLDER / "requirements.txt"]:
        shutil.copy(path, folder)
    for name, (parameters, source) in NOTEBOOKS.items():
        sources = [f"work_dir = None; {parameters}".replace("; ", "\n"), SET_UP.strip(), source.strip()]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in sources])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / "notebooks" / f"{name}.ipynb")
    return folder


@pytest.fixture()
def start(course, tmp_path):
    """Start a process of the course's own; all are killed at the end."""
    processes = []

    def start(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(course), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "9"}
        with open(tmp_path / f"process-{len(processes)}.log", "w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *arguments], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            )
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
    """Whether a process is there and no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return done.stdout[:1] not in ("", "Z")


def children(process):
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    return [int(number) for number in done.stdout.split()]


BATCH = """
import json, sys
from course import batch
runs, open_test = batch.plan_runs(
    {"seed": [0, 1, 13], "epochs": [6]}, dataset="sample", profile="smoke", recipe="report", seed=0)
outcomes = batch.run_batch("runs", runs, open_test, scheduler=sys.argv[1])
print("OUTCOMES", json.dumps({name: outcome["state"] for name, outcome in outcomes.items()}))
"""


def test_a_worker_killed_in_a_training_loses_nothing_and_nothing_is_run_twice_to_the_end(start, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    start("-m", "distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")
    worker = ("-m", "distributed.cli.dask_worker", address, "--no-nanny", "--nthreads", "1", "--no-dashboard")
    workers = [start(*worker) for _ in range(2)]
    started = start("-c", BATCH, address)
    run_dir = tmp_path / "runs" / "recipe-report_seed-0_epochs-6"

    wait_for(lambda: read(run_dir / "model" / "training.json").get("epochs", 0) >= 2)
    owner = read(run_dir / "owner.json")
    victim = next(worker for worker in workers if worker.pid == owner["process"])
    [kernel] = children(victim.pid)
    os.kill(victim.pid, signal.SIGKILL)
    wait_for(lambda: not is_running(kernel), 10)
    wait_for(lambda: started.poll() is not None, 200)

    log = (tmp_path / "process-3.log").read_text()
    states = json.loads(re.search("OUTCOMES (.*)", log)[1])
    assert states == {
        "recipe-report_seed-0_epochs-6": "complete",
        "recipe-report_seed-1_epochs-6": "complete",
        "recipe-report_seed-13_epochs-6": "failed",
    }, log
    progress = r"seed-0_epochs-6: 04_training, epoch \d of 6, soft Dice on valid 0\.\d+, \d+ s of training left"
    assert re.search(progress, log)
    for name in list(states)[:2]:
        assert (tmp_path / "runs" / name / "ends.txt").read_text() == "end\n"
        assert read(tmp_path / "runs" / name / "results" / "metrics.json") == {"epochs": 6}
        assert not (tmp_path / "runs" / name / "owner.json").exists()
    first_epochs = [int(line) for line in (run_dir / "starts.txt").read_text().split()]
    assert len(first_epochs) == 2 and first_epochs[0] == 0 and first_epochs[1] >= 2
    assert read(run_dir / "run.json")["starts"] == 2
    failed = read(tmp_path / "runs" / list(states)[2] / "run.json")
    assert (failed["notebook"], failed["cell"]) == ("01_dataset_upload", 4)
    assert "thirteen is unlucky" in failed["message"]
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "runs" / "shared").iterdir()) == ["arrays", "dataset"]

    again = start("-c", BATCH, address)
    wait_for(lambda: again.poll() is not None)
    states = json.loads(re.search("OUTCOMES (.*)", (tmp_path / "process-4.log").read_text())[1])
    assert list(states.values()) == ["reused", "reused", "failed"]
    assert (run_dir / "ends.txt").read_text() == "end\n"
