"""The batches that a network is given: for evaluation the slices in order, for training what the recipe says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from course.arrays import load_arrays, read_arrays_record
from course.geometry import spacings
from course.planes import TrainingPictures, find_volumes
from course.store import read_description

MOST_HELD = 2**29  # pixels of all pictures held in memory; their masks have as many again
ANSWERED_AT_ONCE = 16  # slices


def without_autotuning(dataset):
    """Return a tf.data.Dataset without TensorFlow's autotuning, whose thread outlives the dataset.

    That thread sleeps for twice as long every time, up to a minute, and the program waits until it wakes.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def ordered_batches(*arrays, batch_size: int = ANSWERED_AT_ONCE, whole: bool = False):
    """Return a tf.data.Dataset of the rows of the arrays, in order, for `evaluate` and `predict`.

    arrays: X, or X and y, of shape (N, S, S, 1); memory maps are read as they are needed.
    The last batch may be smaller; with `whole` its last row is repeated to fill it, so that XLA compiles one shape.
    """
    import tensorflow as tf

    starts = range(0, len(arrays[0]), batch_size)

    def batches():
        """Yield the rows of one batch after the other, as a tuple."""
        for start in starts:
            rows = tuple(array[start : start + batch_size] for array in arrays)
            missing = batch_size - len(rows[0]) if whole else 0
            yield tuple(np.concatenate([part, *[part[-1:]] * missing]) for part in rows) if missing else rows

    signature = tuple(tf.TensorSpec([batch_size if whole else None, *array.shape[1:]], array.dtype) for array in arrays)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    return without_autotuning(dataset.apply(tf.data.experimental.assert_cardinality(len(starts))).prefetch(2))


def load_training_pictures(work_dir: Path, settings: dict) -> TrainingPictures:
    """Return the TrainingPictures of a work folder, in as many planes as the recipe says."""
    description = read_description(work_dir)
    X, y = load_arrays(work_dir, "train", ("X", "share" if settings["soft_masks"] else "y"))
    slices = read_arrays_record(work_dir)["slices"]["train"]
    volumes = find_volumes(slices, spacings(description), X.shape[1]) if settings["planes"] == 3 else []
    return TrainingPictures(X, y, volumes, full=255 if settings["soft_masks"] else 1)


def picture_source(pictures: TrainingPictures, device: str | None = "CPU") -> Callable:
    """Return a function from the numbers of pictures, int32 (N,), to images and masks, both uint8 (N, S, S).

    If all pictures together have at most MOST_HELD pixels, they are held on the device (None: where TensorFlow
    computes), and XLA can compile the function. If they have more, they are read from the arrays on the CPU.
    """
    import tensorflow as tf

    size = pictures.X.shape[1]
    if pictures.pixels > MOST_HELD:

        def read(numbers):
            """Read the pictures with these numbers."""
            read = tf.numpy_function(pictures.take, [numbers], (tf.uint8, tf.uint8))
            return tuple(tf.ensure_shape(part, [*numbers.shape, size, size]) for part in read)

        return read
    with tf.device(device):
        *stacks, views = (tf.constant(part) for part in pictures.stack())
    rows, columns, black = tf.range(size)[:, None], tf.range(size), pictures.pixels - 1

    def take(numbers):
        """Look the pictures with these numbers up in what is held."""
        view = tf.gather(views, numbers)[:, None, None]
        first, below, beside, top, bottom, left, right = tf.unstack(view, axis=-1)
        shown = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        places = tf.where(shown, first + rows * below + columns * beside, black)
        return tuple(tf.gather(stack, places) for stack in stacks)

    return take


def prepared_batches(pictures: TrainingPictures, epochs: Callable, batch_size: int, prepare: Callable, model=None):
    """Return a tf.data.Dataset of batches as `prepare` makes them.

    epochs: a function that yields for each epoch the numbers of its pictures, int32 (steps, batch_size), and a seed for
    each batch, int64 (steps, 2). prepare: a function of images and masks, both uint8 (batch_size, S, S), a seed, and
    whether XLA compiles it.

    The batches are made on the CPU, while the network still works on the previous one. But a model that XLA compiles
    (Keras' choice on a single GPU) makes them in its training step, if the pictures can be held in memory: then the
    dataset yields only numbers and seeds, for the `fit` of this model.
    """
    import tensorflow as tf

    signature = (tf.TensorSpec([None, batch_size], tf.int32), tf.TensorSpec([None, 2], tf.int64))
    dataset = tf.data.Dataset.from_generator(epochs, output_signature=signature).unbatch()
    in_step = model is not None and model.jit_compile and pictures.pixels <= MOST_HELD
    source = picture_source(pictures, None if in_step else "CPU")

    def make(numbers, seed):
        """Return a batch (X, y)."""
        return prepare(*source(numbers), seed, in_step)

    if in_step:
        model.train_step = lambda batch: type(model).train_step(model, make(*batch))
    else:
        dataset = dataset.map(make, num_parallel_calls=2)
    return without_autotuning(dataset.prefetch(4))


def steps_per_execution(steps: int, compiled: bool) -> int:
    """Return Keras' `steps_per_execution`, the steps of a training that run without a return to Python.

    If XLA compiles the model (Keras' choice on a single GPU), a step takes less time than that return, so it is the
    largest number up to 16 that divides the `steps` of an epoch. Otherwise it is 1.
    """
    return max(number for number in range(1, 17) if steps % number == 0) if compiled else 1
