"""Operations on images in a form that XLA can compile, unlike TensorFlow's own. Tensors are float32."""

import functools


def cut_squares(pictures, transforms, size, compiled):
    """Return squares cut from pictures, rotated and scaled with bilinear interpolation.

    pictures: (N, S, S, C). Returns a tensor (N, size, size, C). transforms: (N, 8), each a, b, c, d, e, f, 0, 0. The
    square's pixel in column x and row y shows the picture at column a x + b y + c and row d x + e y + f, or 0 outside.
    compiled: whether XLA compiles this. It lacks TensorFlow's own operation, which is faster on a CPU.
    """
    import tensorflow as tf

    if not compiled:
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=pictures,
            transforms=transforms,
            output_shape=[size, size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
    side = pictures.shape[1]
    a, b, c, d, e, f, _, _ = tf.unstack(transforms[:, None, None], axis=-1)
    x, y = tf.range(size, dtype=tf.float32), tf.range(size, dtype=tf.float32)[:, None]

    def neighbours(place):
        """Return for each place the index of the pixel before it, in the padded picture, and the distance to it."""
        place = tf.clip_by_value(place, -1.0, float(side))  # farther outside it is just as black
        before = tf.floor(place)
        return tf.cast(before, tf.int32) + 1, (place - before)[..., None]

    (column, right), (row, down) = neighbours(a * x + b * y + c), neighbours(d * x + e * y + f)
    pixels = tf.pad(pictures, [[0, 0], [1, 2], [1, 2], [0, 0]])

    def along(row):
        """Interpolate between the two neighbouring pixels of a row."""
        left, next_one = (tf.gather_nd(pixels, tf.stack([row, start], -1), 1) for start in (column, column + 1))
        return (1 - right) * left + right * next_one

    return (1 - down) * along(row) + down * along(row + 1)


@functools.cache
def _bicubic_weights(cells, size):
    """Return TensorFlow's bicubic weights, an array (size, cells): of each of `cells` old pixels in each new one."""
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU"):  # once, outside of what is being compiled
        return tf.image.resize(tf.eye(cells)[..., None], [size, cells], "bicubic")[..., 0].numpy()


def enlarge(fields, size):
    """Return small square fields (N, cells, cells) enlarged bicubically to (N, size, size, 1)."""
    import tensorflow as tf

    weights = _bicubic_weights(fields.shape[1], size)
    return tf.matmul(tf.matmul(weights, fields), weights, transpose_b=True)[..., None]


def neighbours_mean(images):
    """Return images (N, S, S, 1) in which each pixel is the mean of itself and its up to eight neighbours."""
    import tensorflow as tf

    def add(values):
        """Return the sums over the 3x3 pixels around each pixel; outside the image is 0."""
        values = tf.pad(values, [[0, 0], [1, 1], [1, 1], [0, 0]])
        values = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
        return values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]

    return add(images) / add(tf.ones_like(images[:1]))
