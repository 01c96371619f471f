"""Run one notebook as "Run all" in Google Colab does, and write what became of it: tools/matrix.py starts this.

Arguments: the notebook, values for its parameters cell as JSON, and the folder to which the executed notebook and
result.json are written.
"""

import json
import sys
from importlib import metadata
from pathlib import Path

import nbclient
import nbformat


def installed():
    """Return {name: version} of all packages."""
    return {package.metadata["Name"].lower(): package.version for package in metadata.distributions()}


def main(path, parameters, folder):
    """Run the notebook at `path` with `parameters`, a dict."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    before, error = installed(), None
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=3600,
        resources={"metadata": {"path": "/content"}},
        extra_arguments=["--IPKernelApp.exec_lines=import google.colab"],
    )
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as failure:
        error = f"{failure.ename}: {failure.evalue}"
    after = installed()
    nbformat.write(notebook, Path(folder, Path(path).name))
    changed = {name: [version, after.get(name)] for name, version in before.items() if after.get(name) != version}
    Path(folder, "result.json").write_text(json.dumps({"error": error, "changed": changed}), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])
