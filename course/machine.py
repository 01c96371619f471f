"""The machine that a notebook runs on: its packages, its GPU, and the arithmetic that suits it."""

import contextlib
import ctypes
import importlib.util
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from course.workspace import COURSE_FOLDER, CourseError

# From requirements.txt: what the lessons import, and what 00 also needs. The rest is for the suite and the pages.
LESSON_PACKAGES = ("tensorflow", "numpy", "matplotlib", "pillow", "ipywidgets", "scipy", "nibabel", "tqdm")
BATCH_PACKAGES = ("papermill", "distributed", "bokeh")
_IMPORTED_AS = {"pillow": "PIL"}
LEAST_TENSORFLOW = (2, 20)


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, rather than return it and ask for fresh pages at every step.

    Call it before TensorFlow is imported. On some processors it doubles the speed of training on the CPU; results
    are the same bit for bit. Two settings do it: TensorFlow's own memory pool (TF_CPU_ALLOCATOR_USE_BFC), and on
    glibc the thresholds of `mallopt` above which memory is mapped for a single use or returned to the system.
    """
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-3, 2**30) or mallopt(-3, 2**25)  # M_MMAP_THRESHOLD; an older glibc takes 32 MiB at most
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 64 * 2**20)  # M_TOP_PAD


def set_up() -> None:
    """Make this machine ready for a lesson: install the packages that are missing, set up Keras and its log.

    Installed packages keep their versions. Colab has most of them; elsewhere the README's set-up has installed all.
    Raises CourseError if TensorFlow is too old, or a package cannot be installed.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"  # whatever the user's keras.json says
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors only
    keep_freed_memory()
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # leaves GPU memory for the next notebook
    install(*LESSON_PACKAGES)
    found = metadata.version("tensorflow")
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < LEAST_TENSORFLOW:
        raise CourseError(
            f"TensorFlow {found} is installed here, but the course needs 2.20 or later. In Colab, choose the latest "
            "version under Runtime > Change runtime type. Elsewhere, make a new environment with `make setup`."
        )


def _installed():
    """Return {package: version}; of two copies of a package, that of the first, which is the one imported."""
    found = {}
    for package in metadata.distributions():
        with contextlib.suppress(FileNotFoundError):  # a damaged package has no name: None, or this error
            if package.name:
                found.setdefault(re.sub("[-_.]+", "-", package.name).lower(), package.version)
    return found


def install(*names: str) -> None:
    """Install those of the named packages that are missing, in the ranges that requirements.txt gives.

    Installed packages keep their versions: another version of numpy, say, would need a restart in mid-lesson.
    Raises CourseError, with the last line that pip prints, if a package cannot be installed.
    """
    lines = (COURSE_FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ranges = {re.split("[<>=]", line)[0]: line for line in lines}
    missing = [ranges[name] for name in names if importlib.util.find_spec(_IMPORTED_AS.get(name, name)) is None]
    if not missing:
        return
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "constraints.txt"
        kept.write_text("".join(f"{name}=={version}\n" for name, version in _installed().items()), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(kept), *missing]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace", check=False)
    if done.returncode:
        said = (done.stderr.strip() or "pip gives no reason").splitlines()[-1]
        raise CourseError(f"{', '.join(missing)} could not be installed ({said[:150]}): is this machine online?")
    importlib.invalidate_caches()


def _ask_nvidia_smi(*arguments):
    """Return the lines that nvidia-smi prints; none if there is no GPU that TensorFlow could use."""
    command = shutil.which("nvidia-smi")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if command is None or hidden or platform.system() == "Windows":  # TensorFlow uses no GPU on native Windows
        return []
    answer = subprocess.run([command, *arguments], capture_output=True, text=True, check=False)
    return answer.stdout.splitlines() if answer.returncode == 0 else []


def gpu_numbers() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them; needs no TensorFlow.

    They are nvidia-smi's numbers, or what the user has written into CUDA_VISIBLE_DEVICES. The list is empty on
    Windows, where TensorFlow uses no GPU; its Linux subsystem (WSL) counts as Linux.
    """
    listing = "\n".join(_ask_nvidia_smi("--list-gpus"))
    found = re.findall(r"^GPU (\d+):", listing, flags=re.MULTILINE)
    if found and "CUDA_VISIBLE_DEVICES" in os.environ:
        chosen = [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        return list(itertools.takewhile(lambda name: name not in ("", "-1"), chosen))  # as CUDA reads it
    return found


def gpu_found() -> bool:
    """True if there is a GPU that this process may use."""
    return bool(gpu_numbers())


def visible_gpus() -> list[tuple[str, float]]:
    """Return (name, compute capability) of the GPUs that this process sees, such as [("Tesla T4", 7.5)]."""
    lines = _ask_nvidia_smi("--query-gpu=name,compute_cap", "--format=csv,noheader")
    chosen = gpu_numbers()
    if all(number.isdigit() and int(number) < len(lines) for number in chosen):
        lines = [lines[int(number)] for number in chosen]
    found = [line.rpartition(",") for line in lines]
    return [(name.strip(), float(capability)) for name, _, capability in found]


# Common GPUs, from their data sheets: peak rate of 16-bit multiplications, in 10^12 operations a second
CARD_PEAKS = {"T4": 65, "V100": 125, "L4": 121, "A100": 312, "H100": 989, "H200": 989}
CARD_SHARE = 0.1  # share of the peak that training reaches: 97 of 989, measured on an H200, batches of 32 at 256x256
CARD_STEP = 0.008  # seconds of overhead in each step, however small: 6 to 9 ms were measured there
CORE_STEP = 0.02  # the same on a CPU: with it, crops of 56x56 and of 96x96 fit one rule, in bfloat16
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}  # of a CPU that multiplies bfloat16 numbers in hardware
# Operations a second of one core in training, by what the CPU can do; measured on a Xeon (the first) and on EPYC
CORE_RATES = {"amx_bf16": 260e9, "avx512_bf16": 130e9, "avx512f": 80e9, "avx2": 35e9}


def cpu_cores() -> int:
    """Return how many cores TensorFlow uses here."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0) or here


def cpu_flags() -> set[str]:
    """Return the processor's feature flags, such as "avx2", as Linux lists them; an empty set elsewhere."""
    listing = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return set(listing.split())


def device_name() -> str:
    """Return what networks run on here: the name of the GPU, or the number of CPU cores."""
    if gpu_found():
        return " and ".join(name for name, _ in visible_gpus()) or "a GPU"
    return f"{cpu_cores()} CPU core{'s' if cpu_cores() > 1 else ''}, no GPU"


def estimate_seconds(operations: float, steps: int, arithmetic: str) -> float | None:
    """Return about how many seconds `steps` training steps take here; None for an unknown card.

    operations: the floating-point operations of all steps together. The rule: on a GPU, CARD_STEP for each step, and
    the operations at CARD_SHARE of the card's peak; on a CPU, CORE_STEP, and the operations at the rate of its cores.
    Each rate was measured on one machine; others may differ by half.
    """
    if not gpu_found():
        usable = cpu_flags() if arithmetic == "mixed_bfloat16" else cpu_flags() - BFLOAT16_FLAGS
        rates = [rate for flag, rate in CORE_RATES.items() if flag in usable]
        return steps * CORE_STEP + operations / (cpu_cores() * max(rates, default=CORE_RATES["avx2"]))
    words = {word for name, _ in visible_gpus()[:1] for word in re.split(r"[ -]", name)}
    peaks = [peak for card, peak in CARD_PEAKS.items() if card in words]
    return steps * CARD_STEP + operations / (CARD_SHARE * peaks[0] * 1e12) if peaks else None


def choose_precision(precision: str) -> str:
    """Return the arithmetic to train in: `precision` itself, or for "auto" what suits this machine.

    On a GPU of compute capability 8.0 and up (A100, L4, H100) "mixed_bfloat16", of 7.x (Colab's T4) "mixed_float16".
    Without a GPU "mixed_bfloat16" on a CPU that multiplies bfloat16 numbers in hardware (avx512_bf16 or amx_bf16 among
    the flags in /proc/cpuinfo). Everywhere else "float32".
    """
    if precision != "auto":
        return precision
    if gpu_found():
        weakest = min((capability for _, capability in visible_gpus()), default=0)
        return "mixed_bfloat16" if weakest >= 8 else "mixed_float16" if weakest >= 7 else "float32"
    return "mixed_bfloat16" if BFLOAT16_FLAGS & cpu_flags() else "float32"


def check_device(settings: dict, allow_slow: bool = False) -> None:
    """Raise CourseError if the profile is made for a GPU and TensorFlow has none here.

    allow_slow: go on without a GPU anyway.
    """
    import tensorflow as tf

    if settings["profile"] != "full" or allow_slow is True or tf.config.list_physical_devices("GPU"):
        return
    if gpu_found():
        raise CourseError(
            "nvidia-smi lists a GPU, but TensorFlow cannot use it: install tensorflow[and-cuda], "
            "or choose profile='quick' in 01_dataset_upload to go on without it."
        )
    raise CourseError(
        "Profile 'full' is made for a GPU, but this machine has none. In Colab, choose a GPU under Runtime > Change "
        "runtime type and run this notebook from its start. Or choose profile='quick' in 01_dataset_upload, or set "
        "allow_slow=True and wait for hours."
    )


def versions() -> dict[str, str]:
    """Return the versions of Python, TensorFlow and Keras that run."""
    import keras
    import tensorflow as tf

    return {"python": platform.python_version(), "tensorflow": tf.__version__, "keras": keras.__version__}
