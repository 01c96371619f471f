"""The batch: a grid of runs of the notebooks 01 to 05. papermill runs them, dask distributes them, files record them.

A run has a folder of its own, with the executed notebooks, their log (`run.log`), the results, and `run.json`, which
says what went in and what came of it. `shared/` beside the runs holds what they have in common: dataset and arrays.
"""

import contextlib
import inspect
import itertools
import json
import os
import re
import socket
import threading
import time
import uuid
from pathlib import Path

from course.figures import format_table
from course.folds import left_out_twins
from course.importing import import_dataset
from course.machine import gpu_found
from course.recipes import PROFILES, RECIPES, check_values, new_settings
from course.sources import fetch_heart
from course.training import read_history
from course.workspace import COURSE_FOLDER, CourseError, fingerprint, read_json, write_json
from helpers import prepare_arrays

NOTEBOOKS = ("01_dataset_upload", "02_preprocessing", "03_model", "04_training", "05_evaluation")
SET_BY_THE_BATCH = {"work_dir", "open_test"}  # the same for all runs, so a grid does not name them
CELL_TIMEOUT = 12 * 3600  # seconds; the report's 20 epochs at 256x256 take 5 to 8 hours on two cores
RETRIES = 2  # how often a run is started again after its worker died

# Jupyter picks a kernel's ports before it binds them: where many start at once, one may find its port taken
KERNEL_STARTS = 3
WATCH_INTERVAL = 0.5  # seconds between two looks of a kernel at its owner
MEMORY_PER_RUN = 4 * 2**30  # of a worker of the local cluster, which trains one network at a time


def resolve_dataset(dataset):
    """Return `dataset` as the notebooks of a run can find it: a path becomes absolute, a name stays.

    Raises CourseError if it is neither a known name nor a path that exists.
    """
    if dataset in ("sample", "heart"):
        return dataset
    path = Path(dataset).expanduser()
    if not str(dataset).strip() or not path.exists():
        raise CourseError(f"There is no dataset at {dataset}: give 'sample', 'heart', or a folder or archive.")
    return str(path.resolve())


def notebook_parameters():
    """Return the names of the parameters of each notebook, as a dict from notebook to set."""
    import papermill

    return {name: set(papermill.inspect_notebook(COURSE_FOLDER / "notebooks" / f"{name}.ipynb")) for name in NOTEBOOKS}


def compared_names(grid):
    """Return the names of a grid that tell apart what is compared: all with several values but seed and fold."""
    return [name for name, values in grid.items() if name not in ("seed", "fold") and len(values) > 1]


def plan_runs(grid, *, dataset, profile, recipe, seed, open_test=None):
    """Return (runs, open_test): the parameters of each run of a grid by its name, and whether test is opened.

    grid: dict from a parameter of the notebooks 01 to 05 to the list of its values; {} is a single run. The other
    arguments hold for all runs, where the grid does not name them. `open_test=None` opens test if nothing is compared.
    Raises CourseError for a name that no notebook has, for values that cannot work, and for a test that would be
    opened while recipes, or whatever else the grid names, are still being compared.
    """
    known = set().union(*notebook_parameters().values()) - SET_BY_THE_BATCH
    for name, values in grid.items():
        if name not in known:
            names = ", ".join(sorted(known))
            raise CourseError(f"The grid names {name!r}, which no notebook takes: it may name {names}.")
        if not isinstance(values, list) or not values or any(values.count(value) > 1 for value in values):
            raise CourseError(f"The grid's {name} is {values!r}: give a list, no value twice, such as [0, 1].")
    if open_test and compared_names(grid):
        raise CourseError(
            f"The grid compares {', '.join(compared_names(grid))}, so test stays closed: "
            "choose on valid, then run the choice alone with open_test=True."
        )
    runs = {}
    for values in itertools.product(*grid.values()):
        run = {"dataset": dataset, "profile": profile, "recipe": recipe, "seed": seed, **dict(zip(grid, values))}
        run["dataset"] = resolve_dataset(run["dataset"])
        new_settings(run["dataset"], run["profile"], run["recipe"], run["seed"])  # these two refuse what cannot work
        check_values(run)
        names = ["recipe", "seed", *(name for name in grid if name not in ("recipe", "seed"))]
        runs[_folder_name("_".join(f"{name}-{run[name]}" for name in names))] = run
    return runs, not compared_names(grid) if open_test is None else open_test


def _folder_name(text):
    safe = re.sub(r"[^\w.-]+", "-", text)[:100]
    return safe if safe == text else f"{safe}-{fingerprint(text)}"


def code_fingerprint():
    """Return a hash of all code that makes a result: modules and notebooks, not their outputs, not the batch itself."""
    import nbformat

    without = ("batch.py", "report.py")
    modules = [
        COURSE_FOLDER / "helpers.py",
        *sorted(path for path in (COURSE_FOLDER / "course").glob("*.py") if path.name not in without),
    ]
    notebooks = [nbformat.read(COURSE_FOLDER / "notebooks" / f"{name}.ipynb", as_version=4) for name in NOTEBOOKS]
    sources = [cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "code"]
    return fingerprint(sources, *modules)


def share_dataset(folder, dataset, options):
    """Import a dataset, with `options` of `import_dataset`, for all its runs; return the path of its dataset.json.

    The archive of the heart data lies in the work folder itself, where 01 looks for it too: `run_batch` has fetched it.
    """
    home = Path(folder) / "shared" / f"dataset-{fingerprint(dataset, options)}"
    if dataset == "heart":
        options = {**options, "heart_source": fetch_heart(Path(folder).parents[1], progress=False)}
    import_dataset(dataset, home, progress=False, **options)
    return str(home / "dataset.json")


def share_arrays(dataset_file, fold, image_size, leave_out):
    """Take one fold of an imported dataset and make its arrays; return the path of the dataset.json beside them."""
    home = Path(dataset_file).parent.parent / f"arrays-{fingerprint(dataset_file, fold, image_size, leave_out)}"
    description = import_dataset(dataset_file, home, fold=fold)
    prepare_arrays(description, home, image_size, left_out_twins(description) if leave_out else [], progress=False)
    return str(home / "dataset.json")


class NotebookFailed(CourseError):
    """A notebook stopped: `notebook`, `cell` (its number, or None) and `message` say where and why."""

    def __init__(self, notebook, cell, message):
        super().__init__(f"{notebook} stopped{f' in cell {cell}' if cell else ''}: {message}")
        self.notebook, self.cell, self.message = notebook, cell, message


@contextlib.contextmanager
def stderr_to(file):
    """Let this process, and those that it starts meanwhile, write into an open file what they send to stderr."""
    kept = os.dup(2)
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def run_notebook(name, run_dir, owner="", **parameters):
    """Execute the notebook `name` with papermill: the executed copy goes to run_dir/notebooks, the log to run.log.

    With an `owner` the kernel ends when run_dir/owner.json no longer names it, or when this process ends. A kernel that
    does not answer at its start is started again, KERNEL_STARTS times in all.
    Raises CourseError for a parameter that the notebook does not have, NotebookFailed if it stops.
    """
    import nbclient
    import papermill

    source = COURSE_FOLDER / "notebooks" / f"{name}.ipynb"
    executed = Path(run_dir) / "notebooks" / source.name
    unknown = set(parameters) - set(papermill.inspect_notebook(source))
    if unknown:
        raise CourseError(f"{source.name} has no parameter {', '.join(sorted(unknown))}: see its parameters cell.")
    executed.parent.mkdir(parents=True, exist_ok=True)
    first_line = (
        f"import sys; sys.path.insert(0, {str(COURSE_FOLDER)!r}); from course import batch; "
        f"batch.end_with_owner({str(run_dir)!r}, {owner!r}, {os.getpid()})"
    )
    arguments = [
        "--IPKernelApp.log_level=ERROR",  # else kernels warn of their unencrypted connection to this machine
        "--IPKernelApp.capture_fd_output=False",
    ]  # what TensorFlow logs as it starts goes to run.log alone
    if owner:
        arguments.append(f"--IPKernelApp.exec_lines={first_line}")
    for _ in range(KERNEL_STARTS):
        try:
            with open(Path(run_dir) / "run.log", "a", encoding="utf-8") as log, stderr_to(log):
                print(f"--- {name}, {time.strftime('%Y-%m-%d %H:%M:%S')}", file=log, flush=True)
                papermill.execute_notebook(
                    source,
                    executed,
                    parameters,
                    kernel_name="python3",
                    cwd=source.parent,
                    progress_bar=False,
                    execution_timeout=CELL_TIMEOUT,
                    stdout_file=log,
                    stderr_file=log,
                    extra_arguments=arguments,
                )
            return
        except papermill.PapermillExecutionError as error:
            raise NotebookFailed(name, error.exec_count, f"{error.ename}: {error.evalue}") from None
        except nbclient.exceptions.DeadKernelError:
            raise NotebookFailed(name, None, "its kernel died, most often for lack of memory") from None
        except nbclient.exceptions.CellTimeoutError:
            raise NotebookFailed(name, None, f"a cell took longer than {CELL_TIMEOUT // 3600} hours") from None
        except RuntimeError as error:  # Jupyter's word for a kernel that did not answer: none of the notebook has run
            reason = str(error)
    raise NotebookFailed(name, None, f"its kernel did not start: {reason}")


def _owner(run_dir):
    try:
        return json.loads((Path(run_dir) / "owner.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def end_with_owner(run_dir, owner, parent):
    """End this kernel at once when its run has another owner, or when its parent process is gone.

    On Windows only the owner counts: there a launcher stands between the two processes, and its going is not told.
    """

    def watch():
        while os.name == "nt" or os.getppid() == parent:
            with contextlib.suppress(OSError):  # it cannot be read while it is being replaced: look again
                if _owner(run_dir).get("owner") != owner:
                    break
            time.sleep(WATCH_INTERVAL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def take_over(run_dir, batch):
    """Make this process the owner of a run; return (owner, which start of the run in this batch it is).

    Where another process owned the run, its kernel gets the time to notice before anything is written.
    """
    former = _owner(run_dir)
    start = former["start"] + 1 if former.get("batch") == batch else 1
    owner = uuid.uuid4().hex
    write_json(
        run_dir / "owner.json",
        {
            "owner": owner,
            "host": socket.gethostname(),
            "process": os.getpid(),
            "batch": batch,
            "start": start,
            "since": time.time(),
        },
    )
    if former:
        time.sleep(10 * WATCH_INTERVAL)
    return owner, start


def _failure(message, notebook=None, cell=None):
    return {"state": "failed", "notebook": notebook, "cell": cell, "message": message}


def run_one(folder, name, run, dataset_file, open_test, batch):
    """Run the notebooks for one entry of a grid, unless that is done and nothing has changed; return its run.json."""
    run_dir = Path(folder) / name
    run_dir.mkdir(parents=True, exist_ok=True)
    description = read_json(dataset_file, "01_dataset_upload")
    inputs = fingerprint(run, open_test, description["fingerprint"], code_fingerprint())
    shared = {"path": dataset_file, "fingerprint": description["fingerprint"]}
    record = {"name": name, "parameters": run, "open_test": open_test, "shared": shared, "inputs": inputs}
    if (run_dir / "run.json").exists() and (run_dir / "results" / "metrics.json").exists():
        earlier = read_json(run_dir / "run.json", "00_run_all")
        if earlier["inputs"] == inputs and earlier["state"] == "complete":
            return {**earlier, "state": "reused"}
    owner, start = take_over(run_dir, batch)
    (run_dir / "run.json").unlink(missing_ok=True)
    started = time.time()
    given = {
        **{name: value for name, value in run.items() if name not in inspect.signature(import_dataset).parameters},
        "dataset": dataset_file,
        "seed": run["seed"],
        "work_dir": str(run_dir),
        "open_test": open_test,
    }
    try:
        if start > 1 + RETRIES:
            raise NotebookFailed("01 to 05", None, f"its worker died {start - 1} times")
        for notebook, known in notebook_parameters().items():
            run_notebook(notebook, run_dir, owner, **{name: given[name] for name in known & set(given)})
        record.update(state="complete")
    except NotebookFailed as failure:
        record.update(_failure(failure.message, failure.notebook, failure.cell))
    if _owner(run_dir).get("owner") != owner:
        return {**record, **_failure("another batch was started for this run, and goes on with it")}
    record.update(starts=start, host=socket.gethostname(), seconds=time.time() - started)
    write_json(run_dir / "run.json", record)
    with contextlib.suppress(PermissionError):  # Windows removes no file that another process is reading
        (run_dir / "owner.json").unlink()
    return record


@contextlib.contextmanager
def open_cluster(count, scheduler=None):
    """Give a dask client: of the scheduler at that address, or of a local cluster.

    A local cluster is sized to this machine and to `count` runs. Its workers have one core, or more where there are
    fewer runs than cores or too little memory for so many workers: two trainings on a core each get further in the
    same time than one after the other on both. Where there is a GPU there is one worker: a training takes all GPUs
    that can share its batches.

    Raises CourseError if no scheduler answers.
    """
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    with contextlib.ExitStack() as stack:
        if scheduler is None:
            workers = 1 if gpu_found() else max(1, min(count, CPU_COUNT, MEMORY_LIMIT // MEMORY_PER_RUN))
            threads = str(max(1, CPU_COUNT // workers))
            # the profiler looks at a worker 100 times a second, at the cost of some 5 % of a core
            stack.enter_context(dask.config.set({"distributed.worker.profile.enabled": False}))
            scheduler = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    memory_limit=0,
                    env={
                        "TF_NUM_INTRAOP_THREADS": threads,
                        "TF_CPP_MIN_LOG_LEVEL": "3",
                        "PYTHONPATH": str(COURSE_FOLDER),
                    },
                )
            )
        try:
            client = stack.enter_context(Client(scheduler, timeout=30))
        except (OSError, TimeoutError, ValueError):  # the last for an address without a port
            raise CourseError(
                f"No dask scheduler answers at {scheduler}: start one and give its address, such as "
                "tcp://192.168.0.5:8786, or leave scheduler=None to use this machine."
            ) from None
        yield client


def run_batch(folder, runs, open_test, seed=0, scheduler=None, show=print):
    """Run what is not done yet, on all workers at once; return the outcome of each run by its name.

    folder: where the runs and what they share go; every worker must see it under the same path. seed: of the sample,
    of a split, and of the folds; the runs' own seeds change the training alone. show: is given the lines that tell
    how far the batch is, whenever they change.
    An outcome is what run.json holds: `state` is "complete", "reused" or "failed", with `notebook`, `cell`, `message`.
    """
    folder, batch, began = Path(folder).resolve(), uuid.uuid4().hex, time.time()
    outcomes, running, shared, waiting, shown = {}, {}, [], list(runs), None
    folder.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        earlier = folder / name / "run.json"
        if earlier.exists() and (other := read_json(earlier, "00_run_all")["parameters"]["dataset"]) != run["dataset"]:
            raise CourseError(
                f"{folder / name} holds a run of another dataset, {other}: move {folder} away, or rename your dataset."
            )
    if any(run["dataset"] == "heart" for run in runs.values()):
        fetch_heart(folder.parents[1])  # once, before several workers look for it
    with open_cluster(len(runs), scheduler) as client:
        while waiting or running:
            while waiting and len(running) < max(1, len(client.nthreads())):  # a training takes a whole worker
                name = waiting.pop(0)
                arrays = _share(client, folder, runs[name], seed)
                running[name] = client.submit(run_one, folder, name, runs[name], arrays[-1], open_test, batch)
                shared += arrays  # kept, so that dask makes once what runs share
            lines = [*(_progress(name, folder / name, batch) for name in running), _time_left(runs, outcomes, client)]
            if lines != shown:
                show("\n".join([f"Dashboard: {client.dashboard_link}", *lines]))
            shown = lines
            time.sleep(1)
            for name in [name for name, future in running.items() if future.done()]:
                outcomes[name] = _outcome(name, runs[name], running.pop(name))
        show(_time_left(runs, outcomes, client))
    outcomes = {name: outcomes[name] for name in runs}
    write_json(folder / "batch.json", {"runs": outcomes, "seconds": time.time() - began})
    return outcomes


def _share(client, folder, run, seed):
    names = set(inspect.signature(import_dataset).parameters) & set(run) - {"dataset", "seed", "fold"}
    options = {"seed": seed, **{name: run[name] for name in sorted(names)}}
    if run["dataset"] == "sample":
        options["sample"] = PROFILES[run["profile"]]["sample"]
    image_size = run.get("image_size") or PROFILES[run["profile"]]["image_size"]
    dataset = client.submit(share_dataset, folder, run["dataset"], options)
    which = (run.get("fold"), image_size, RECIPES[run["recipe"]]["leave_out_twins"])
    # dask's own key differs from call to call: it holds a future
    key = f"share_arrays-{fingerprint(dataset.key, *which)}"
    return [dataset, client.submit(share_arrays, dataset, *which, key=key)]


def _outcome(name, run, future):
    if future.status == "finished":
        return future.result()
    message = f"{type(future.exception()).__name__}: {future.exception()}"
    return {"name": name, "parameters": run, **_failure(message)}


def _progress(name, run_dir, batch):
    try:
        owner = _owner(run_dir)
    except OSError:  # it is being replaced
        owner = {}
    if owner.get("batch") != batch:
        return f"{name}: waiting for a worker or for its data"
    begun = [
        notebook
        for notebook in NOTEBOOKS
        if (path := run_dir / "notebooks" / f"{notebook}.ipynb").exists() and path.stat().st_mtime >= owner["since"]
    ]
    line = f"{name}: {begun[-1] if begun else 'starting'}"
    return line + _epochs(run_dir) if begun[-1:] == ["04_training"] else line


def _epochs(run_dir):
    try:
        rows, epochs = read_history(run_dir), read_json(run_dir / "settings.json", NOTEBOOKS[0])["epochs"]
        training = read_json(run_dir / "model" / "training.json", NOTEBOOKS[3])
        left = training["seconds"] / training["epochs"] * (epochs - len(rows))
        dice = rows[-1]["val_dice_coef"]
    except (OSError, LookupError, ValueError, TypeError, ZeroDivisionError):
        return ", before its first epoch"  # or these files are just being written
    return f", epoch {len(rows)} of {epochs}, soft Dice on valid {dice:.3f}, {_duration(left)} of training left"


def _time_left(runs, outcomes, client):
    failed = sum(outcome["state"] == "failed" for outcome in outcomes.values())
    line = f"{len(outcomes)} of {len(runs)} runs are done" + (f", {failed} of them failed" if failed else "")
    worked = [outcome["seconds"] for outcome in outcomes.values() if outcome["state"] == "complete"]
    if worked and len(outcomes) < len(runs):
        left = (len(runs) - len(outcomes)) * sum(worked) / len(worked) / max(1, len(client.nthreads()))
        line += f", about {_duration(left)} left"
    return line


def _duration(seconds):
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def show_progress(text):
    """Show how far the batch is in place of what was shown before; in a log it is added."""
    from IPython.display import clear_output

    clear_output(wait=True)
    print(text, flush=True)


def dataset_notes(outcomes):
    """Return what the import has noted about the datasets of the runs: a list of sentences, each once."""
    files = dict.fromkeys(outcome["shared"]["path"] for outcome in outcomes.values() if "shared" in outcome)
    return list(dict.fromkeys(note for file in files for note in read_json(file, NOTEBOOKS[0])["notes"]))


def outcome_table(outcomes):
    """Return a plain-text table of what ran, what was reused and what failed, where and why."""
    rows = [
        [
            name,
            outcome["state"],
            f"{outcome.get('seconds', 0):.0f} s",
            outcome.get("starts", "-"),
            " ".join(str(outcome[key]) for key in ("notebook", "cell", "message") if outcome.get(key) is not None),
        ]
        for name, outcome in outcomes.items()
    ]
    return format_table(rows, ["run", "outcome", "time", "starts", "what went wrong: notebook, cell, message"])


def check_outcomes(outcomes):
    """Raise CourseError if a run failed, naming the first."""
    failed = [outcome for outcome in outcomes.values() if outcome["state"] == "failed"]
    if failed:
        first = failed[0]
        reason = f"{first['notebook']}: {first['message']}" if first["notebook"] else first["message"]
        raise CourseError(
            f"{len(failed)} of {len(outcomes)} runs failed, the first is {first['name']} ({reason}). "
            "When that is mended, start the batch again: what is complete is not run again."
        )
