"""The machine that a notebook runs on: its packages, its GPU, and the arithmetic that suits it."""

import ctypes
import importlib.util
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from course.workspace import COURSE_FOLDER, CourseError


def keep_freed_memory():
    """Let this process keep the memory that it frees, rather than hand it back and ask for fresh pages at every step.

    Call it before TensorFlow is imported. On some processors it doubles the speed of a training on the CPU; results
    are the same bit for bit. Two settings do it: TensorFlow's own pool of memory (TF_CPU_ALLOCATOR_USE_BFC), and on
    glibc the bounds of `mallopt` from which on memory is mapped for one use alone or handed back.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((-3, 2**30), (-1, 2**31 - 1), (-2, 64 * 2**20)):  # M_MMAP_, M_TRIM_THRESHOLD, M_TOP_PAD
            mallopt(option, value)


def set_up():
    """Make this machine ready: install the packages of requirements.txt that are missing, set up Keras and its log.

    Nothing that is there is upgraded. Colab brings most of it; elsewhere the README's set-up has installed all.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever a keras.json of the user's says
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    keep_freed_memory()
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # leaves GPU memory to the notebook that is opened next
    imported_as = {"pillow": "PIL"}
    lines = (COURSE_FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {line: re.split("[<>=]", line)[0] for line in lines if line and not line.startswith("#")}
    missing = [line for line, name in names.items() if importlib.util.find_spec(imported_as.get(name, name)) is None]
    if missing:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)


def visible_gpus() -> list[str]:
    """Return the names of the GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves; needs no TensorFlow.

    A name is what CUDA_VISIBLE_DEVICES takes: a number, as in nvidia-smi, or what the user has written there.
    """
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    listing = subprocess.run([command, "--list-gpus"], capture_output=True, text=True, check=False)
    found = re.findall(r"^GPU (\d+):", listing.stdout, flags=re.MULTILINE) if listing.returncode == 0 else []
    if found and "CUDA_VISIBLE_DEVICES" in os.environ:
        chosen = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), chosen))  # as CUDA reads it
    return found


def gpu_found() -> bool:
    """True if there is a GPU that this process may use."""
    return bool(visible_gpus())


def choose_precision(precision):
    """Return the arithmetic to train in: `precision` itself, or for "auto" what suits this machine.

    The rule: "mixed_bfloat16" on a CPU that multiplies bfloat16 numbers by itself (avx512_bf16 or amx_bf16
    among the flags in /proc/cpuinfo) and has no GPU beside it, "float32" everywhere else.
    """
    if precision != "auto":
        return precision
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = re.search(r"\b(avx512_bf16|amx_bf16)\b", flags)
    return "mixed_bfloat16" if native and not gpu_found() else "float32"


def check_gpu(settings):
    """Raise CourseError if the profile was chosen for a GPU that TensorFlow cannot use."""
    import tensorflow as tf

    if settings["profile"] == "full" and gpu_found() and not tf.config.list_physical_devices("GPU"):
        raise CourseError(
            "nvidia-smi lists a GPU, but TensorFlow cannot use it: install tensorflow[and-cuda], "
            "or choose profile='quick' in 01_dataset_upload to go on without it."
        )


def versions():
    """Return the versions of Python, TensorFlow and Keras that run."""
    import keras
    import tensorflow as tf

    return {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__}
