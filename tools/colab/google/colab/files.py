"""Uploads: the files of the folder that the environment variable COLAB_UPLOAD names."""

import os
from pathlib import Path


def upload():
    """Write the files to the current folder, and return {name: content} as bytes."""
    chosen = {path.name: path.read_bytes() for path in sorted(Path(os.environ["COLAB_UPLOAD"]).iterdir())}
    for name, content in chosen.items():
        Path(name).write_bytes(content)
        print(f"Saving {name} to {name}")
    return chosen
