"""Shared functions of the course, in the order in which the notebooks meet them.

Importing this module does no work. Matplotlib, Keras and TensorFlow are imported by the functions that
need them, so the first two notebooks never wait for TensorFlow.
"""

import concurrent.futures
import contextlib
import csv
import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from course.arrays import ARRAYS, _is_as_recorded, _is_on_drive, _origin, load_arrays as load_arrays
from course.audit import (
    audit_rows as audit_rows,
    dataset_counts as dataset_counts,
    plot_findings as plot_findings,
    plot_twins as plot_twins,
)
from course.figures import (
    PREDICTION_COLOR as PREDICTION_COLOR,
    TRUTH_COLOR as TRUTH_COLOR,
    draw_box,
    draw_outlines as draw_outlines,
    figure_as_png as figure_as_png,
    format_table as format_table,
    look_closer as look_closer,
    plot_history as plot_history,
    plot_network as plot_network,
    save_figure as save_figure,
)
from course.folds import left_out_twins as left_out_twins
from course.importing import import_dataset as import_dataset, upload_file as upload_file
from course.machine import (
    check_gpu as check_gpu,
    choose_precision as choose_precision,
    set_up as set_up,
    versions as versions,
)
from course.metrics import (
    add_counts,
    bootstrap_interval,
    bounding_box,
    confusion_counts as confusion_counts,
    cross_entropy,
    dice as dice,
    rank_slices,
    scores as scores,
    surface_distances,
)
from course.pictures import SUBSETS as SUBSETS, dataset_root as dataset_root, pair_paths as pair_paths, read_picture
from course.planes import TrainingPictures, area_average, find_volumes, resample_slices, slice_step
from course.recipes import (
    LADDER as LADDER,
    RECIPES as RECIPES,
    check_made_with,
    choose_profile as choose_profile,
    load_settings as load_settings,
    new_settings as new_settings,
)
from course.training import (
    _without_search,
    ordered_batches as ordered_batches,
    read_history as read_history,
    resume_training,
)
from course.workspace import (
    COLAB_FOLDER,
    COURSE_FOLDER,
    CourseError as CourseError,
    fingerprint,
    open_work_folder as open_work_folder,
    read_json as read_json,
    whole_file as whole_file,
    write_json as write_json,
)

# What the untrained network depends on
NETWORK_SETTINGS = (
    "image_size",
    "seed",
    "kernel_initializer",
    "dropout_rate",
    "activation",
    "batch_normalization_momentum",
    "output_bias",
    "precision",
)

# Arrays and trainings that other code made are not used again
CODE = [COURSE_FOLDER / name for name in ("helpers.py", "course/planes.py", "course/arrays.py", "course/training.py")]


def check_exercise(number, answer, is_right, hint):
    """Print whether an exercise is not tried yet (its answer is None), right, or not right yet, with a hint.

    is_right: a function that gets the answer and returns True or False. It is called only where there is an answer.
    """
    if answer is None:
        print(f"Exercise {number}: not tried yet.")
    else:
        print(f"Exercise {number}: {'right.' if is_right(answer) else f'not right yet. {hint}'}")


def read_image(path):
    """Read a picture as a (height, width) uint8 array with one grey channel, 0 (black) to 255 (white)."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def read_mask(path, mask_values=(0, 255)):
    """Read a mask as a (height, width) bool array: True where the pixel is nearer the larger mask value."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L")) > sum(mask_values) / 2


def resize_image(image, size):
    """Resize a (height, width) uint8 image to (size, size); shrinking averages neighbours (antialiased)."""
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.HAMMING))


HALF = 0.5 - 1e-6  # of a pixel's area; the allowance is for rounding in the sums


def mask_share(mask, size):
    """Return for each of (size, size) new pixels the share of its area, 0 to 1, that a (height, width) mask covers."""
    if not mask.any():
        return np.zeros((size, size), np.float32)
    return area_average(area_average(mask, size, axis=0), size, axis=1)


def resize_mask(mask, size):
    """Resize a (height, width) bool mask to (size, size): a new pixel is set if half its area or more was.

    The mask stays two-valued and does not move. Nearest-neighbour resizing moves its edges by up to half a pixel.
    """
    return mask_share(mask, size) >= HALF


def plot_pairs(description, work_dir, columns=6):
    """Draw slices with the atrium outlined, spread evenly over all patients, above their masks.

    Returns a Matplotlib figure.
    """
    import matplotlib.pyplot as plt

    mask_of = {}
    for subset in SUBSETS:
        for pair in description["subsets"][subset]:
            mask_of.setdefault((subset, pair["patient"]), []).append(pair["name"])
    patients = list(mask_of)
    chosen = [patients[i] for i in np.linspace(0, len(patients) - 1, min(columns, len(patients))).round().astype(int)]
    figure, panels = plt.subplots(2, len(chosen), figsize=(2 * len(chosen), 4.3), layout="constrained", squeeze=False)
    for column, (subset, patient) in enumerate(chosen):
        pictures = [pair_paths(description, work_dir, subset, name) for name in mask_of[subset, patient]]
        masks = [read_mask(mask_path, description["mask_values"]) for _, mask_path in pictures]
        largest = int(np.argmax([np.count_nonzero(mask) for mask in masks]))
        image = read_image(pictures[largest][0])
        draw_outlines(panels[0, column], image, masks[largest], np.zeros_like(masks[largest]))
        panels[0, column].set_title(f"{mask_of[subset, patient][largest]}\n{subset}", fontsize=8)
        panels[1, column].imshow(masks[largest], cmap="gray")
    for axes in panels.flat:
        axes.axis("off")
    return figure


def prepare_arrays(description, work_dir, image_size, leave_out=(), progress=True):
    """Write npy/{train,valid,test}_{X,y,share}.npy and npy/arrays.json; skip what the same inputs made before.

    X is float32 of shape (N, image_size, image_size, 1) in [0, 1]: one grey channel, resized, divided by 255.
    y is uint8 of the same shape and holds only 0 and 1. share is uint8 too: 255 times the share of each pixel's area
    that is atrium, which the recipe `best` trains on. Memory stays constant however many images there are:
    the arrays are written through a memory map. `leave_out` names train patients to pass over.
    Where the dataset was taken from another work folder that has these very arrays, they are used from there.
    Returns the content of arrays.json: how the arrays were made, and the slices in their order.
    Raises CourseError if no slices are left of a subset, or no pixel of its masks.
    """
    folder = work_dir / "npy"
    made_from = {
        **_origin(description),
        "code": fingerprint(*CODE),
        "image_size": image_size,
        "left_out": sorted(leave_out),
    }
    record_path = folder / "arrays.json"
    folder.mkdir(exist_ok=True)
    for place in (folder, Path(description.get("taken_from", work_dir)) / "npy"):
        record = json.loads((place / "arrays.json").read_text("utf-8")) if (place / "arrays.json").exists() else {}
        whole = all(_is_as_recorded(place, record, name) for name in record.get("files", ()))
        if whole and record.get("made_from") == made_from:
            if place != folder:
                record.setdefault("folder", str(place))  # or where that place has them from
                write_json(record_path, record)
            return record
    record_path.unlink(missing_ok=True)  # from here on the arrays are no longer what the record says
    record = {"made_from": made_from, "slices": {}, "files": {}}
    for subset in SUBSETS:
        slices = [
            pair for pair in description["subsets"][subset] if not (subset == "train" and pair["patient"] in leave_out)
        ]
        if not slices:
            raise CourseError(f"No {subset} slices are left: leave out fewer patients.")
        record["slices"][subset] = slices
        needed = len(slices) * image_size**2 * sum(np.dtype(kind).itemsize for kind in ARRAYS.values())
        # A memory map that outgrows its disk ends the process without a word
        if shutil.disk_usage(folder).free < needed:
            raise CourseError(
                f"The arrays of {subset} take {needed / 1e6:,.0f} MB, "
                f"more than the disk of {folder} has left: "
                "free some space, or choose a smaller image_size."
            )
        with contextlib.ExitStack() as stack:
            parts = [stack.enter_context(whole_file(folder / f"{subset}_{kind}.npy")) for kind in ARRAYS]
            drafts = parts
            if _is_on_drive(folder):  # a memory map is for a local disk
                local = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=COLAB_FOLDER)))
                drafts = [local / part.name for part in parts]
            has_atrium = _fill_arrays(drafts, description, work_dir, subset, slices, image_size, progress)
            if not has_atrium:
                raise CourseError(
                    f"No mask of {subset} holds a pixel at {image_size} x {image_size} pixels: "
                    "choose a larger image_size, or other patients for it."
                )
            for draft, part in zip(drafts, parts):
                if draft != part:
                    shutil.copyfile(draft, part)
        for kind in ARRAYS:
            name = f"{subset}_{kind}.npy"
            record["files"][name] = {"bytes": (folder / name).stat().st_size, "fingerprint": fingerprint(folder / name)}
    write_json(record_path, record)
    return record


def _fill_arrays(paths, description, work_dir, subset, slices, image_size, progress):
    from tqdm import tqdm

    shape = (len(slices), image_size, image_size, 1)
    X, y, share = (
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        for path, dtype in zip(paths, ARRAYS.values())
    )

    def prepare(index):
        """Write one slice into its row of the arrays."""
        image_path, mask_path = pair_paths(description, work_dir, subset, slices[index]["name"])
        X[index, ..., 0] = resize_image(read_image(image_path), image_size) / np.float32(255)
        covered = mask_share(read_mask(mask_path, description["mask_values"]), image_size)
        y[index, ..., 0] = covered >= HALF  # as in resize_mask
        share[index, ..., 0] = np.rint(255 * covered)

    bar = tqdm(total=len(slices), desc=subset, unit="slice", disable=not progress)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool, bar:
        for start in range(0, len(slices), 256):  # a few at a time: the queue stays short
            for _ in pool.map(prepare, range(start, min(start + 256, len(slices)))):
                bar.update()
    for array in (X, y, share):
        array.flush()
    return any(mask.any() for mask in y)


def dice_coef(y_true, y_pred, smooth=1.0):
    """Return the soft Dice coefficient of a whole batch, as the report shows it while training.

    2 * sum(t * p) + smooth over sum(t) + sum(p) + smooth, with probabilities p and truth t, both in [0, 1]
    and of the same shape. `smooth` keeps it defined for empty masks.
    It is not the Dice of a segmentation: nothing is thresholded, and the slices of a batch are mixed.
    """
    from keras import ops

    y_true = ops.cast(y_true, y_pred.dtype)
    overlap = ops.sum(y_true * y_pred)
    return (2 * overlap + smooth) / (ops.sum(y_true) + ops.sum(y_pred) + smooth)


def bce_dice_loss(y_true, y_pred):
    """Return binary cross-entropy plus one minus the soft Dice of the batch: a scalar, 0 at best for masks of 0 and 1.

    Cross-entropy judges each pixel alone, and nearly all pixels are background. The Dice term looks at the
    overlap only, so a missed atrium costs as much as it should. Its sums are of squares (Milletari et al., V-Net,
    2016), so that a pixel that is half atrium is best answered with one half.
    """
    import keras
    from keras import ops

    overlap = 2 * ops.sum(y_true * y_pred) + 1
    soft_dice = overlap / (ops.sum(y_true**2) + ops.sum(y_pred**2) + 1)
    return ops.mean(keras.losses.binary_crossentropy(y_true, y_pred)) + 1 - soft_dice


LOSSES = {"binary_crossentropy": "binary_crossentropy", "bce_dice_loss": bce_dice_loss}


def create_model(
    learning_rate=0.001,
    kernel_initializer="he_normal",
    dropout_rate=0.0,
    activation="relu",
    image_size=256,
    *,
    batch_normalization_momentum=0.99,
    output_bias=0.0,
    precision="float32",
    loss="binary_crossentropy",
):
    """Build and compile the U-Net of the report, after Ronneberger et al. (2015): 1,927,841 parameters.

    Input: float32 images of shape (N, image_size, image_size, 1) in [0, 1]; `image_size` is a multiple of 8.
    Output: float32 of the same shape, for each pixel the probability that it belongs to the atrium.
    `precision` is "float32" or "mixed_bfloat16" (weights stay float32, the arithmetic is shorter).
    """
    import keras
    from keras import layers

    common = {"padding": "same", "kernel_initializer": kernel_initializer, "dtype": precision}

    def two_convolutions(x, filters, name, dropout=False):
        """Return x after two convolutions and a batch normalisation."""
        x = layers.Conv2D(filters, 3, activation=activation, name=f"{name}_conv1", **common)(x)
        if dropout:
            x = layers.Dropout(dropout_rate, name=f"{name}_dropout", dtype=precision)(x)
        x = layers.Conv2D(filters, 3, activation=activation, name=f"{name}_conv2", **common)(x)
        return layers.BatchNormalization(
            momentum=batch_normalization_momentum, name=f"{name}_normalization", dtype=precision
        )(x)

    image = x = keras.Input((image_size, image_size, 1), name="image")
    skips = []
    for level, filters in enumerate((32, 64, 128), start=1):
        x = two_convolutions(x, filters, f"down{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"down{level}_pooling", dtype=precision)(x)
    x = two_convolutions(x, 256, "bottom")
    for level, filters in zip((3, 2, 1), (128, 64, 32)):
        x = layers.Conv2DTranspose(filters, 2, strides=2, name=f"up{level}_transpose", **common)(x)
        x = layers.Concatenate(name=f"up{level}_skip", dtype=precision)([x, skips.pop()])
        x = two_convolutions(x, filters, f"up{level}", dropout=level == 3)
    mask = layers.Conv2D(
        1,
        1,
        activation="sigmoid",
        name="mask",
        dtype="float32",
        bias_initializer=keras.initializers.Constant(output_bias),
    )(x)
    model = keras.Model(image, mask, name="unet")
    compile_model(model, learning_rate, loss)
    return model


def compile_model(model, learning_rate, loss):
    """Give a model its optimizer (Adam), its loss (a name from LOSSES) and the figures to show in training.

    For `accuracy` and `iou` a pixel is atrium from one half on, in the answer and in a mask with soft edges. `iou`
    counts the atrium's pixels over all slices, unlike `dice_coef`.
    """
    import keras
    from keras import ops

    def at_least_half(y):
        """Return for each pixel whether it is atrium, or called so."""
        return ops.cast(y, "float32") >= 0.5

    class IoU(keras.metrics.BinaryIoU):
        """Counts a pixel as atrium if at least half of it is."""

        def update_state(self, y_true, y_pred, sample_weight=None):
            """Count the pixels of a batch: truth and probabilities (N, S, S, 1), from 0 to 1."""
            return super().update_state(at_least_half(y_true), y_pred, sample_weight)

    def accuracy(y_true, y_pred):
        """Return for each pixel whether it is answered right."""
        return ops.equal(at_least_half(y_true), at_least_half(y_pred))

    iou = IoU(target_class_ids=[1], threshold=0.5, name="iou")
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=LOSSES[loss], metrics=[dice_coef, accuracy, iou])


def shuffled_stream(indices, start, count, seed):
    """Return entries start to start + count of an endless stream: all indices shuffled, again and again.

    The stream depends on `seed` (a list of whole numbers) alone, so a training that was interrupted finds its place.
    """
    passes = range(start // len(indices), (start + count - 1) // len(indices) + 1) if count else ()
    stream = [np.random.default_rng([*seed, number]).permutation(indices) for number in passes]
    offset = start % len(indices)
    return np.concatenate([*stream, np.empty(0, int)]).astype(int)[offset : offset + count]


def epoch_order(has_atrium, epoch, settings, slices):
    """Return the pictures that an epoch shows, in order: whole numbers, drawn by seed and epoch alone.

    `has_atrium` is one bool a picture. With `foreground_share` that share of the pictures holds some atrium.
    `slices` is the size of the training set, which gives the length of an epoch where the profile does not.
    """
    seed, share = settings["seed"], settings["foreground_share"]
    count = images_in_epoch(slices, settings)
    with_atrium, without = np.flatnonzero(has_atrium), np.flatnonzero(~has_atrium)
    if share is None or not len(without) or not len(with_atrium):
        return shuffled_stream(np.arange(len(has_atrium)), epoch * count, count, [seed])
    wanted = round(count * share)
    order = np.concatenate(
        [
            shuffled_stream(with_atrium, epoch * wanted, wanted, [seed, 1]),
            shuffled_stream(without, epoch * (count - wanted), count - wanted, [seed, 0]),
        ]
    )
    return np.random.default_rng([seed, epoch]).permutation(order)


def load_training_pictures(work_dir, settings):
    """Return the TrainingPictures of a work folder, in as many planes as the recipe says."""
    description = read_json(work_dir / "dataset.json", "01_dataset_upload")
    X, y = load_arrays(work_dir, "train", ("X", "share" if settings["soft_masks"] else "y"))
    slices = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")["slices"]["train"]
    volumes = find_volumes(slices, description, X.shape[1]) if settings["planes"] == 3 else []
    return TrainingPictures(
        X, y, volumes, slice_step(description, X.shape[1]), full=255 if settings["soft_masks"] else 1
    )


def training_batches(pictures, settings, first_epoch=0):
    """Return a tf.data.Dataset of the batches (X, y) of all epochs from `first_epoch` on.

    Pictures are read from the memory maps as they are needed, augmented where the recipe says so, and made ready
    while the network still works on the batch before. Order and augmentation follow from the seed alone.
    """
    import tensorflow as tf

    def batches():
        """Yield the images, masks and augmentation seed of one batch after the other."""
        for epoch in range(first_epoch, settings["epochs"]):
            order = epoch_order(pictures.has_atrium, epoch, settings, len(pictures.X))
            for step, start in enumerate(range(0, len(order), settings["batch_size"])):
                seed = np.array([settings["seed"], epoch * 2**16 + step])
                yield *pictures.take(order[start : start + settings["batch_size"]]), seed

    shape = [None, *pictures.X.shape[1:]]
    signature = (tf.TensorSpec(shape, tf.float32), tf.TensorSpec(shape, tf.float32), tf.TensorSpec([2], tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    crop_size = round(settings["crop_share"] * shape[1] / 8) * 8  # the network halves the image three times

    def prepare(images, masks, seed):
        """Return a batch as the recipe shows it to the network: augmented, or as it is."""
        return augment(images, masks, seed, crop_size) if settings["augment"] else (images, masks)

    return _without_search(dataset.map(prepare, num_parallel_calls=2).prefetch(4))


def images_in_epoch(slices, settings):
    """Return how many images an epoch shows of a training set of `slices` slices."""
    return settings["images_per_epoch"] or settings["repeats"] * slices


def steps_per_epoch(slices, settings):
    """Return the number of batches in an epoch; the last one may be smaller than the others."""
    return -(-images_in_epoch(slices, settings) // settings["batch_size"])


MOST_VALIDATED = 100  # slices; curves need no more


def validated_slices(count, settings):
    """Return which of `count` valid slices the network answers after each epoch, as a slice object.

    All, where the recipe chooses its weights by them. Else every second, third, ..., so that they are MOST_VALIDATED
    at most: the weights and all that follows from them are the same, and on many slices validation would take longer
    than training.
    """
    return slice(None, None, 1 if settings["monitor"] else -(-count // MOST_VALIDATED))


def augment(images, masks, seed, crop_size):
    """Return the batch as other patients and other scanners might have looked; image and mask move together.

    images, masks: float32 tensors (N, S, S, 1) in [0, 1]. seed: two whole numbers; the same seed, the same result.
    Returns images and masks of shape (N, crop_size, crop_size, 1): a square cut anywhere from each picture, turned by
    up to 20 degrees, scaled by up to a factor of 1.25, stretched by up to 1.1. Masks stay in [0, 1] with soft edges.
    Then the image alone changes: gamma, contrast, smooth shading as a receiving coil makes it, spots as flowing blood
    makes them, brightness, blur and noise. Images may leave [0, 1] a little.
    """
    import math

    import tensorflow as tf

    count, size = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    seeds = iter(tf.unstack(tf.random.split(seed, 13)))

    def uniform(limit, *shape):
        """Return numbers from -limit to limit, an array of `shape` for each picture."""
        return tf.random.stateless_uniform([count, *shape], next(seeds), -limit, limit)

    # Where a pixel of the crop comes from: [x, y] = matrix @ ([column, row] - middle of the crop) + middle
    angle, scale, stretch = uniform(math.radians(20)), tf.exp(uniform(math.log(1.25))), tf.exp(uniform(math.log(1.1)))
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    a, b, c, d = cosine * stretch, -sine / stretch, sine * stretch, cosine / stretch
    middle = (size - 1) / 2 + uniform(1.0, 2) * (size - crop_size) / 2
    half = (crop_size - 1) / 2
    zero = tf.zeros_like(angle)
    transforms = tf.stack(
        [a, b, middle[:, 0] - (a + b) * half, c, d, middle[:, 1] - (c + d) * half, zero, zero], axis=1
    )

    def cut(pictures):
        """Return the crops of the pictures, bilinearly; what lies outside a picture is 0."""
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pictures,
            transforms=transforms,
            output_shape=[crop_size, crop_size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )

    def smooth_field(limit, cells):
        """Return a random surface for each picture that varies over cells x cells places."""
        return tf.image.resize(uniform(limit, cells, cells, 1), [crop_size, crop_size], "bicubic")

    images, masks = cut(images), cut(masks)
    images **= tf.exp(uniform(0.4, 1, 1, 1))
    images *= tf.exp(uniform(0.25, 1, 1, 1))
    images *= tf.exp(smooth_field(0.4, 4))
    images *= tf.exp(smooth_field(1.0, max(crop_size // 8, 1)) * tf.abs(uniform(0.3, 1, 1, 1)))
    images += uniform(0.1, 1, 1, 1)
    blur = tf.maximum(uniform(1.0, 1, 1, 1) - 0.6, 0) * 2.5  # in one picture of five
    images += blur * (tf.nn.avg_pool2d(images, 3, 1, "SAME") - images)
    noise = tf.random.stateless_normal(tf.shape(images), next(seeds))
    return images + noise * tf.abs(uniform(0.04, 1, 1, 1)), masks


def training_strategy(batch_size, kind="GPU"):
    """Return how TensorFlow spreads a training over the devices of a kind.

    It takes as many as can share a batch equally, else one. With several, batch normalisation sees the part of its
    device alone, so the weights are not those of a training on one device.
    """
    import tensorflow as tf

    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    count = max((number for number in range(1, len(devices) + 1) if batch_size % number == 0), default=0)
    return tf.distribute.MirroredStrategy(devices[:count]) if count > 1 else tf.distribute.get_strategy()


def load_untrained_model(work_dir):
    """Load the model of 03 with an input of any size (a multiple of 8), to train on crops and answer for whole slices.

    Raises CourseError if 03 has not run, or ran with other settings of the network.
    """
    import keras

    path = work_dir / "model" / "untrained.keras"
    if not path.exists():
        raise CourseError(f"untrained.keras is not in {path.parent}: run 03_model first.")
    if path.with_suffix(".json").exists():
        check_made_with(read_json(path.with_suffix(".json"), "03_model"), load_settings(work_dir), "03_model")
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    any_size = keras.models.clone_model(model, input_tensors=keras.Input((None, None, 1), name="image"))
    any_size.set_weights(model.get_weights())
    return any_size


def prepare_training(model, work_dir, settings, training_slices):
    """Compile the model for its recipe and bring back an interrupted training; return (callbacks, first epoch).

    See `course.training.resume_training` for what is saved and when it is used again.
    """
    import keras

    steps = steps_per_epoch(training_slices, settings)
    rate = settings["learning_rate"]
    if settings["learning_rate_schedule"] == "cosine":
        warm_up = round(0.03 * steps * settings["epochs"])
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps * settings["epochs"] - warm_up, warmup_target=rate, warmup_steps=warm_up
        )
    compile_model(model, rate, settings["loss"])

    arrays = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")
    decisive = {
        name: value
        for name, value in settings.items()
        if name not in ("dataset", "threshold", "largest_component", "replaced")
    }
    first_weights = [weights.tobytes() for weights in model.get_weights()]
    made_from = fingerprint(arrays["files"], arrays["slices"], *first_weights, *CODE)
    return resume_training(
        model,
        work_dir,
        settings,
        {"made_from": made_from, "settings": decisive},
        steps,
        images_in_epoch(training_slices, settings),
    )


def load_trained_model(work_dir):
    """Load model/best.keras in Keras' safe mode and compile it again as its recipe says.

    Raises CourseError if 04 has not run, or ran with other settings.
    """
    import keras

    path = work_dir / "model" / "best.keras"
    if not path.exists():
        raise CourseError(f"best.keras is not in {path.parent}: run 04_training first.")
    settings = load_settings(work_dir)
    made_with = read_json(path.with_name("training.json"), "04_training").get("settings", {})
    check_made_with(made_with, settings, "04_training")
    model = keras.saving.load_model(path, compile=False, safe_mode=True)
    compile_model(model, settings["learning_rate"], settings["loss"])
    return model


def predict_probabilities(model, X):
    """Return the network's probabilities for X (N, S, S, 1): float32 of shape (N, S, S), 0 to 1."""
    return model.predict(ordered_batches(X), verbose=0)[..., 0]


def predict_in_planes(model, X, volumes, step):
    """Return the probabilities for X (N, S, S, 1), for volumes averaged over their three planes.

    The network is asked three times: for the slices, and for the same volume cut along its rows and along its
    columns (Perslev et al., One Network to Segment Them All, 2019). volumes: pairs (first row, last row + 1) of X;
    rows that belong to none are answered from the slice alone. step: distance between slices in pixels.
    """
    probabilities = np.array(predict_probabilities(model, X))
    for start, stop in volumes:
        depth = max(1, round((stop - start) * step))
        volume = resample_slices(np.asarray(X[start:stop, ..., 0]), depth)
        padded = np.pad(volume, [(0, -depth % 8), (0, 0), (0, 0)])  # the network halves the image three times
        for axes in ((1, 0, 2), (2, 1, 0)):  # swapped once and swapped back
            answer = predict_probabilities(model, padded.transpose(axes)[..., None]).transpose(axes)[:depth]
            probabilities[start:stop] += resample_slices(answer, stop - start)
        probabilities[start:stop] /= 3
    return probabilities


def resize_probability(probability, shape):
    """Resize a (S, S) map of probabilities bilinearly to `shape` (height, width); float32, 0 to 1."""
    height, width = shape
    return np.asarray(Image.fromarray(probability).resize((width, height), Image.Resampling.BILINEAR))


def patient_volumes(work_dir, subset, probabilities):
    """Yield (patient, rows, truth, probability), one patient after the other, at the masks' own resolution.

    probabilities: (N, S, S), the network's answer for the subset; rows: which of the N are the patient's.
    truth (bool) and probability (float32) are of shape (len(rows), height, width): the masks as they were drawn, and
    the answer resized bilinearly. A slice smaller than the patient's largest is filled up with background.
    """
    description = read_json(work_dir / "dataset.json", "01_dataset_upload")
    slices = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")["slices"][subset]
    rows_of = {}
    for row, pair in enumerate(slices):
        rows_of.setdefault(pair["patient"], []).append(row)

    def read(row):
        """Return the mask of a row as it was drawn, and its probabilities at that size."""
        mask_path = pair_paths(description, work_dir, subset, slices[row]["name"])[1]
        mask = read_mask(mask_path, description["mask_values"])
        return mask, resize_probability(probabilities[row], mask.shape)

    def stack(pictures):
        """Return pictures as one array, filled up to the largest height and width."""
        height, width = np.max([picture.shape for picture in pictures], axis=0)
        return np.stack(
            [np.pad(picture, [(0, height - picture.shape[0]), (0, width - picture.shape[1])]) for picture in pictures]
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for patient, rows in rows_of.items():
            truth, probability = zip(*pool.map(read, rows))
            yield patient, rows, stack(truth), stack(probability)


def segment(probability, threshold, largest_component=False):
    """Return the mask of a volume of probabilities (slices, height, width): True from the threshold on.

    `largest_component` keeps only the largest piece whose pixels touch, within slices and between them.
    """
    mask = probability >= threshold
    if largest_component and mask.any():
        from scipy import ndimage

        pieces, _ = ndimage.label(mask)
        mask = pieces == np.bincount(pieces[mask]).argmax()
    return mask


THRESHOLDS = [step / 20 for step in range(2, 19)]  # 0.1 to 0.9


def threshold_curves(work_dir, subset, probabilities):
    """Return the mean Dice of the patients at each of THRESHOLDS, as {False: [...], True: [...]}: with the largest
    component alone (True) and with all (False). `probabilities` (N, S, S) is the network's answer for the subset.
    """
    dice_of = {False: [], True: []}
    for _, _, truth, probability in patient_volumes(work_dir, subset, probabilities):
        box = bounding_box(truth | (probability >= THRESHOLDS[0]))
        for largest_component, curves in dice_of.items():
            curves.append(
                [dice(truth[box], segment(probability[box], threshold, largest_component)) for threshold in THRESHOLDS]
            )
    return {name: np.mean(curves, axis=0).tolist() for name, curves in dice_of.items()}


def choose_segmentation(curves, settings):
    """Return (threshold, largest_component): as the settings say, and what they leave open (None) from the curves.

    Of several bests the threshold nearest to 0.5 is taken, and all components rather than the largest alone.
    """
    kept = (False, True) if settings["largest_component"] is None else (settings["largest_component"],)
    allowed = THRESHOLDS if settings["threshold"] is None else [settings["threshold"]]
    nearest = {
        threshold: min(range(len(THRESHOLDS)), key=lambda i: abs(THRESHOLDS[i] - threshold)) for threshold in allowed
    }
    return max(
        itertools.product(allowed, kept),
        key=lambda choice: (curves[choice[1]][nearest[choice[0]]], not choice[1], -abs(choice[0] - 0.5)),
    )


def predict_subset(model, work_dir, subset, planes=1):
    """Return the network's probabilities for a subset, float32 (N, S, S).

    planes: 1 or 3, see `predict_in_planes`.
    """
    description = read_json(work_dir / "dataset.json", "01_dataset_upload")
    slices = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")["slices"][subset]
    X, _ = load_arrays(work_dir, subset)
    volumes = find_volumes(slices, description, X.shape[1]) if planes == 3 else []
    return predict_in_planes(model, X, volumes, slice_step(description, X.shape[1]))


def evaluate_subset(model, work_dir, subset, probabilities, threshold, largest_component=False):
    """Score the network's probabilities (N, S, S) for a subset.

    Returns (metrics for metrics.json, counts a slice, masks).

    At the masks' own resolution, a patient at a time: `patients` (dice, iou, precision, recall, the two
    `surface_distances`, and volume_error, the volume found over the true one minus 1), dice_per_patient, their mean,
    standard deviation (over patients, n - 1) and `bootstrap_interval`, and figures of the single slices.
    Distances are in millimetres where the dataset's spacing is known, else in pixels: `distance_unit`.
    All else is pooled over all pixels at the network's resolution, because the report printed it so; the masks, bool
    (N, S, S), are those that are pooled. `loss` alone is what `model.evaluate` says: the recipe's loss of the slices,
    each answered from its own plane, as in training.
    """
    spacing = read_json(work_dir / "dataset.json", "01_dataset_upload")["spacing"]
    row, column, depth = spacing or (1, 1, 1)
    X, y = load_arrays(work_dir, subset)
    patients, slice_counts = {}, [None] * len(X)
    masks = np.zeros(probabilities.shape, bool)
    for patient, rows, truth, probability in patient_volumes(work_dir, subset, probabilities):
        prediction = segment(probability, threshold, largest_component)
        counts = [confusion_counts(*pair) for pair in zip(truth, prediction)]
        for index, entry in zip(rows, counts):
            slice_counts[index] = entry
        patients[patient] = _patient_scores(truth, prediction, add_counts(counts), (depth, row, column))
        masks[rows] = segment(probabilities[rows], threshold, largest_component)
    values = [patient["dice"] for patient in patients.values()]
    pooled = confusion_counts(y[..., 0], masks)
    metrics = {
        "dice_per_patient": {patient: figures["dice"] for patient, figures in patients.items()},
        "dice_patient_mean": float(np.mean(values)),
        "dice_patient_std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "dice_patient_interval": bootstrap_interval(values),
        "patients": patients,
        "distance_unit": "mm" if spacing else "pixels",
        "slices": _slice_scores(slice_counts),
        **scores(pooled),
        "accuracy_predicting_nothing": scores(confusion_counts(y, np.zeros_like(y)))["accuracy"],
        "cross_entropy": cross_entropy(y[..., 0], probabilities),
        "loss": model.evaluate(ordered_batches(X, y), verbose=0, return_dict=True)["loss"],
        "confusion": pooled,
    }
    return metrics, slice_counts, masks


def _patient_scores(truth, prediction, counts, spacing):
    names = ("dice", "iou", "precision", "recall")
    mean, percentile = surface_distances(truth, prediction, spacing) or (None, None)
    volume_error = float(prediction.sum() / truth.sum() - 1) if truth.any() else None
    return {
        **{name: scores(counts)[name] for name in names},
        "surface_distance_mean": mean,
        "surface_distance_95": percentile,
        "volume_error": volume_error,
    }


def _slice_scores(slice_counts):
    """Return figures of single slices: the Dice of those that hold atrium, and what is found on those that do not."""
    _, values = rank_slices(slice_counts)
    empty = [
        counts["false_positives"]
        for counts in slice_counts
        if counts["true_positives"] + counts["false_negatives"] == 0
    ]
    return {
        "with_atrium": len(values),
        "dice_mean_with_atrium": float(np.mean(values)) if values else None,
        "empty": len(empty),
        "empty_with_false_atrium": int(np.count_nonzero(empty)),
        "false_pixels_on_empty": int(sum(empty)),
    }


def plot_predictions(work_dir, subset, slice_counts, masks):
    """Draw the best, the median and the worst slice that hold atrium; returns a Matplotlib figure.

    First the whole slice with a box, then what is in the box: truth, prediction, and both outlines on the image.
    slice_counts and masks are what `evaluate_subset` returned for the subset.
    """
    import matplotlib.pyplot as plt

    slices = read_json(work_dir / "npy" / "arrays.json", "02_preprocessing")["slices"][subset]
    X, y = load_arrays(work_dir, subset)
    order, values = rank_slices(slice_counts)
    shown = {"best": 0, "median": len(order) // 2, "worst": len(order) - 1}
    figure, panels = plt.subplots(3, 4, figsize=(9, 7.2), layout="constrained")
    for row, (label, rank) in zip(panels, shown.items()):
        index = order[rank]
        image, truth, prediction = X[index, ..., 0], y[index, ..., 0], masks[index]
        row[0].set_title(f"{label}: {slices[index]['name']}, Dice {values[rank]:.2f}", fontsize=9, loc="left")
        for axes, picture in zip(row, (image, truth, prediction)):
            axes.imshow(picture, cmap="gray")
            axes.set(xticks=[], yticks=[])
        draw_outlines(row[3], image, truth, prediction)
        for axes in row[1:]:
            look_closer(axes, truth | prediction)
        draw_box(row[0], row[3])
    for axes, title in zip(panels[-1], ("image", "truth", "prediction", "truth orange,\nprediction blue")):
        axes.set_xlabel(title)
    return figure


def segment_picture(model, path, image_size, threshold):
    """Return (image, mask) of a picture file, both (height, width) as the picture is: uint8, and bool from the network.

    The network answers for the picture alone: there is no volume to cut in other planes, and all pieces are kept.
    Colours become grey. Values of more than eight bits are scaled so that the brightest of the picture is 255 (the
    import takes the brightest of the patient).
    Raises CourseError if the file cannot be read as a picture.
    """
    image, *_ = read_picture(Path(path))
    if image.dtype != np.uint8:
        image = np.rint(np.maximum(image, 0) * (255 / (image.max() or 1))).astype(np.uint8)
    small = resize_image(image, image_size) / np.float32(255)
    probability = predict_probabilities(model, small[None, ..., None])[0]
    return image, resize_probability(probability, image.shape) >= threshold


def save_mask(mask, path):
    """Save a bool mask (height, width) as a PNG file of 0 and 255, whole or not at all."""
    with whole_file(path) as part:
        Image.fromarray(np.uint8(255 * mask)).save(part, format="PNG")


def write_results(model, work_dir, settings, metrics):
    """Write results/metrics.json and results/patients.csv; return the path of metrics.json.

    model: the network that was evaluated.
    metrics: what `evaluate_subset` returned for each subset that was opened.
    """
    training = read_json(work_dir / "model" / "training.json", "04_training")
    folder = work_dir / "results"
    folder.mkdir(exist_ok=True)
    with whole_file(folder / "patients.csv") as part, open(part, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        figures = list(next(iter(next(iter(metrics.values()))["patients"].values())))
        writer.writerow(["subset", "patient", *figures])
        for subset, result in metrics.items():
            writer.writerows([subset, patient, *scored.values()] for patient, scored in result["patients"].items())
    chosen = {
        name: settings[name]
        for name in ("dataset", "profile", "recipe", "image_size", "seed", "planes", "threshold", "largest_component")
    }
    write_json(
        folder / "metrics.json",
        {
            **chosen,
            "arithmetic": model.get_layer("bottom_conv1").dtype_policy.name,
            "epochs": training["epochs"],
            "parameters": model.count_params(),
            "seconds_training": training["seconds"],
            "images_seen": training["images_seen"],
            "versions": versions(),
            **metrics,
        },
    )
    return folder / "metrics.json"
