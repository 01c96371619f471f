"""Run the notebooks one after the other with papermill."""

import time
from pathlib import Path

from helpers import CourseError, format_table
from settings import COURSE_FOLDER

CELL_TIMEOUT = 12 * 3600  # seconds; the report's 20 epochs at 256x256 take 5 to 8 hours on two cores


def resolve_dataset(dataset):
    """Return `dataset` as the notebooks of a run can find it: a path becomes absolute, a name stays.

    Raises CourseError if it is neither a known name nor a path that exists.
    """
    if dataset in ("sample", "heart"):
        return dataset
    path = Path(dataset).expanduser()
    if not path.exists():
        raise CourseError(f"There is no dataset at {dataset}: give 'sample', 'heart', or the path of a folder or an archive.")
    return str(path.resolve())


def run_notebook(name, run_dir, **parameters):
    """Execute the notebook `name` with papermill; the executed copy goes to run_dir/notebooks.

    Raises CourseError if the notebook has no parameter of a name that is given, or if a cell fails.
    """
    import papermill

    source = COURSE_FOLDER / "notebooks" / f"{name}.ipynb"
    executed = Path(run_dir) / "notebooks" / source.name
    executed.parent.mkdir(parents=True, exist_ok=True)
    unknown = set(parameters) - set(papermill.inspect_notebook(source))
    if unknown:
        raise CourseError(f"{source.name} has no parameter {', '.join(sorted(unknown))}: see its parameters cell.")
    started = time.perf_counter()
    try:
        papermill.execute_notebook(
            source, executed, parameters, kernel_name="python3", cwd=source.parent, execution_timeout=CELL_TIMEOUT,
            progress_bar={"desc": name, "mininterval": 10, "ncols": 80})
    except papermill.PapermillExecutionError as error:
        raise CourseError(f"{source.name} stopped in cell {error.exec_count}: {error.ename}: {error.evalue} "
                          f"(see {executed}).") from None
    print(f"{name}: done in {time.perf_counter() - started:.0f} s", flush=True)


def results_table(metrics):
    """Return the main figures of a metrics.json as a plain-text table, one column a subset."""
    subsets = [subset for subset in ("valid", "test") if subset in metrics]
    names = ["dice_patient_mean", "dice_patient_std", "dice", "precision", "recall", "iou", "accuracy",
             "accuracy_predicting_nothing", "loss"]
    rows = [[name, *(f"{metrics[subset][name]:.4f}" for subset in subsets)] for name in names]
    return format_table(rows, [f"{metrics['recipe']}, {metrics['profile']}", *subsets])
