"""Execute the notebooks and store them with their outputs: `make notebooks`.

The profile is that of the regression run, the data are the sample, and what differs between machines is taken out. The
address of the repository in pyproject.toml is written into every set-up cell, and gives every notebook its Colab badge.
"""

import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path

import nbclient
import nbformat
from nbconvert.preprocessors import CoalesceStreamsPreprocessor

from course.workspace import COURSE_FOLDER, whole_file

BADGE = "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"
# what is kept of a cell's metadata: tags, the description of its figure, which nbconvert puts into the page, and what
# makes Colab and Jupyter show only the title of the set-up cell
KEPT = ("tags", "alt", "cellView", "jupyter")
SET_UP = "# @title Set-up"
# of a notebook that uses a GPU: Colab then offers one
GPU_METADATA = {"accelerator": "GPU", "colab": {"gpuType": "T4"}}
WIDGET = "application/vnd.jupyter.widget-view+json"  # a slider without its kernel shows nothing


def course_settings() -> dict[str, str]:
    """Return what pyproject.toml says under [tool.course]."""
    return tomllib.loads((COURSE_FOLDER / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]


def colab_address(address: str, name: str) -> str:
    """Return where Colab opens a notebook of a GitHub repository."""
    return f"{address.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/main/notebooks/{name}"


def stamp(notebook: nbformat.NotebookNode, name: str, address: str) -> None:
    """Write the repository's address into the set-up cell and the badge under the title."""
    first = notebook.cells[0]
    first.source = re.sub(r"\n\n\[!\[Open in Colab\].*", "", first.source)
    if address:
        title, _, rest = first.source.partition("\n")
        first.source = f"{title}\n\n{BADGE.format(address=colab_address(address, name))}{rest and chr(10)}{rest}"
    for cell in notebook.cells:
        if cell.source.startswith(SET_UP):
            cell.source = re.sub(r'^REPOSITORY = ".*?"', f'REPOSITORY = "{address}"', cell.source, flags=re.MULTILINE)


def clean(notebook: nbformat.NotebookNode, folder: Path) -> None:
    """Remove from an executed notebook what differs from machine to machine."""
    notebook.metadata = {
        **(GPU_METADATA if notebook.metadata.get("accelerator") == "GPU" else {}),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in KEPT if cell.metadata.get(key)}
        if cell.cell_type == "code":
            kept = (output for output in cell.outputs if output.get("name") != "stderr")
            cell.outputs = [output for output in kept if WIDGET not in output.get("data", {})]
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.text = output.text.replace(f"{folder}{os.sep}", "")
    CoalesceStreamsPreprocessor().preprocess(notebook, {})  # lines printed one after the other are one output


def execute(name: str, folder: Path, profile: str) -> None:
    """Execute one notebook in its own folder and write it back, whole or not at all."""
    path = COURSE_FOLDER / "notebooks" / name
    notebook = nbformat.read(path, as_version=4)
    stamp(notebook, name, course_settings()["repository"])
    os.environ.update(UNET_WORK_DIR=str(folder / "data"), UNET_PROFILE=profile, TF_CPP_MIN_LOG_LEVEL="3")
    where = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", timeout=3600, resources=where).execute()
    clean(notebook, folder)
    with whole_file(path) as part:
        nbformat.write(notebook, part)
    print(f"stored {name}", flush=True)


def main() -> None:
    """Store all notebooks, in the order of their numbers: each reads what the one before left."""
    names = sorted(path.name for path in (COURSE_FOLDER / "notebooks").glob("0*.ipynb"))
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            execute(name, Path(folder), "smoke" if name.startswith("00") else course_settings()["notebook_profile"])
        with whole_file(COURSE_FOLDER / "docs" / "result.png") as part:  # the picture in the README
            shutil.copyfile(Path(folder) / "data" / "results" / "best_median_worst.png", part)


if __name__ == "__main__":
    main()
