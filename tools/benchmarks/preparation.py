"""Time ways to make arrays of 256x256 from picture files: `python -m tools.benchmarks.preparation WAY WORK_DIR`.

Prints seconds as JSON, for `memory` the MB that the course's way adds. WORK_DIR is a work folder in which 01 has run.
"""

import contextlib
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

import helpers

with contextlib.suppress(ImportError):  # what `helpers` imports at its first use is not timed; the peers have neither
    import scipy.sparse  # noqa: F401
    import tqdm  # noqa: F401

SIZE = 256


def pairs(work_dir):
    """Return the paths (image, mask) of all slices."""
    description = helpers.read_description(work_dir)
    return [
        helpers.pair_paths(description, work_dir, subset, pair["name"])
        for subset in helpers.SUBSETS
        for pair in description["subsets"][subset]
    ]


def course(work_dir):
    """The course's `prepare_arrays`, written to disk and hashed."""
    description = helpers.read_description(work_dir)
    shutil.rmtree(work_dir / "npy", ignore_errors=True)
    start = time.perf_counter()
    helpers.prepare_arrays(description, work_dir, SIZE, progress=False)
    return time.perf_counter() - start


def plain_loop(work_dir):
    """The same functions, one picture after the other, three lists and np.save."""
    X, y, share, paths = [], [], [], pairs(work_dir)
    start = time.perf_counter()
    for image_path, mask_path in paths:
        X.append(helpers.resize_image(helpers.read_image(image_path), SIZE) / np.float32(255))
        mask = helpers.read_mask(mask_path)
        y.append(helpers.resize_mask(mask, SIZE))
        share.append(np.rint(255 * helpers.mask_share(mask, SIZE)).astype(np.uint8))
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        for name, values in (("X", X), ("y", y), ("share", share)):
            np.save(Path(folder, name), np.stack(values)[..., None])
    return time.perf_counter() - start


def decoding(work_dir):
    """Decoding the pictures alone, on all cores: the least that any way needs."""

    def decode(path):
        with Image.open(path) as picture:
            picture.load()

    paths = [path for pair in pairs(work_dir) for path in pair]
    start = time.perf_counter()
    with ThreadPoolExecutor() as pool:
        list(pool.map(decode, paths))
    return time.perf_counter() - start


def opencv(work_dir):
    """OpenCV: read grey, resize by area, divide, np.save."""
    import cv2

    X, y, paths = [], [], pairs(work_dir)
    start = time.perf_counter()
    for image_path, mask_path in paths:
        image, mask = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in (image_path, mask_path))
        X.append(cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) / np.float32(255))
        y.append(cv2.resize(mask, (SIZE, SIZE), interpolation=cv2.INTER_AREA) >= 128)
    with tempfile.TemporaryDirectory(dir=work_dir) as folder:
        np.save(Path(folder, "X"), np.stack(X)[..., None])
        np.save(Path(folder, "y"), np.stack(y)[..., None])
    return time.perf_counter() - start


def keras_directory(work_dir):
    """`keras.utils.image_dataset_from_directory` for images and for masks, read through once; nothing is kept."""
    import keras

    folders = {path.parent for pair in pairs(work_dir) for path in pair}
    options = {"labels": None, "color_mode": "grayscale", "batch_size": 32, "shuffle": False, "verbose": False}
    start = time.perf_counter()
    for folder in sorted(folders):
        dataset = keras.utils.image_dataset_from_directory(folder, image_size=(SIZE, SIZE), **options)
        for _ in dataset.map(lambda batch: batch / 255).prefetch(2):
            pass
    return time.perf_counter() - start


def anonymous_megabytes():
    """Return this process's anonymous memory in MB (RssAnon)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("RssAnon"))


def memory(work_dir):
    """Return by how many MB the anonymous memory grows at most while the course prepares its arrays."""
    used = [anonymous_megabytes()]
    with ThreadPoolExecutor() as pool:
        preparing = pool.submit(course, work_dir)
        while not preparing.done():
            used.append(anonymous_megabytes())
            time.sleep(0.02)
    preparing.result()  # raises what stopped it
    return max(used) - used[0]


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](Path(sys.argv[2]))))
