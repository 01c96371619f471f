"""How much memory a training takes: `python -m tools.benchmarks.memory BATCH_SIZE [LIMIT]`.

Prints the peak of anonymous memory in MB as JSON. Trains a few steps at 256x256 on as many slices as the report's.
With LIMIT, in MB, the arrays are twice as large as the limit and the process may not have more memory than that.
"""

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np

from tools.benchmarks.preparation import anonymous_megabytes
from tools.common import fit

SIZE, SLICES, STEPS = 256, 2271, 6


def main(batch_size, limit):
    import keras

    import helpers
    from course.planes import TrainingPictures

    slices = SLICES
    if limit:
        slices = int(2 * limit * 1e6 / (SIZE * SIZE * 5))  # four bytes of X and one of y per pixel
        resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e6),) * 2)
    chosen = {"epochs": 1, "batch_size": batch_size, "images_per_epoch": STEPS * batch_size}
    settings = helpers.new_settings("sample", "full", "report", 0) | chosen
    with tempfile.TemporaryDirectory() as folder:
        arrays = [
            np.lib.format.open_memmap(Path(folder, f"{name}.npy"), "w+", dtype, (slices, SIZE, SIZE, 1))
            for name, dtype in (("X", np.float32), ("y", np.uint8))
        ]
        model, used = helpers.create_model(image_size=SIZE), []
        look = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: used.append(anonymous_megabytes()))
        fit(model, TrainingPictures(*arrays), settings, verbose=0, callbacks=[look])
    print(json.dumps({"peak_megabytes": max(used), "array_megabytes": sum(array.nbytes for array in arrays) / 1e6}))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else None)
