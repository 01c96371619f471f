"""Google Drive: the folder that the environment variable COLAB_DRIVE names."""

import os
import subprocess
from pathlib import Path


def mount(mountpoint):
    """Show the Drive, with its folder MyDrive, at `mountpoint`. It needs the right to mount: see tools/matrix.py."""
    if Path(mountpoint, "MyDrive").is_dir():
        print(f"Drive already mounted at {mountpoint}")
        return
    Path(mountpoint).mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "--bind", os.environ["COLAB_DRIVE"], str(mountpoint)], check=True)
    print(f"Mounted at {mountpoint}")
