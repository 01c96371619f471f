"""Segment scans with a trained network: `make segment SCAN=<file or folder> RUN=<run folder> [OUT=...]`.

Runs notebook 07 for each scan. In OUT (default: segmented/ of the run) each gets NAME_mask.nii.gz, NAME.json and a
page, NAME.html; `scans.csv` has a row for each. A scan that the same network and the same 07 have done is not repeated.
"""

import argparse
import html
import os
import sys
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter

from course.report import write_page
from course.scan import find_scans, scan_name
from course.workers import execute_notebook
from course.workspace import COURSE_FOLDER, CourseError, fingerprint, read_json, writable_folder, write_csv, write_json

NOTEBOOK = COURSE_FOLDER / "notebooks" / "07_your_own_scan.ipynb"
OF_THE_RUN = ("model/best.keras", "results/metrics.json")  # the weights and the threshold


def answer_scan(scan: Path, run: Path, out: Path, spacing: list[float] | None) -> dict:
    """Run notebook 07 for one scan unless its answer is there already; return what NAME.json holds.

    spacing: of pictures, [row, column, slice] in mm.
    Raises CourseError if the notebook stops, or if `out` holds the answer to another scan of this name.
    """
    files = sorted(path for path in scan.rglob("*") if path.is_file()) if scan.is_dir() else [scan]
    network = fingerprint(*(run / name for name in OF_THE_RUN if (run / name).exists()))
    inputs = fingerprint(*files, network, NOTEBOOK, spacing)
    name = scan_name(scan)
    record, executed = out / f"{name}.json", out / f"{name}.ipynb"
    earlier = read_json(record, NOTEBOOK.stem) if record.exists() else {}
    if earlier.get("inputs") == inputs and all((out / f"{name}{end}").exists() for end in ("_mask.nii.gz", ".html")):
        return earlier
    if earlier and "millilitres" not in earlier:
        raise CourseError(f"{record} is not an answer of 07, so it is not overwritten: give another OUT, or move it.")
    other = Path(earlier.get("scan", scan))
    if other != scan and other.exists():
        raise CourseError(
            f"{record} is the answer to another scan, {other}: give another OUT, or rename one of the two."
        )
    parameters = {"work_dir": str(run), "scan": str(scan), "out": str(out), "spacing": spacing}
    try:
        with open(os.devnull, "w") as silence:  # what TensorFlow and the kernel say as they start
            execute_notebook(NOTEBOOK, executed, parameters, silence, cwd=NOTEBOOK.parent, execution_timeout=3600)
    except papermill.PapermillExecutionError as error:
        stopped = f"07 stopped at {error.ename} ({error.evalue}): {executed} shows where."
        raise CourseError(error.evalue if error.ename == "CourseError" else stopped) from None
    except (DeadKernelError, CellTimeoutError):
        raise CourseError(f"07 took over an hour on {name}, or died, most often because memory ran out.") from None
    write_answer(nbformat.read(executed, as_version=4), name, out / f"{name}.html")
    answered = {**read_json(record, NOTEBOOK.stem), "network": network, "scan": str(scan), "inputs": inputs}
    write_json(record, answered)
    executed.unlink()
    return answered


def write_answer(notebook, name: str, path: Path) -> None:
    """Write the cells of an executed 07 that are for the page, without their code, as one HTML file."""
    notebook.cells = [cell for cell in notebook.cells if "page" in cell.metadata.get("tags", [])]
    exporter = HTMLExporter(
        template_name="basic", exclude_input=True, exclude_output_prompt=True, exclude_anchor_links=True
    )
    body, _ = exporter.from_notebook_node(notebook)
    title = html.escape(f"Left atrium of {name}")
    write_page(path, title, f"<h1>{title}</h1>{body}")


def read_answers(out: Path) -> dict[str, dict]:
    """Return {name: content of NAME.json} of each scan that has an answer and a page in a folder."""
    records = [read_json(path, NOTEBOOK.stem) for path in out.glob("*.json") if path.with_suffix(".html").exists()]
    return {record["name"]: record for record in records if {"name", "inputs"} <= set(record)}


def write_table(records: dict[str, dict], path: Path) -> None:
    """Write scans.csv, a row for each scan, by name."""
    rows = []
    for _, record in sorted(records.items()):
        told = {kind: " ".join(record.get(kind, [])) for kind in ("warnings", "notes")}
        rows.append({name: value for name, value in {**record, **told}.items() if name not in ("scan", "inputs")})
    write_csv(path, rows)


def _choices(given):
    """Return (scans, notes on what is skipped, run, out) from the command line; raise CourseError."""
    if not given.scan.strip() or not given.run.strip():
        raise CourseError("Give both SCAN and RUN: make segment SCAN=<file or folder> RUN=<run folder>.")
    scans, notes = find_scans(given.scan)
    run = Path(os.path.expanduser(given.run)).resolve()
    if not (run / "model" / "best.keras").exists():
        raise CourseError(f"{run} holds no trained network (model/best.keras): give the folder of a run.")
    out = Path(os.path.expanduser(given.out)).resolve() if given.out else run / "segmented"
    table = writable_folder(out) / "scans.csv"
    if table.exists() and not table.read_text(encoding="utf-8", errors="replace").startswith("name,"):
        raise CourseError(f"{table} is not a table of answers, so it is not overwritten: give another OUT, or move it.")
    return scans, notes, run, out


def main(arguments: list[str] | None = None) -> int:
    """Segment what the command line names; return the number of scans that failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", help="a NIfTI file, a folder of slices, an archive, or a folder of these")
    parser.add_argument("run", help="the folder of a run, with model/best.keras in it")
    parser.add_argument("--out", help="where the masks go; default: segmented/ of the run")
    parser.add_argument(
        "--spacing", type=float, nargs=3, metavar=("ROW", "COLUMN", "SLICE"), help="spacing of pictures, in mm"
    )
    given = parser.parse_args(arguments)
    try:
        scans, notes, run, out = _choices(given)
        records, failed = read_answers(out), 0
    except CourseError as error:
        print(error)
        return 1
    for note in notes:
        print(note)
    for number, scan in enumerate(scans, start=1):
        try:
            record = answer_scan(scan, run, out, given.spacing)
            unit = "ml" if record["knows_space"] else "ml, if a voxel has 1 cubic millimetre"
            told = f"{record['millilitres']:.1f} {unit}"
        except CourseError as error:
            record, told, failed = {"name": scan_name(scan), "failed": str(error)}, error, failed + 1
        records[scan_name(scan)] = record
        print(f"{number} of {len(scans)}, {scan_name(scan)}: {told}", flush=True)
        for sentence in [*record.get("notes", []), *record.get("warnings", [])]:
            print("  -", sentence)
        write_table(records, out / "scans.csv")
    if len({record["network"] for record in records.values() if "network" in record}) > 1:
        print('scans.csv holds the answers of several networks: its column "network" tells them apart.')
    if failed < len(scans):
        print(f"Masks, pages and scans.csv are in {out}. This is a lesson, not a medical device.")
    return failed


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # not every terminal can show every name
    sys.exit(min(main(), 1))
