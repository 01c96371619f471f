"""Shared functions of the course, in the order in which the notebooks use them.

Importing this module does no work. Matplotlib, Keras and TensorFlow are imported by the functions that
need them, so the first two notebooks never wait for TensorFlow.
"""

import concurrent.futures
import itertools
import os

import numpy as np
from PIL import Image

# `x as x`: re-exported to the notebooks, not used here
from course.arrays import load_arrays, make_arrays, read_arrays_record, rows_of_patients
from course.audit import (
    audit_rows as audit_rows,
    dataset_counts as dataset_counts,
    plot_findings as plot_findings,
    plot_twins as plot_twins,
)
from course.batches import load_training_pictures, ordered_batches, prepared_batches, steps_per_execution
from course.drawings import (
    plot_convolution as plot_convolution,
    plot_network as plot_network,
    plot_pairs as plot_pairs,
    plot_predictions as plot_predictions,
)
from course.exercises import check_exercise as check_exercise
from course.figures import (
    PREDICTION_COLOR as PREDICTION_COLOR,
    TRUTH_COLOR as TRUTH_COLOR,
    draw_outlines as draw_outlines,
    figure_as_png as figure_as_png,
    look_closer as look_closer,
    plain_text as plain_text,
    plot_history as plot_history,
    plot_looks as plot_looks,
    plot_planes as plot_planes,
    plot_three_planes as plot_three_planes,
    save_figure as save_figure,
)
from course.folds import left_out_twins as left_out_twins
from course.geometry import spacings
from course.greys import greys_of
from course.image_operations import cut_squares, enlarge, neighbours_mean
from course.importing import import_dataset as import_dataset, upload_file as upload_file
from course.machine import (
    check_device as check_device,
    choose_precision as choose_precision,
    device_name as device_name,
    set_up as set_up,
    versions as versions,
)
from course.metrics import bootstrap_interval, bounding_box, confusion_counts, cross_entropy, dice, scores
from course.normalization import fuse_normalization
from course.pictures import SUBSETS as SUBSETS, find_picture, read_picture
from course.planes import area_average, is_whole_stack
from course.prediction import (
    predict_in_planes as predict_in_planes,
    predict_probabilities,
    predict_scan as predict_scan,
    predict_subset as predict_subset,
    resize_probability,
)
from course.recipes import (
    ABLATION as ABLATION,
    LADDER as LADDER,
    RECIPES as RECIPES,
    check_values as check_values,
    choose_profile as choose_profile,
    crop_side,
    images_in_epoch,
    load_settings,
    new_settings as new_settings,
    steps_per_epoch,
    training_plan as training_plan,
)
from course.results import (
    chosen_segmentation as chosen_segmentation,
    patient_scores,
    read_runs as read_runs,
    slice_scores,
    write_results as write_results,
)
from course.scan import (
    Scan as Scan,
    centred,
    from_pictures as from_pictures,
    patient_scan as patient_scan,
    read_scan as read_scan,
    read_truth as read_truth,
    save_volume as save_volume,
    scan_axes as scan_axes,
    scan_greys as scan_greys,
    to_pictures as to_pictures,
)
from course.source_code import source_fingerprint
from course.store import dataset_root as dataset_root, pair_paths, read_description
from course.tables import format_table as format_table, table as table
from course.training import (
    arithmetic_of,
    choose_arithmetic as choose_arithmetic,
    read_history as read_history,
    read_trained,
    read_untrained,
    resume_training,
    save_untrained,
    training_inputs,
)
from course.trust import (
    check_scale,
    differences as differences,
    learned_from as learned_from,
    volume_difference as volume_difference,
)
from course.workspace import (
    CourseError as CourseError,
    fingerprint,
    open_work_folder as open_work_folder,
    read_json as read_json,
    whole_file,
    write_json as write_json,
)

# --- 02: from pictures to arrays ----------------------------------------------------------------------


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


def mask_share(mask, size):
    """Return the share of each new pixel's area that a (height, width) mask covers: (size, size), from 0 to 1."""
    if not mask.any():
        return np.zeros((size, size), np.float32)
    return area_average(area_average(mask, size, axis=0), size, axis=1)


def is_half_covered(share):
    """Return a bool array, True where at least half of a pixel's area is covered; the tolerance is for rounding."""
    return share >= 0.5 - 1e-6


def resize_mask(mask, size):
    """Resize a (height, width) bool mask to (size, size): a new pixel is True if at least half of its area was.

    The mask stays two-valued and does not shift. Nearest-neighbour resizing shifts its edges by up to half a pixel.
    """
    return is_half_covered(mask_share(mask, size))


def prepare_slice(image, mask, size):
    """Prepare a slice for the network; return (X, y, share), each of shape (size, size).

    X: the image, uint8 (height, width), resized and divided by 255, as float32 in [0, 1]. share: 255 times the share of
    each pixel's area that the mask, bool (height, width), covers, as uint8. y: whether it covers half or more, as bool.
    """
    covered = mask_share(mask, size)
    return resize_image(image, size) / np.float32(255), is_half_covered(covered), np.uint8(np.rint(255 * covered))


def prepare_arrays(description, work_dir, image_size, leave_out=(), progress=True):
    """Write npy/{train,valid,test}_{X,y,share}.npy and npy/arrays.json, unless the same inputs made them before.

    X is float32 of shape (N, image_size, image_size, 1) in [0, 1]: one grey channel, resized, divided by 255.
    y is uint8 of the same shape and holds only 0 and 1. share is uint8 too: 255 times the share of each pixel's area
    that is atrium, which the recipe `best` trains on. The arrays are written through a memory map, so memory stays
    constant however many images there are. `leave_out` names train patients to leave out.
    If the dataset was taken from another work folder that has the same arrays, they are used from there.
    Returns the content of arrays.json: how the arrays were made, and the slices in their order.
    Raises CourseError if a subset has no slices left, or only empty masks at that size, or if the disk is full.
    """

    def prepare(subset, pair):
        """Read a slice of dataset.json and prepare it."""
        image_path, mask_path = pair_paths(description, work_dir, subset, pair["name"])
        return prepare_slice(read_image(image_path), read_mask(mask_path, description["mask_values"]), image_size)

    code = source_fingerprint(read_image, read_mask, prepare_slice)
    return make_arrays(description, work_dir, image_size, leave_out, prepare, code, progress)


# --- 03: the network ----------------------------------------------------------------------------------


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
    `precision` is "float32", "mixed_bfloat16" or "mixed_float16" (float32 weights, 16-bit arithmetic); `output_bias` is
    the initial bias of the last layer; `loss` is a name from LOSSES. The other parameters are those of Keras.
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


# The settings that the untrained network depends on
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


def _network_made_from(settings):
    """Return what an untrained network is made from: settings and code."""
    return {"settings": {name: settings[name] for name in NETWORK_SETTINGS}, "code": source_fingerprint(create_model)}


def save_untrained_model(model, work_dir, settings):
    """Save the network of 03 in `model/`, with a record of the settings, the code and the arithmetic."""
    save_untrained(model, work_dir, _network_made_from(settings))


# --- 04: losses, batches, and training that may be interrupted ----------------------------------------


def dice_coef(y_true, y_pred, smooth=1.0):
    """Return the soft Dice coefficient of a whole batch, as the report shows it during training.

    (2 * sum(t * p) + smooth) / (sum(t) + sum(p) + smooth), with probabilities p and truth t, both in [0, 1]
    and of the same shape. `smooth` keeps it defined for empty masks.
    It is not the Dice of a segmentation: nothing is thresholded, and all slices of the batch are pooled.
    """
    from keras import ops

    y_true = ops.cast(y_true, y_pred.dtype)
    overlap = ops.sum(y_true * y_pred)
    return (2 * overlap + smooth) / (ops.sum(y_true) + ops.sum(y_pred) + smooth)


def bce_dice_loss(y_true, y_pred):
    """Return binary cross-entropy plus one minus the soft Dice of the batch: a scalar, at best 0 for masks of 0 and 1.

    Cross-entropy judges each pixel alone, and nearly all pixels are background. The Dice term looks only at the
    overlap. It sums squares (Milletari et al., V-Net, 2016), so the best prediction for a pixel that is half atrium is
    one half.
    """
    import keras
    from keras import ops

    overlap = 2 * ops.sum(y_true * y_pred) + 1
    soft_dice = overlap / (ops.sum(y_true**2) + ops.sum(y_pred**2) + 1)
    return ops.mean(keras.losses.binary_crossentropy(y_true, y_pred)) + 1 - soft_dice


LOSSES = {"binary_crossentropy": "binary_crossentropy", "bce_dice_loss": bce_dice_loss}


def compile_model(model, learning_rate, loss, steps_per_execution=1):
    """Compile a model with Adam, a loss (a name from LOSSES) and the metrics to show during training.

    For `accuracy` and `iou` a pixel is atrium from one half on, in the prediction and in a mask with soft edges. `iou`
    counts the pixels of all batches together; `dice_coef` is averaged over batches. steps_per_execution: how many
    steps run before the callbacks are called. Batch normalisation is computed as in `course.normalization`.
    In float16 small gradients would underflow to 0, so the loss is scaled up and the gradients are scaled back down.
    """
    import keras
    from keras import ops

    def at_least_half(y):
        """Return a bool tensor: True for values from one half on."""
        return ops.cast(y, "float32") >= 0.5

    class IoU(keras.metrics.BinaryIoU):
        """Counts a pixel as atrium if at least half of it is."""

        def update_state(self, y_true, y_pred, sample_weight=None):
            """Count the pixels of a batch of truth and probabilities, both (N, S, S, 1) in [0, 1]."""
            return super().update_state(at_least_half(y_true), y_pred, sample_weight)

    def accuracy(y_true, y_pred):
        """Return a bool tensor: True for pixels that are classified correctly."""
        return ops.equal(at_least_half(y_true), at_least_half(y_pred))

    iou = IoU(target_class_ids=[1], threshold=0.5, name="iou")
    optimizer = keras.optimizers.Adam(learning_rate)
    if arithmetic_of(model) == "mixed_float16":  # Keras looks at the policy of the model, but ours is on its layers
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=LOSSES[loss],
        metrics=[dice_coef, accuracy, iou],
        steps_per_execution=steps_per_execution,
    )
    fuse_normalization(model)


def augment(images, masks, seed, crop_size, compiled=False):
    """Return a batch as it might look with other patients and scanners; image and mask move together.

    images, masks: float32 tensors (N, S, S, 1) in [0, 1]. seed: two whole numbers; the same seed gives the same result.
    compiled: whether XLA compiles it.
    Returns images and masks of shape (N, crop_size, crop_size, 1): a random crop of each picture, rotated by up to 20
    degrees, scaled by a factor of up to 1.25, stretched by up to 1.1 one way and shrunk as much the other. Masks stay
    in [0, 1] and get soft edges. Then only the image changes: gamma, contrast, smooth shading as from a receiver coil,
    spots as from flowing blood, brightness, blur and noise. Images may leave [0, 1].
    """
    import math

    import tensorflow as tf

    count, size = tf.shape(images)[0], images.shape[1]
    seeds = iter(tf.unstack(tf.random.split(seed, 13) & 0x7FFFFFFF))  # XLA takes no larger seeds

    def whole_numbers(*shape):
        """Return random int32 over the full range, `shape` for each picture: random floats of XLA and TF differ."""
        return tf.random.stateless_uniform([count, *shape], next(seeds), None, None, tf.int32)

    def uniform(limit, *shape):
        """Return random numbers from -limit to limit, an array of `shape` for each picture."""
        return limit / 2**31 * tf.cast(whole_numbers(*shape), tf.float32)

    # Where a pixel of the crop comes from: [x, y] = matrix @ ([column, row] - middle of the crop) + middle
    angle, scale, stretch = (
        tf.cast(uniform(limit), tf.float64) for limit in (math.radians(20), math.log(1.25), math.log(1.1))
    )
    cosine, sine, stretch = tf.cos(angle) / tf.exp(scale), tf.sin(angle) / tf.exp(scale), tf.exp(stretch)
    a, b, c, d = cosine * stretch, -sine / stretch, sine * stretch, cosine / stretch
    middle = (size - 1) / 2 + tf.cast(uniform((size - crop_size) / 2, 2), tf.float64)
    half, zero = (crop_size - 1) / 2, tf.zeros_like(angle)
    transforms = tf.stack(
        [a, b, middle[:, 0] - (a + b) * half, c, d, middle[:, 1] - (c + d) * half, zero, zero], axis=1
    )
    # float32 adds multiples of 2**-15 without error, so every device arrives at the same places
    transforms = tf.cast(tf.round(transforms * 2**15) / 2**15, tf.float32)
    images, masks = (cut_squares(part, transforms, crop_size, compiled) for part in (images, masks))

    images **= tf.exp(uniform(0.4, 1, 1, 1))
    images *= tf.exp(uniform(0.25, 1, 1, 1))
    images *= tf.exp(enlarge(uniform(0.4, 4, 4), crop_size))
    cells = max(crop_size // 8, 1)
    images *= tf.exp(enlarge(uniform(1.0, cells, cells), crop_size) * tf.abs(uniform(0.3, 1, 1, 1)))
    images += uniform(0.1, 1, 1, 1)
    blur = tf.maximum(uniform(1.0, 1, 1, 1) - 0.6, 0) * 2.5  # in one picture out of five
    images += blur * (neighbours_mean(images) - images)
    four = whole_numbers(crop_size, crop_size, 1)  # four bytes, whose sum is nearly normal
    noise = tf.cast(sum(tf.bitwise.right_shift(four, place) & 255 for place in (0, 8, 16, 24)), tf.float32)
    noise = (noise - 2 * 255) / math.sqrt(4 * (256**2 - 1) / 12)  # mean 0, variance 1
    return images + noise * tf.abs(uniform(0.04, 1, 1, 1)), masks


def shuffled_stream(indices, start, count, seed):
    """Return entries start to start + count of an endless stream: all indices shuffled, again and again.

    The stream depends only on `seed` (a list of whole numbers), so interrupted training can go on where it stopped.
    """
    passes = range(start // len(indices), (start + count - 1) // len(indices) + 1) if count else ()
    stream = [np.random.default_rng([*seed, number]).permutation(indices) for number in passes]
    offset = start % len(indices)
    return np.concatenate([*stream, np.empty(0, int)]).astype(int)[offset : offset + count]


def epoch_order(has_atrium, epoch, settings, slices):
    """Return the indices of the pictures that an epoch shows, in order; they depend only on seed and epoch.

    `has_atrium` is one bool for each picture. If `foreground_share` is set, that share of the pictures shows atrium.
    `slices` is the size of the training set, which gives the length of an epoch if the profile does not.
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


def training_batches(pictures, settings, first_epoch=0, model=None):
    """Return a tf.data.Dataset of the batches (X, y) of all epochs from `first_epoch` on, for `fit`.

    X and y are float32 (batch size, side, side, 1) in [0, 1], augmented if the recipe says so. Order and augmentation
    depend only on the seed. No batch is partial, so all have the same shape.
    model: the compiled model that is trained; on a GPU it makes the batches itself, see
    `course.batches.prepared_batches`.
    """
    import tensorflow as tf

    side = crop_side(settings, pictures.X.shape[1])

    def prepare(images, masks, seed, compiled):
        """Return a batch as the network gets it: augmented if the recipe says so."""
        X, y = (tf.cast(part, tf.float32)[..., None] / 255 for part in (images, masks))
        return augment(X, y, seed, side, compiled) if settings["augment"] else (X, y)

    def epochs():
        """Yield for each epoch the order of its pictures, one row per batch, and the seeds of its batches."""
        for epoch in range(first_epoch, settings["epochs"]):
            order = epoch_order(pictures.has_atrium, epoch, settings, len(pictures.X))
            steps = steps_per_epoch(len(pictures.X), settings)
            yield order.reshape(steps, -1), [(settings["seed"], epoch * 2**16 + step) for step in range(steps)]

    return prepared_batches(pictures, epochs, settings["batch_size"], prepare, model)


def learning_rates(settings, steps):
    """Return the learning rate for Keras' Adam: a number, or a schedule. `steps` is the number of steps in an epoch.

    "cosine" warms up from 0 to settings["learning_rate"] in the first 3 % of all steps, then falls to 0 as a cosine.
    """
    import keras

    rate = settings["learning_rate"]
    if settings["learning_rate_schedule"] == "constant":
        return rate
    warm_up = round(0.03 * steps * settings["epochs"])
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps * settings["epochs"] - warm_up, warmup_target=rate, warmup_steps=warm_up
    )


MOST_VALIDATED = 100  # slices: enough for the curves


def validated_slices(count, settings):
    """Return which of `count` valid slices are used for validation after each epoch, as a slice object.

    All of them if the recipe chooses its weights by validation. Otherwise every second, third, ..., so that there are
    at most MOST_VALIDATED: the weights do not depend on them, and validating more could take longer than training.
    """
    return slice(None, None, 1 if settings["monitor"] else -(-count // MOST_VALIDATED))


def load_untrained_model(work_dir):
    """Load the model of 03 with an input of any size (a multiple of 8), to train on crops and predict whole slices.

    Raises CourseError if 03 has not run, or ran with other settings of the network.
    """
    import keras

    model = read_untrained(work_dir, _network_made_from(load_settings(work_dir)))
    any_size = keras.models.clone_model(model, input_tensors=keras.Input((None, None, 1), name="image"))
    any_size.set_weights(model.get_weights())
    return any_size


def _training_code(loss):
    """Return a hash of the code that trains. Of LOSSES it covers only the chosen one."""
    chosen = LOSSES[loss]
    return fingerprint(
        source_fingerprint(
            create_model, load_training_pictures, training_batches, validated_slices, learning_rates, compile_model
        ),
        chosen if isinstance(chosen, str) else source_fingerprint(chosen),
    )


def prepare_training(model, work_dir, settings, training_slices):
    """Compile the model for its recipe and restore interrupted training; return (callbacks, first epoch).

    See `course.training.resume_training` for what is saved and when it is used again.
    Raises CourseError if the arrays do not belong to the dataset and the settings.
    """
    made_from = {
        **training_inputs(work_dir, settings),
        "weights": fingerprint(*(weights.tobytes() for weights in model.get_weights())),
        "arithmetic": arithmetic_of(model),
        "code": _training_code(settings["loss"]),
    }
    steps = steps_per_epoch(training_slices, settings)
    at_once = steps_per_execution(steps, model.jit_compile)
    compile_model(model, learning_rates(settings, steps), settings["loss"], at_once)
    return resume_training(model, work_dir, settings, made_from, images_in_epoch(training_slices, settings))


# --- 05: from probabilities to masks and scores -------------------------------------------------------


def load_trained_model(work_dir):
    """Load model/best.keras in Keras' safe mode and compile it again as its recipe says.

    Raises CourseError if 04 has not run, or ran on another dataset or other arrays, or with other settings.
    """
    settings = load_settings(work_dir)
    model = read_trained(work_dir, settings)
    compile_model(model, settings["learning_rate"], settings["loss"])
    return model


def patient_volumes(work_dir, subset, probabilities):
    """Yield (patient, rows, truth, probability), one patient after the other, at the masks' own resolution.

    probabilities: (N, S, S), the network's output for the subset. rows: which of the N are the patient's.
    truth (bool) and probability (float32) have the shape (len(rows), height, width): the masks as they were drawn, and
    the output resized bilinearly. A slice smaller than the patient's largest is padded with background.
    """
    description = read_description(work_dir)
    slices = read_arrays_record(work_dir)["slices"][subset]

    def read(row):
        """Return the mask of a row as it was drawn, and its probabilities at that size."""
        mask_path = pair_paths(description, work_dir, subset, slices[row]["name"])[1]
        mask = read_mask(mask_path, description["mask_values"])
        return mask, resize_probability(probabilities[row], mask.shape)

    def stack(pictures):
        """Return pictures as one array, padded to the largest height and width."""
        height, width = np.max([picture.shape for picture in pictures], axis=0)
        return np.stack(
            [np.pad(picture, [(0, height - picture.shape[0]), (0, width - picture.shape[1])]) for picture in pictures]
        )

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for patient, rows in rows_of_patients(slices).items():
            truth, probability = zip(*pool.map(read, rows))
            yield patient, rows, stack(truth), stack(probability)


def segment(probability, threshold, largest_component=False):
    """Return the bool mask of a volume of probabilities (slices, height, width): True from the threshold on.

    `largest_component` keeps only the largest connected component in 3D, whose voxels share faces.
    """
    mask = probability >= threshold
    if largest_component and mask.any():
        from scipy import ndimage

        pieces, _ = ndimage.label(mask)
        mask = pieces == np.bincount(pieces[mask]).argmax()
    return mask


THRESHOLDS = [step / 20 for step in range(2, 19)]  # 0.1 to 0.9


def threshold_curves(work_dir, subset, probabilities):
    """Return the Dice of each patient at each of THRESHOLDS, as {False: array, True: array}, (patients, thresholds).

    True: only the largest component is kept. probabilities: (N, S, S), the network's output for the subset.
    """
    dice_of = {False: [], True: []}
    for _, _, truth, probability in patient_volumes(work_dir, subset, probabilities):
        box = bounding_box(truth | (probability >= THRESHOLDS[0]))
        for largest_component, curves in dice_of.items():
            curves.append(
                [dice(truth[box], segment(probability[box], threshold, largest_component)) for threshold in THRESHOLDS]
            )
    return {name: np.array(curves) for name, curves in dice_of.items()}


def choose_segmentation(curves, settings):
    """Return (threshold, largest_component): from the settings, or from the curves where a setting is None.

    curves: as `threshold_curves` returns them; the highest mean over the patients is chosen. In a tie, all components
    are preferred to the largest alone, then the threshold nearest to 0.5. A threshold that is not among THRESHOLDS is
    looked up at the nearest of them.
    """
    kept = (False, True) if settings["largest_component"] is None else (settings["largest_component"],)
    allowed = THRESHOLDS if settings["threshold"] is None else [settings["threshold"]]

    def merit(choice):
        """Return the mean Dice of a choice, followed by what breaks ties."""
        threshold, largest_component = choice
        nearest = np.argmin(np.abs(np.subtract(THRESHOLDS, threshold)))
        return np.mean(curves[largest_component], axis=0)[nearest], not largest_component, -abs(threshold - 0.5)

    return max(itertools.product(allowed, kept), key=merit)


def score_patients(work_dir, subset, probabilities, threshold, largest_component=False):
    """Score the patients of a subset, each as one volume at the masks' own resolution.

    probabilities: (N, S, S), the network's output for the subset. Returns (figures, slice counts, masks, unit).
    figures: for each patient dice, iou, precision, recall, the two `surface_distances`, and volume_error (the predicted
    volume over the true one, minus 1). slice counts: the confusion counts of each of the N slices. masks: bool
    (N, S, S), at the network's resolution. unit: of the distances, "mm", or "pixels" if any patient's spacing is
    unknown. If a patient lacks slices, by their numbers, or these do not give the slices' places, truth and prediction
    are cut open where there is no surface: then the patient's distances are None, and that is printed.
    """
    slices = read_arrays_record(work_dir)["slices"][subset]
    spacing_of = spacings(read_description(work_dir))
    in_millimetres = all(spacing_of[pair["patient"]] for pair in slices)
    figures, slice_counts, masks = {}, [None] * len(slices), np.zeros(probabilities.shape, bool)
    for patient, rows, truth, probability in patient_volumes(work_dir, subset, probabilities):
        prediction = segment(probability, threshold, largest_component)
        masks[rows] = segment(probabilities[rows], threshold, largest_component)
        for row, *pair in zip(rows, truth, prediction):
            slice_counts[row] = confusion_counts(*pair)
        height, width, between = spacing_of[patient] if in_millimetres else (1, 1, 1)
        is_whole = is_whole_stack([slices[row]["slice"] for row in rows])
        figures[patient] = patient_scores(truth, prediction, (between, height, width) if is_whole else None)
        if not is_whole:
            print(f"No distances between surfaces for {patient} ({subset}): slices are missing, or not numbered.")
    return figures, slice_counts, masks, "mm" if in_millimetres else "pixels"


def evaluate_subset(model, work_dir, subset, probabilities, threshold, largest_component=False):
    """Score the network's probabilities (N, S, S) for a subset.

    Returns (metrics for metrics.json, counts of each slice, masks).

    `patients`, dice_per_patient, their mean, standard deviation (over patients, n - 1) and `bootstrap_interval`, and
    the figures of single slices are at the masks' own resolution, see `score_patients`. The rest is pooled over all
    pixels at the network's resolution, as in the report; the masks, bool (N, S, S), are the ones pooled. Only `loss` is
    from `model.evaluate`: the recipe's loss, with each slice predicted from its own plane, as in training.
    """
    scored = score_patients(work_dir, subset, probabilities, threshold, largest_component)
    patients, slice_counts, masks, unit = scored
    X, y = load_arrays(work_dir, subset)
    values = [patient["dice"] for patient in patients.values()]
    pooled = confusion_counts(y[..., 0], masks)
    metrics = {
        "dice_per_patient": {patient: figures["dice"] for patient, figures in patients.items()},
        "dice_patient_mean": float(np.mean(values)),
        "dice_patient_std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "dice_patient_interval": bootstrap_interval(values),
        "patients": patients,
        "distance_unit": unit,
        "slices": slice_scores(slice_counts),
        **scores(pooled),
        "accuracy_predicting_nothing": scores(confusion_counts(y, np.zeros_like(y)))["accuracy"],
        "cross_entropy": cross_entropy(y[..., 0], probabilities),
        "loss": model.evaluate(ordered_batches(X, y), verbose=0, return_dict=True)["loss"],
        "confusion": pooled,
    }
    return metrics, slice_counts, masks


def segment_picture(model, path, image_size, threshold):
    """Segment a picture file; return (image, mask), uint8 and bool, both of the picture's (height, width).

    The network sees only this picture: there is no volume to cut in other planes, and all components are kept.
    Colours become grey. Values of more than eight bits are scaled as in the import, but by the range of this picture,
    not of its patient.
    Raises CourseError if there is no such file, or it cannot be read as a picture.
    """
    image, *_ = read_picture(find_picture(path))
    if image.dtype != np.uint8:
        image, _ = greys_of(image)
    small = resize_image(image, image_size) / np.float32(255)
    probability = predict_probabilities(model, small[None, ..., None])[0]
    return image, resize_probability(probability, image.shape) >= threshold


def save_mask(mask, path):
    """Save a bool mask (height, width) as a PNG file of 0 and 255, whole or not at all."""
    with whole_file(path) as part:
        Image.fromarray(np.uint8(255 * mask)).save(part, format="PNG")


# --- 07: a scan of your own ---------------------------------------------------------------------------


def scan_input(pictures, spacing, learned, image_size):
    """Prepare the pictures of a scan for the network, as 02 prepared the slices.

    pictures: uint8 (slices, height, width), oriented as in training. spacing: their [row, column, slice] in mm.
    The network gets the same field of view in mm as in training: if the scan's pixels have another size, its slices are
    cropped or padded with black around their middle before they are resized.
    Returns (X, [height, width] before resizing), X float32 of shape (slices, image_size, image_size, 1) in [0, 1].
    Raises CourseError if a spacing must be wrong.
    """
    field = list(pictures.shape[1:])
    if spacing and learned["spacing"]:
        check_scale(spacing, learned)
        sizes = zip(learned["size"], learned["spacing"], spacing)
        field = [round(pixels * theirs / ours) for pixels, theirs, ours in sizes]
    fitted = centred(pictures, *field)
    X = np.stack([resize_image(picture, image_size) for picture in fitted]) / np.float32(255)
    return X[..., None], field
