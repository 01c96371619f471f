"""The batch hands parameters on, refuses what no notebook knows, and says which cell failed."""

import nbformat
import pytest

import batch
import helpers


def make_notebook(folder, *sources):
    (folder / "notebooks").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, folder / "notebooks" / "01_made_up.ipynb")


def test_parameters_reach_the_notebook_and_the_executed_copy_is_kept(tmp_path, monkeypatch, capsys):
    make_notebook(tmp_path, "seed = 0  # a number", "print('the seed is', seed)")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    batch.run_notebook("01_made_up", tmp_path / "run", seed=7)
    executed = nbformat.read(tmp_path / "run" / "notebooks" / "01_made_up.ipynb", as_version=4)
    assert "the seed is 7" in executed.cells[-1].outputs[0].text
    assert "01_made_up: done in" in capsys.readouterr().out


def test_an_unknown_parameter_is_refused_before_anything_runs(tmp_path, monkeypatch):
    make_notebook(tmp_path, "seed = 0  # a number")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    with pytest.raises(helpers.CourseError, match="01_made_up.ipynb has no parameter sead"):
        batch.run_notebook("01_made_up", tmp_path / "run", sead=7)
    assert not (tmp_path / "run" / "notebooks" / "01_made_up.ipynb").exists()


def test_a_failing_cell_is_named(tmp_path, monkeypatch):
    make_notebook(tmp_path, "seed = 0  # a number", "print('fine')", "1 / seed")
    monkeypatch.setattr(batch, "COURSE_FOLDER", tmp_path)
    with pytest.raises(helpers.CourseError, match=r"01_made_up.ipynb stopped in cell 3: ZeroDivisionError: division by zero"):
        batch.run_notebook("01_made_up", tmp_path / "run")


def test_a_dataset_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert batch.resolve_dataset("mine") == str(tmp_path / "mine")
    assert [batch.resolve_dataset(name) for name in ("sample", "heart")] == ["sample", "heart"]
    with pytest.raises(helpers.CourseError, match="There is no dataset at yours"):
        batch.resolve_dataset("yours")


def test_the_table_has_a_column_for_each_subset_that_was_opened():
    numbers = dict.fromkeys(["dice_patient_mean", "dice_patient_std", "dice", "precision", "recall", "iou", "accuracy",
                             "accuracy_predicting_nothing", "loss"], 0.5)
    table = batch.results_table({"recipe": "best", "profile": "quick", "valid": numbers})
    assert table.splitlines()[0].split() == ["best,", "quick", "valid"] and "dice_patient_mean" in table
