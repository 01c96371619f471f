"""The batch: a grid of runs of the notebooks 01 to 05. papermill runs them, dask distributes them, files record them.

A run has a folder of its own, with the executed notebooks, their log (`run.log`), the results, and `run.json`, which
says what went in and what came out. `shared/` beside the runs holds what they have in common: dataset and arrays.
A run belongs to the batch that began it last: its kernel of an earlier batch ends, and that batch counts it as failed.

`run.json` holds the run's `name`, its `parameters`, `open_test`, `inputs` (a hash of these, of the data and of the
code), the `batch` that began it last, or null if that was stopped, the `path` and `fingerprint` of the `shared`
dataset.json, and its `state`: "running" (and which `notebook`), "complete" or "failed" (and in which `notebook` and
`cell`, with which `message`). When it has ended, it also holds the `seconds` that it took and, if complete, `reported`:
a hash of the files that the report reads.
`batch.json` holds the same for all `runs`; there `state` may also be "reused".
"""

import contextlib
import inspect
import itertools
import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from course.folds import left_out_twins
from course.importing import import_dataset
from course.pictures import find_picture
from course.recipes import PROFILES, RECIPES, check_values, new_settings
from course.source_code import shape_fingerprint
from course.sources import fetch_heart
from course.store import read_description
from course.tables import format_table
from course.training import read_history
from course.workers import RETRIES, batch_of, execute_notebook, for_papermill, open_cluster, stop_runs
from course.workspace import COURSE_FOLDER, CourseError, duration, fingerprint, stored_json, writable_folder, write_json
from helpers import prepare_arrays

NOTEBOOKS = ("01_dataset_upload", "02_preprocessing", "03_model", "04_training", "05_evaluation")
OF_THE_IMPORT = set(inspect.signature(import_dataset).parameters)  # these decide which dataset is imported, and how
OF_THE_BATCH = ("batch", "report", "terminal", "workers")  # modules that affect no result
REPORTED = ("results/metrics.json", "results/best_median_worst.png", "model/history.csv", "npy/arrays.json")  # of a run
BEGUN_BY_ANOTHER = "another batch has begun this run, or its run.json was deleted"
CELL_TIMEOUT = 12 * 3600  # seconds; the report's 20 epochs at 256x256 take up to 8 hours on two old cores


def resolve_dataset(dataset: str) -> str:
    """Return `dataset` as the notebooks of a run can find it: a path becomes absolute, a name stays.

    Raises CourseError if it is neither a known name nor a path that exists.
    """
    if dataset in ("sample", "heart"):
        return dataset
    path = Path(os.path.expanduser(dataset)) if isinstance(dataset, (str, os.PathLike)) else None
    if path is None or not str(dataset).strip() or not path.exists():
        raise CourseError(f"There is no dataset at {dataset}: give 'sample', 'heart', or a folder or archive.")
    return str(path.resolve())


def notebook_parameters() -> dict[str, set[str]]:
    """Return the names of the parameters of each notebook, as {notebook: names}."""
    import papermill

    paths = {name: for_papermill(COURSE_FOLDER / "notebooks" / f"{name}.ipynb") for name in NOTEBOOKS}
    return {name: set(papermill.inspect_notebook(path)) for name, path in paths.items()}


def compared_names(grid: dict[str, list]) -> list[str]:
    """Return the names of a grid whose values are compared: all with several values, except seed and fold."""
    return [name for name, values in grid.items() if name not in ("seed", "fold") and len(values) > 1]


def plan_runs(
    grid: dict[str, list], *, dataset: str, profile: str, recipe: str, seed: int, open_test: bool | None = None
) -> tuple[dict[str, dict], bool]:
    """Return (runs, open_test): the parameters of each run of a grid by its name, and whether test is opened.

    grid: dict from a parameter of the notebooks 01 to 05 to the list of its values; {} is a single run. The other
    arguments hold for all runs, unless the grid names them. `open_test=None` opens test if nothing is compared.
    Raises CourseError for a name that no notebook has, for values that cannot work, and if test would be opened while
    the grid is still comparing recipes, or anything else.
    """
    if not isinstance(grid, dict):
        raise CourseError(f"The grid is {grid!r}: give a dict of lists, such as {{'seed': [0, 1]}}, or {{}}.")
    known = set().union(*notebook_parameters().values()) - {"work_dir", "open_test"}  # these are alike for all runs
    for name, values in grid.items():
        if name not in known:
            names = ", ".join(sorted(known))
            raise CourseError(f"The grid names {name!r}, which is not a notebook's parameter. It may name {names}.")
        is_list = isinstance(values, list) and values
        if not is_list or any(values.count(value) > 1 for value in values) or len({*map(str, values)}) < len(values):
            raise CourseError(f"The grid's {name} is {values!r}: give a list of different values, such as [0, 1].")
        if name == "fold" and None in values and len(values) > 1:
            raise CourseError(f"The grid's fold is {values!r}: None, the dataset's own split, must stand alone.")
    check_values({"open_test": open_test})
    if open_test and compared_names(grid):
        raise CourseError(
            f"The grid compares {', '.join(compared_names(grid))}, so test stays closed: "
            "choose on valid, then run only what you chose, with open_test=True."
        )
    runs = {}
    for values in itertools.product(*grid.values()):
        run = {"dataset": dataset, "profile": profile, "recipe": recipe, "seed": seed, **dict(zip(grid, values))}
        run["dataset"] = resolve_dataset(run["dataset"])
        new_settings(run["dataset"], run["profile"], run["recipe"], run["seed"])  # these two refuse what cannot work
        check_values(run)
        if run.get("picture"):
            run["picture"] = str(find_picture(run["picture"]))
        names = ["recipe", "seed", *(name for name in grid if name not in ("recipe", "seed"))]
        runs[_folder_name("_".join(f"{name}-{run[name]}" for name in names))] = run
    return runs, not compared_names(grid) if open_test is None else open_test


def _folder_name(text):
    """Return a text as the name of a folder; if it has to be changed or cut, a hash keeps two texts apart."""
    safe = re.sub(r"[^\w.-]+", "-", text)[:100]
    return safe if safe == text else f"{safe}-{fingerprint(text)}"


def code_fingerprint() -> str:
    """Return a hash of all code that affects a result: modules and notebooks, but not the batch itself.

    Comments, docstrings and outputs do not count.
    """
    import nbformat

    modules = [path for path in sorted((COURSE_FOLDER / "course").glob("*.py")) if path.stem not in OF_THE_BATCH]
    notebooks = [nbformat.read(COURSE_FOLDER / "notebooks" / f"{name}.ipynb", as_version=4) for name in NOTEBOOKS]
    sources = [cell.source for notebook in notebooks for cell in notebook.cells if cell.cell_type == "code"]
    sources += [path.read_text(encoding="utf-8") for path in (COURSE_FOLDER / "helpers.py", *modules)]
    return fingerprint([shape_fingerprint(source) for source in sources])


def share_dataset(folder: Path, dataset: str, options: dict) -> str:
    """Import a dataset, with `options` of `import_dataset`, for all its runs; return the path of its dataset.json.

    The archive of the heart data lies in the work folder itself, where 01 looks for it too: `run_batch` has fetched it.
    """
    home = folder / "shared" / f"dataset-{fingerprint(dataset, options)}"
    if dataset == "heart":
        options = {**options, "heart_source": fetch_heart(folder.parents[1], progress=False)}
    import_dataset(dataset, home, progress=False, **options)
    return str(home / "dataset.json")


def share_arrays(dataset_file: str, fold: int | None, image_size: int, leave_out: bool) -> str:
    """Take one fold of an imported dataset and make its arrays; return the path of the dataset.json beside them."""
    home = Path(dataset_file).parent.parent / f"arrays-{fingerprint(dataset_file, fold, image_size, leave_out)}"
    description = import_dataset(dataset_file, home, fold=fold)
    prepare_arrays(description, home, image_size, left_out_twins(description) if leave_out else [], progress=False)
    return str(home / "dataset.json")


class NotebookFailed(Exception):
    """A notebook stopped: its text says why; `notebook` is its name, `cell` the number of the cell, or None."""

    def __init__(self, message, notebook, cell=None):
        super().__init__(message)
        self.notebook, self.cell = notebook, cell


def run_notebook(name: str, run_dir: Path, batch: str | None = None, **parameters) -> None:
    """Execute the notebook `name` with papermill: the executed copy goes to run_dir/notebooks, the log to run.log.

    Its kernel ends when this process ends, or when the run no longer belongs to `batch`, if that is given.
    Raises NotebookFailed if the notebook stops, and RuntimeError if its kernel does not start.
    """
    import nbclient
    import papermill

    source = COURSE_FOLDER / "notebooks" / f"{name}.ipynb"
    executed = run_dir / "notebooks" / source.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["--IPKernelApp.capture_fd_output=False"]  # what TensorFlow logs as it starts goes to run.log alone
    if batch:
        arguments.append(
            f"--IPKernelApp.exec_lines=import sys; sys.path.insert(0, {str(COURSE_FOLDER)!r}); "
            f"from course import workers; workers.end_with_batch({str(run_dir)!r}, {batch!r})"
        )
    try:
        with open(run_dir / "run.log", "a", encoding="utf-8") as log:
            print(f"--- {name}, {time.strftime('%Y-%m-%d %H:%M:%S')}", file=log, flush=True)
            options = {"cwd": source.parent, "execution_timeout": CELL_TIMEOUT, "stdout_file": log}
            execute_notebook(source, executed, parameters, log, arguments, **options)
    except papermill.PapermillExecutionError as error:
        raise NotebookFailed(f"{error.ename}: {error.evalue}", name, error.exec_count) from None
    except nbclient.exceptions.DeadKernelError:
        raise NotebookFailed("its kernel died, most often because memory ran out", name) from None
    except nbclient.exceptions.CellTimeoutError:
        raise NotebookFailed(f"a cell took longer than {CELL_TIMEOUT // 3600} hours", name) from None


def _failure(message, notebook=None, cell=None):
    """Return what run.json says of a run that failed."""
    return {"state": "failed", "notebook": notebook, "cell": cell, "message": message}


def _reported(run_dir):
    """Return a hash of the files of a run that the report reads."""
    return fingerprint(*(path if path.exists() else None for path in (run_dir / name for name in REPORTED)))


def run_one(folder: Path, name: str, run: dict, dataset_file: str, open_test: bool, batch: str, code: str) -> dict:
    """Run the notebooks for one entry of a grid, unless that is done and nothing has changed; return its run.json.

    Meanwhile run.json says which batch is at work, and on which notebook. code: `code_fingerprint` as the batch began.
    """
    run_dir = folder / name
    description = read_description(Path(dataset_file).parent)
    inputs = fingerprint(run, open_test, [description["fingerprint"], description["geometry"]], code)
    record = {"name": name, "parameters": run, "open_test": open_test, "inputs": inputs, "batch": batch}
    record["shared"] = {"path": dataset_file, "fingerprint": description["fingerprint"]}
    earlier = stored_json(run_dir / "run.json")
    if (earlier.get("inputs"), earlier.get("reported")) == (inputs, _reported(run_dir)):
        return {**earlier, "state": "reused", "shared": record["shared"]}
    given = {key: value for key, value in run.items() if key not in OF_THE_IMPORT}  # which is done
    given |= {"dataset": dataset_file, "seed": run["seed"], "work_dir": str(run_dir), "open_test": open_test}
    started = time.monotonic()
    try:
        for notebook, known in notebook_parameters().items():
            write_json(run_dir / "run.json", {**record, "state": "running", "notebook": notebook})
            run_notebook(notebook, run_dir, batch, **{key: given[key] for key in known & set(given)})
            if code_fingerprint() != code:
                raise NotebookFailed("the code was edited after the batch began, so its runs would differ", notebook)
            if batch_of(run_dir) != batch:
                break
        record.update(state="complete", reported=_reported(run_dir))
    except NotebookFailed as failure:
        record.update(_failure(str(failure), failure.notebook, failure.cell))
    if batch_of(run_dir) != batch:
        return {**record, **_failure(BEGUN_BY_ANOTHER)}
    record.update(seconds=time.monotonic() - started)
    write_json(run_dir / "run.json", record)
    return record


def run_batch(
    folder: Path,
    runs: dict[str, dict],
    open_test: bool,
    seed: int = 0,
    scheduler: str | None = None,
    show: Callable[[str], None] = print,
) -> dict[str, dict]:
    """Run what is not done yet, on all workers at once; return the outcome of each run by its name.

    folder: where the runs and what they share go; every worker must see it under the same path. seed: of the sample,
    of a split, and of the folds; the runs' own seeds affect only the training. show: called with a text that says how
    far the batch is, whenever that changes.
    An outcome is what run.json holds: `state` is "complete", "reused" or "failed", with `notebook`, `cell`, `message`.
    Raises CourseError if the folder holds runs of another dataset, or if all runs failed for the same reason.
    """
    folder, began, code = Path(folder).resolve(), time.monotonic(), code_fingerprint()
    waiting, running, outcomes = list(runs), {}, {}
    batch, shared, shown = uuid.uuid4().hex, [], None
    _check_same_dataset(writable_folder(folder), runs)
    if any(run["dataset"] == "heart" for run in runs.values()):
        show("downloading the heart data, unless they are already here")
        fetch_heart(folder.parents[1])  # once, before several workers look for it
    with open_cluster(runs, scheduler) as client, contextlib.ExitStack() as at_the_end:
        at_the_end.callback(stop_runs, folder, running, batch)
        while waiting or running:
            workers = max(1, len(client.nthreads()))
            while waiting and len(running) < workers:  # a training takes a whole worker
                name = waiting.pop(0)
                dataset, arrays = _share(client, folder, runs[name], seed)
                shared += dataset, arrays  # kept, so that dask makes only once what runs share
                running[name] = client.submit(
                    run_one, folder, name, runs[name], arrays, open_test, batch, code, retries=RETRIES
                )
            lines = [_progress(name, folder / name, batch) for name in running]
            if len(runs) > 1:
                lines += [_time_left(runs, outcomes, workers), f"dashboard: {client.dashboard_link}"]
            if lines != shown:
                show("\n".join(lines))
            shown = lines
            time.sleep(1)
            for name in [name for name, future in running.items() if future.done()]:
                outcomes[name] = _outcome(name, runs[name], running.pop(name))
        outcomes = {name: _as_left(folder / name, outcomes[name]) for name in runs}
        write_json(folder / "batch.json", {"runs": outcomes, "seconds": time.monotonic() - began})
        if len({outcome.get("message") for outcome in outcomes.values()}) == 1:  # one sentence says all
            check_outcomes(outcomes)
        return outcomes


def _check_same_dataset(folder, runs):
    """Refuse a folder with runs of another dataset, unless the names of the runs tell the datasets apart."""
    untold = {run["dataset"] for name, run in runs.items() if "_dataset-" not in name}
    for earlier in folder.glob("*/run.json"):
        other = stored_json(earlier).get("parameters", {}).get("dataset")
        if other and untold - {other} and "_dataset-" not in earlier.parent.name:
            raise CourseError(
                f"{earlier.parent} holds a run of another dataset, {other}: move {folder} away, or rename your dataset."
            )


def _share(client, folder, run, seed):
    """Have the dataset and the arrays of a run made, once for all runs that share them; return dask's two futures."""
    options = {name: run[name] for name in OF_THE_IMPORT & set(run) - {"dataset", "fold"}} | {"seed": seed}
    if run["dataset"] == "sample":
        options["sample"] = PROFILES[run["profile"]]["sample"]
    image_size = run.get("image_size") or PROFILES[run["profile"]]["image_size"]
    dataset = client.submit(share_dataset, folder, run["dataset"], options)
    which = (run.get("fold"), image_size, RECIPES[run["recipe"]]["leave_out_twins"])
    # dask's own key differs from call to call: it holds a future
    key = f"share_arrays-{fingerprint(dataset.key, *which)}"
    return dataset, client.submit(share_arrays, dataset, *which, key=key)


def _outcome(name, run, future):
    """Return the record of a run that has ended, even if dask ended it."""
    from distributed import KilledWorker

    if future.status == "finished":
        return future.result()
    error = future.exception()
    died = "its worker died every time it was started, most often because memory ran out"
    message = died if isinstance(error, KilledWorker) else f"{type(error).__name__}: {error}"
    return {"name": name, "parameters": run, **_failure(message)}


def _as_left(run_dir, outcome):
    """Return an outcome; that of a failure if another batch has since begun the run again with other inputs."""
    is_other = outcome["state"] != "failed" and stored_json(run_dir / "run.json").get("inputs") != outcome["inputs"]
    return {**outcome, **_failure(BEGUN_BY_ANOTHER)} if is_other else outcome


def _progress(name, run_dir, batch):
    """Return a line on a run in progress: its notebook and, in 04, its epoch."""
    record = {}
    with contextlib.suppress(OSError):  # it is just being replaced
        record = stored_json(run_dir / "run.json")
    if record.get("batch") != batch:
        return f"{name}: waiting for its data"
    if record["state"] != "running":
        return f"{name}: {record['state']}"
    return f"{name}: {record['notebook']}{_epochs(run_dir) if record['notebook'] == NOTEBOOKS[3] else ''}"


def _epochs(run_dir):
    """Return the end of that line for a training: its epoch, the time that is left, and the soft Dice on valid."""
    try:
        rows, epochs = read_history(run_dir), stored_json(run_dir / "settings.json")["epochs"]
        training = stored_json(run_dir / "model" / "training.json")
        left = training["seconds"] / training["epochs"] * (epochs - len(rows))
        dice = rows[-1]["val_dice_coef"]
    except (OSError, LookupError, ValueError, ZeroDivisionError):
        return ", before its first epoch"  # or these files are just being written
    return f", epoch {len(rows)} of {epochs}, {duration(left)} left, soft Dice {dice:.3f}"


def _time_left(runs, outcomes, workers):
    """Return a line on how many runs are done, and about how long the others will take."""
    failed = sum(outcome["state"] == "failed" for outcome in outcomes.values())
    line = f"{len(outcomes)} of {len(runs)} runs are done" + (f", {failed} of them failed" if failed else "")
    worked = [outcome["seconds"] for outcome in outcomes.values() if outcome["state"] == "complete"]
    if worked and len(outcomes) < len(runs):
        left = (len(runs) - len(outcomes)) * sum(worked) / len(worked) / workers
        line += f", about {duration(left)} left"
    return line


def show_progress(text: str) -> None:
    """Show how far the batch is, in place of what was shown before; the "\\r" marks this for a terminal."""
    from IPython.display import clear_output

    clear_output(wait=True)
    print(f"\r{text}", flush=True)


def dataset_notes(outcomes: dict[str, dict]) -> list[str]:
    """Return what the import has noted about the datasets of the runs: a list of sentences, each once."""
    files = dict.fromkeys(Path(outcome["shared"]["path"]) for outcome in outcomes.values() if "shared" in outcome)
    return list(dict.fromkeys(note for file in files for note in read_description(file.parent)["notes"]))


def outcome_table(outcomes: dict[str, dict]) -> str:
    """Return a plain-text table of what ran, what was reused and what failed, where and why."""
    rows, headers = [], ["run", "outcome", "time", "what went wrong: notebook, cell, message"]
    for name, outcome in outcomes.items():
        wrong = [str(outcome[key]) for key in ("notebook", "cell", "message") if outcome.get(key) is not None]
        rows.append([name, outcome["state"], f"{outcome.get('seconds', 0):.0f} s", " ".join(wrong)])
    if not any(row[3] for row in rows):
        rows, headers = [row[:3] for row in rows], headers[:3]
    return format_table(rows, headers)


def check_outcomes(outcomes: dict[str, dict]) -> None:
    """Raise CourseError if a run failed, naming the first."""
    failed = [outcome for outcome in outcomes.values() if outcome["state"] == "failed"]
    if failed:
        first = failed[0]
        where = f"{first['name']}, in {first['notebook']}" if first["notebook"] else first["name"]
        raise CourseError(
            f"{len(failed)} of {len(outcomes)} runs failed. The first was {where}: {first['message'].removesuffix('.')}"
            ". Remove the cause and start the batch again: completed runs are not repeated."
        )
