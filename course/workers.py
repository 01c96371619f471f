"""The workers that carry out the runs: dask's, on this machine or behind a scheduler elsewhere."""

import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from course.batches import ANSWERED_AT_ONCE, MOST_HELD
from course.machine import gpu_numbers
from course.recipes import crop_side, new_settings
from course.workspace import CourseError, stored_json, write_json

RETRIES = 2  # how often a run is started again after its worker died, or its kernel did not start
MEMORY_OF_A_PROCESS = 2**30  # bytes: Python, TensorFlow, Jupyter, the weights, and what evaluation holds
MEMORY_OF_PICTURES = 2 * MOST_HELD  # bytes of pictures and masks that are held during training
MEMORY_OF_A_PIXEL = {"trained": 2600, "answered": 800}  # bytes for a pixel of a batch, all layers together, float32


def memory_needed(run: dict) -> int:
    """Return the most memory that a run takes on a CPU, in bytes; docs/BATCH.md has what was measured.

    It grows with the pixels of a batch, in training or in prediction. The sample's pictures are few; how many another
    dataset has is not known before its import.
    """
    chosen = {name: value for name, value in run.items() if value is not None}
    settings = {**new_settings(run["dataset"], run["profile"], run["recipe"], run["seed"]), **chosen}
    size = settings["image_size"]
    trained = settings["batch_size"] * crop_side(settings, size) ** 2 * MEMORY_OF_A_PIXEL["trained"]
    answered = ANSWERED_AT_ONCE * size**2 * MEMORY_OF_A_PIXEL["answered"]
    pictures = 0 if run["dataset"] == "sample" else MEMORY_OF_PICTURES
    return int(MEMORY_OF_A_PROCESS + pictures + max(trained, answered))


def plan_workers(runs: dict[str, dict]) -> list[dict[str, str]]:
    """Return the environment variables of each worker that this machine should have for these runs, a list of dicts.

    With GPUs there is one worker for each GPU that CUDA_VISIBLE_DEVICES allows, and it sees only that one. Without,
    there are as many as cores, runs and memory allow, and they share the cores: two trainings at once, on one core
    each, finish sooner than one after the other on both.
    """
    from dask.system import CPU_COUNT
    from distributed.system import MEMORY_LIMIT

    of_each = [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpu_numbers()[: len(runs)]]
    if not of_each:
        fitting = MEMORY_LIMIT // max(map(memory_needed, runs.values()))
        of_each = [{}] * max(1, min(len(runs), CPU_COUNT, fitting))
    threads = str(max(1, CPU_COUNT // len(of_each)))
    return [{"TF_NUM_INTRAOP_THREADS": threads, "TF_CPP_MIN_LOG_LEVEL": "3", **variables} for variables in of_each]


@contextlib.contextmanager
def open_cluster(runs: dict[str, dict], scheduler: str | None = None) -> Iterator:
    """Give a dask client of the scheduler at that address, or of a cluster on this machine, planned for these runs.

    Raises CourseError if no scheduler answers.
    """
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    with contextlib.ExitStack() as stack:
        if scheduler is None:
            here = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
            worker = {"host": "127.0.0.1", "nthreads": 1, "memory_limit": 0, "silence_logs": logging.WARNING}
            # the profiler samples a worker 100 times a second, at the cost of some 5 % of a core
            stack.enter_context(dask.config.set({"distributed.worker.profile.enabled": False}))
            scheduler = stack.enter_context(
                SpecCluster(
                    {
                        number: {"cls": Nanny, "options": {**worker, "env": variables}}
                        for number, variables in enumerate(plan_workers(runs))
                    },
                    {"cls": Scheduler, "options": {**here, "port": 0, "allowed_failures": RETRIES}},
                    silence_logs=logging.WARNING,
                )
            )
        try:
            client = stack.enter_context(Client(scheduler, timeout=30))
        except (OSError, TimeoutError, ValueError):  # the last for an address without a port
            raise CourseError(
                f"No dask scheduler answers at {scheduler}. Start one and give its address, such as "
                "tcp://192.168.0.5:8786, or leave scheduler=None to use this machine."
            ) from None
        yield client


def for_papermill(path: Path) -> Path:
    """Return a path with its braces escaped: papermill takes what is in braces for the name of a parameter."""
    return Path(str(path).replace("{", "{{").replace("}", "}}"))


def batch_of(run_dir: Path | str) -> str | None:
    """Return the batch to which a run belongs, as its run.json says; None if it was stopped, or without this file."""
    try:
        return json.loads(Path(run_dir, "run.json").read_text(encoding="utf-8"))["batch"]
    except FileNotFoundError:
        return None


def stop_runs(folder: Path, names: Iterable[str], batch: str) -> None:
    """Take these runs away from `batch`, if they still belong to it: so their kernels end, wherever they are."""
    for path in [folder / name / "run.json" for name in names]:
        record = stored_json(path)
        if record.get("batch") == batch:
            write_json(path, {**record, "batch": None})


def end_with_batch(run_dir: Path | str, batch: str) -> None:
    """End this kernel when its run no longer belongs to `batch`. Jupyter's kernel itself notices if its parent is gone.

    This needs no lock and compares no clocks, so it works on the disk of another machine and on Google Drive.
    """

    def watch():
        """Look at run.json twice a second until it names another batch or none, then end the process."""
        now = batch
        while now == batch:
            time.sleep(0.5)
            with contextlib.suppress(OSError, ValueError):  # a shared disk may not answer for a moment: look again
                now = batch_of(run_dir)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def stderr_to(file: IO) -> Iterator[None]:
    """Redirect the stderr of this process, and of those that it starts meanwhile, to an open file."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def execute_notebook(
    source: Path, executed: Path, parameters: dict, log: IO, arguments: Sequence[str] = (), **options
) -> None:
    """Execute the notebook `source` with papermill, and write it with its outputs to `executed`.

    log: an open file for what the notebook, its kernel and this process send to stderr. arguments: further ones for
    the kernel. options: further ones for papermill.
    Raises what papermill and nbclient raise.
    """
    import papermill

    with stderr_to(log):
        papermill.execute_notebook(
            for_papermill(source),
            for_papermill(executed),
            parameters,
            kernel_name="python3",
            progress_bar=False,
            stderr_file=log,
            extra_arguments=["--IPKernelApp.log_level=ERROR", *arguments],  # no warning of its unencrypted connection
            **options,
        )
