"""Batch normalisation by TensorFlow's fused kernel: Keras' own formula in one operation instead of ten.

Each of the ten reads and writes the whole batch, in float32 whatever the arithmetic: in bfloat16 that took more than a
quarter of a training step on a CPU. The layers and the saved files remain Keras' own.
"""

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def fuse_normalization(model: "keras.Model") -> None:
    """Let TensorFlow's fused kernel compute each batch normalisation of a model, in training and in prediction.

    Layers, weights and the file that `model.save` writes stay as they were. Mean and variance are float32 in every
    arithmetic. XLA fuses Keras' own operations, so a network that it compiles is left as it is.
    """
    import keras

    if model.jit_compile:
        return
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.call = functools.partial(_normalize, layer)


def _normalize(layer, inputs, training=None, mask=None):
    """Return the normalised inputs (N, height, width, channels); in training, update the moving averages."""
    import tensorflow as tf

    training = bool(training and layer.trainable)
    moving = [layer.moving_mean, layer.moving_variance]
    normalized, *moments = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=layer.gamma.value,
        offset=layer.beta.value,
        mean=[] if training else moving[0].value,
        variance=[] if training else moving[1].value,
        epsilon=layer.epsilon,
        is_training=training,
    )[:3]
    if training:
        # The kernel divides its variance by the number of values less one, Keras by the number
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        moments[1] *= (count - 1) / count
        for average, now in zip(moving, moments):
            average.assign(layer.momentum * average + (1 - layer.momentum) * now)
    return normalized
