"""The committed notebooks are complete, uniform in form, and really compared by nbval."""

import ast
import dis
import inspect
import itertools
import os
import re
import shutil
import subprocess
import sys

import nbformat
import pytest

from course.workspace import COURSE_FOLDER as COURSE
from tools import make_slides, store_notebooks

NOTEBOOKS = sorted((COURSE / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if not path.name.startswith("00")]
NOT_COMPARED = {"nbval-ignore-output", "nbval-skip"}
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return set(cell.metadata.get("tags", []))


def texts(cell):
    """What a cell printed or returned as text, figures aside."""
    printed = [output.text for output in cell.outputs if output.output_type == "stream"]
    shown = [
        output.data["text/plain"] for output in cell.outputs if "data" in output and "image/png" not in output.data
    ]
    return [text for text in printed + shown if text.strip()]


@each_notebook
def test_every_code_cell_was_executed_in_order_and_without_an_error(path):
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]


@each_notebook
def test_there_is_one_cell_of_literal_parameters_each_with_a_comment(path):
    marked = [cell for cell in code_cells(read(path)) if "parameters" in tags(cell)]
    assert len(marked) == 1
    for node in ast.parse(marked[0].source).body:
        assert isinstance(node, ast.Assign)
        ast.literal_eval(node.value)
    assert all("  # " in line for line in marked[0].source.splitlines())


def test_the_parameters_have_the_documented_defaults():
    nothing = dict.fromkeys
    expected = {
        "00_run_all": {
            **{"work_dir": None, "dataset": "sample", "profile": None, "recipe": "best", "seed": 0, "grid": {}},
            **{"open_test": None, "scheduler": None},
        },
        "01_dataset_upload": {
            **{"work_dir": None, "dataset": "sample", "profile": None, "recipe": "best", "seed": 0, "fold": None},
            **{"patient_pattern": r"(?P<patient>.+)_(?P<slice>\d+)", "exclude": [], "foreground": None},
            **{"spacing": None, "allow_incomplete": False},
        },
        "02_preprocessing": nothing(["work_dir", "image_size"]),
        "03_model": nothing(["work_dir", "learning_rate", "kernel_initializer", "dropout_rate", "activation"]),
        "04_training": {**nothing(["work_dir", "epochs", "batch_size"]), "allow_slow": False},
        "05_evaluation": {**nothing(["work_dir", "threshold", "largest_component", "picture"]), "open_test": True},
        "06_beyond_the_report": {"runs": None},
        "07_your_own_scan": {**nothing(["work_dir", "scan", "spacing", "truth", "out"]), "save_probabilities": False},
    }
    found = {}
    for path in NOTEBOOKS:
        [marked] = [cell for cell in code_cells(read(path)) if "parameters" in tags(cell)]
        values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(marked.source).body}
        found[path.stem] = values
    assert found == expected


def names_of(cell):
    """Return (the names that a cell assigns, the names that it or its functions use)."""
    codes = [compile(cell.source, "", "exec")]
    for code in codes:
        codes += [part for part in code.co_consts if inspect.iscode(part)]
    steps = [list(dis.get_instructions(code)) for code in codes]
    assigned = {step.argval for step in steps[0] if step.opname == "STORE_NAME"}
    return assigned, {step.argval for of in steps for step in of if step.opname in ("LOAD_NAME", "LOAD_GLOBAL")}


@each_notebook
def test_a_cell_can_be_run_again_with_the_same_result(path):
    """A parameter, or a name that one cell passes to another, is assigned in one cell only."""
    cells = code_cells(read(path))
    [parameters] = [number for number, cell in enumerate(cells) if "parameters" in tags(cell)]
    names = list(map(names_of, cells))
    for name in set().union(*(assigned for assigned, _ in names)) - {"work_dir", "out", "scan"}:  # may be reassigned
        assigning = [number for number, (assigned, _) in enumerate(names) if name in assigned]
        is_passed_on = any(name in used - assigned for assigned, used in names) or parameters in assigning
        assert len(assigning) == 1 or not is_passed_on, (name, assigning)


@each_notebook
def test_words_come_first_and_cells_are_short(path):
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    assert sum(bool(re.match("# ", cell.source)) for cell in notebook.cells if cell.cell_type == "markdown") == 1
    assert max(len(cell.source.splitlines()) for cell in code_cells(notebook)) <= 20


@each_notebook
def test_outputs_hold_no_path_no_warning_and_no_foreign_metadata(path):
    notebook = read(path)
    on_a_gpu = {"accelerator": "GPU", "colab": {"gpuType": "T4"}}  # Colab offers such a machine
    assert notebook.metadata == {
        **(on_a_gpu if path.stem in ("00_run_all", "03_model", "04_training", "05_evaluation") else {}),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        assert set(cell.metadata) <= set(store_notebooks.KEPT)
        for text in texts(cell) if cell.cell_type == "code" else []:
            assert not re.search(r"(?<![\w.])/(home|root|tmp|usr|work|Users|var)/|[Ww]arning", text), text


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (
            {"accelerator": "GPU", "colab": {"gpuType": "A100", "provenance": ["someone"]}, "widgets": {}},
            {"accelerator": "GPU", "colab": {"gpuType": "T4"}},
        ),
        ({"colab": {"provenance": ["someone"]}, "varInspector": {}}, {}),
    ],
)
def test_only_kernel_and_gpu_of_a_notebooks_metadata_are_stored(tmp_path, metadata, kept):
    notebook = nbformat.v4.new_notebook(metadata={**metadata, "kernelspec": {"name": "other", "display_name": "Mine"}})
    store_notebooks.clean(notebook, tmp_path)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert notebook.metadata == {**kept, "kernelspec": kernel, "language_info": {"name": "python"}}


def test_consecutive_printed_lines_are_stored_as_one_output(tmp_path):
    printed = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("a\n", f"{tmp_path}/b\n", "c\n")]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("f()", outputs=printed)])
    store_notebooks.clean(notebook, tmp_path)
    assert [output.text for output in notebook.cells[0].outputs] == ["a\nb\nc\n"]
    for cell in [cell for path in NOTEBOOKS for cell in code_cells(read(path))]:
        kinds = [output.output_type for output in cell.outputs]
        assert ("stream", "stream") not in itertools.pairwise(kinds), cell.source


@each_notebook
def test_every_figure_is_described_in_words(path):
    from nbconvert import HTMLExporter

    notebook = read(path)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    pictures = re.findall(r"<img [^>]*?>", page)
    assert not [picture for picture in pictures if not re.search(r'alt="[^"]{30,}"', picture)]
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    drawn = sum("image/png" in output.get("data", {}) for output in outputs)
    assert len(pictures) == drawn + sum(len(cell.get("attachments", {})) for cell in notebook.cells)


@each_notebook
def test_only_helpers_and_libraries_of_the_field_are_imported(path):
    allowed = {"helpers", "subprocess", "sys", "pathlib", "inspect", "json", "csv", "google"}
    allowed |= {"keras", "tensorflow", "numpy", "scipy", "matplotlib", "nibabel", "ipywidgets"}
    allowed |= {"course"} if path.stem == "00_run_all" else set()
    imported = set()
    for cell in code_cells(read(path)):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.split(".")[0])
    assert imported <= allowed


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_lesson_opens_in_the_same_way(path):
    first, _, parameters, choices = read(path).cells[:4]
    promised = re.findall(r"\*\*(.+?:|You will learn)\*\*", first.source)
    assert promised == ["You will learn", "In:", "Out:", "Time on two cores:"]
    assert parameters.source.startswith("## Parameters\n\n")
    assert tags(choices) == {"parameters"}


def test_the_set_up_cell_is_the_same_everywhere_and_is_shown_as_one_line():
    cells = [read(path).cells[1] for path in NOTEBOOKS]
    assert len({cell.source for cell in cells}) == 1
    assert cells[0].source.startswith("# @title Set-up (run this cell first)\n")
    # the first for Colab, the second for Jupyter
    assert all(cell.metadata == {"cellView": "form", "jupyter": {"source_hidden": True}} for cell in cells)


@each_notebook
def test_badge_set_up_cell_and_repository_agree(path):
    notebook = read(path)
    address = store_notebooks.course_settings()["repository"]
    assert f'REPOSITORY = "{address}"' in code_cells(notebook)[0].source
    badge = re.search(r"\[!\[Open in Colab\].*\]\((.*)\)", notebook.cells[0].source)
    assert (badge and badge[1]) == (store_notebooks.colab_address(address, path.name) if address else None)


def test_a_known_repository_gives_a_badge_and_an_unknown_one_takes_it_away():
    notebook, address = read(NOTEBOOKS[0]), "https://github.com/somebody/course"
    before = [cell.source for cell in notebook.cells]
    store_notebooks.stamp(notebook, "00_run_all.ipynb", address)
    opened_at = "colab.research.google.com/github/somebody/course/blob/main/notebooks/00_run_all.ipynb"
    assert opened_at in notebook.cells[0].source
    assert f'REPOSITORY = "{address}"' in code_cells(notebook)[0].source
    store_notebooks.stamp(notebook, "00_run_all.ipynb", store_notebooks.course_settings()["repository"])
    assert [cell.source for cell in notebook.cells] == before


def test_at_least_four_fifths_of_the_cells_that_print_are_compared():
    printing = [cell for path in LESSONS for cell in code_cells(read(path)) if texts(cell)]
    ignored = [cell for cell in printing if tags(cell) & NOT_COMPARED]
    assert len(printing) >= 25 and len(ignored) <= 0.2 * len(printing)
    for path in NOTEBOOKS:
        assert not re.search("NBVAL|PYTEST_VALIDATE", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_the_slides_begin_with_the_title_and_show_pictures(path):
    cells = make_slides.mark_slides(read(path)).cells
    types = [cell.metadata["slideshow"]["slide_type"] for cell in cells]
    assert types[0] == "slide" and 6 <= types.count("slide") <= 15
    shown = [cell for cell, kind in zip(cells, types) if kind == "-"]
    assert all(cell.outputs for cell in shown)
    assert any("image/png" in output.get("data", {}) for cell in shown for output in cell.outputs)
    assert not [cell for cell in shown if "exercise" in tags(cell)]


# One compared output of each notebook, as (what is printed, what a faulty notebook would have printed).
ALTERED = {
    "01_dataset_upload": ("Patients in two subsets: 0", "Patients in two subsets: 1"),
    "02_preprocessing": ("Left out of training: nobody", "Left out of training: somebody"),
    "03_model": ("Parameters: 1,927,841", "Parameters: 1,927,842"),
    "04_training": ("240 train slices", "241 train slices"),
    "05_evaluation": ("valid, 80 slices", "valid, 81 slices"),
    "06_beyond_the_report": ("Runs of each recipe: 3", "Runs of each recipe: 2"),
    "07_your_own_scan": ("Exercise 7.1: not tried yet.", "Exercise 7.1: right."),
}


@pytest.mark.slow
def test_nbval_fails_if_one_compared_value_differs(tmp_path):
    """Each copy ends with its altered cell, so that nothing is trained; 03 runs on and leaves a model for 05."""
    for path in LESSONS:
        notebook, (old, new) = read(path), ALTERED[path.stem]
        found = [cell for cell in code_cells(notebook) if any(old in text for text in texts(cell))]
        assert len(found) == 1, f"{old!r} is in {len(found)} cells of {path.name}"
        for output in found[0].outputs:
            output.text = output.text.replace(old, new)
        if path.stem != "03_model":
            del notebook.cells[notebook.cells.index(found[0]) + 1 :]
        if path.stem == "05_evaluation":
            copy = (
                "import os, pathlib, shutil, helpers\nfrom course import training, workspace\n"
                "folder = pathlib.Path(os.environ['UNET_WORK_DIR'])\nbest = folder / 'model' / 'best.keras'\n"
                "shutil.copy(folder / 'model' / 'untrained.keras', best)\n"
                "record = {'made_from': training.training_inputs(folder, helpers.load_settings(folder)),\n"
                "          'best': {'fingerprint': workspace.fingerprint(best)}, 'complete': True}\n"
                "helpers.write_json(folder / 'model' / 'training.json', record)"
            )
            notebook.cells.insert(0, nbformat.v4.new_code_cell(copy))
        nbformat.write(notebook, tmp_path / path.name)
    for name in ("helpers.py", "conftest.py", "requirements.txt", "pyproject.toml"):
        shutil.copyfile(COURSE / name, tmp_path / name)
    shutil.copytree(COURSE / "course", tmp_path / "course")
    shutil.copytree(COURSE / "docs", tmp_path / "docs")
    command = [sys.executable, "-m", "pytest", "--nbval", "-q", "--tb=line", "-rf", "-p", "no:randomly"]
    command += sorted(tmp_path.glob("0*.ipynb"))
    environment = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    failed = re.findall(r"^FAILED .*?(\d\d_\w+)\.ipynb::", done.stdout, flags=re.MULTILINE)
    assert sorted(failed) == sorted(ALTERED), done.stdout[-3000:]
