"""The network is the report's, layer by layer, and computes what it should."""

import csv
import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import helpers
from course import machine
from course.normalization import fuse_normalization
from course.training import arithmetic_of


@pytest.fixture(scope="module")
def model():
    return helpers.create_model(0.001, "he_normal", 0.0, "relu")


def table():
    with open(Path(__file__).parent / "architecture.csv", newline="") as file:
        return list(csv.DictReader(file))


def inputs_of(layer):
    tensors = layer.input if isinstance(layer.input, list) else [layer.input]
    return [tensor._keras_history.operation.name for tensor in tensors]


def in_the_reports_order(model):
    """The layers from image to mask, found by following the first input of each layer back from the mask."""
    chain = [model.layers[-1]]
    while type(chain[-1]).__name__ != "InputLayer":
        chain.append(model.get_layer(inputs_of(chain[-1])[0]))
    return chain[::-1]


def test_every_layer_has_the_type_shape_and_parameters_of_the_reports_table(model):
    layers, rows = in_the_reports_order(model), table()
    assert len(layers) == len(rows) == len(model.layers) and model.count_params() == 1_927_841
    for layer, row in zip(layers, rows):
        assert type(layer).__name__ == row["type"]
        shape = layer.output.shape if row["type"] != "InputLayer" else layer.batch_shape
        assert list(shape[1:]) == [int(size) for size in row["output_shape"].split(",")], row["layer"]
        assert layer.count_params() == int(row["params"]), row["layer"]


def test_every_layer_is_connected_as_in_the_reports_table(model):
    layers, rows = in_the_reports_order(model), table()
    name_in_report = {layer.name: row["layer"] for layer, row in zip(layers, rows)}
    for layer, row in zip(layers, rows):
        if row["connected_to"]:
            assert [name_in_report[name] for name in inputs_of(layer)] == row["connected_to"].split("+"), row["layer"]


def test_convolutions_use_the_activation_and_initialiser_that_were_asked_for():
    model = helpers.create_model(0.01, "glorot_uniform", 0.25, "elu", 32)
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    assert {layer.activation.__name__ for layer in convolutions[:-1]} == {"elu"}
    assert convolutions[-1].activation.__name__ == "sigmoid"
    assert {type(layer.kernel_initializer).__name__ for layer in convolutions} == {"GlorotUniform"}
    assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == [0.25]
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


def test_the_initial_weights_depend_only_on_the_seed():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return helpers.create_model(image_size=16).get_weights()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert not np.array_equal(first[0], other[0])


def test_a_reduced_precision_changes_no_parameter_and_keeps_float32_output():
    model = helpers.create_model(image_size=16, precision="mixed_bfloat16")
    assert model.count_params() == 1_927_841
    assert {weight.dtype for weight in model.trainable_variables} == {"float32"}
    assert model.output.dtype == "float32"


def test_the_first_prediction_follows_the_output_bias():
    X = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    models = [helpers.create_model(image_size=32, output_bias=bias) for bias in (0.0, -6.0)]
    even, low = (helpers.predict_probabilities(model, X).mean() for model in models)
    assert low < even / 2


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("sse avx512_bf16", "mixed_bfloat16"), ("amx_bf16", "mixed_bfloat16"), ("sse avx512f", "float32")],
)
def test_without_a_gpu_the_arithmetic_follows_the_processors_flags(monkeypatch, flags, expected):
    monkeypatch.setattr(machine, "cpu_flags", lambda: set(flags.split()))
    monkeypatch.setattr(machine, "gpu_found", lambda: False)
    assert helpers.choose_precision("auto") == expected
    assert helpers.choose_precision("float32") == "float32"


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [("float32", "Adam"), ("mixed_bfloat16", "Adam"), ("mixed_float16", "LossScaleOptimizer")],
)
def test_the_loss_is_scaled_only_in_float16_even_in_a_model_loaded_from_03(work_dir, precision, optimizer):
    settings = {**helpers.load_settings(work_dir), "image_size": 16}
    helpers.write_json(work_dir / "settings.json", settings)
    model = helpers.create_model(image_size=16, precision=precision)
    assert type(model.optimizer).__name__ == optimizer
    helpers.save_untrained_model(model, work_dir, settings)
    loaded = helpers.load_untrained_model(work_dir)
    assert arithmetic_of(loaded) == precision
    helpers.compile_model(loaded, 0.001, "bce_dice_loss")
    assert type(loaded.optimizer).__name__ == optimizer


@pytest.mark.slow
def test_a_step_in_float16_keeps_gradients_that_would_be_zero_unscaled():
    model = helpers.create_model(image_size=16, precision="mixed_float16", loss="bce_dice_loss", output_bias=-4.0)
    model.optimizer.inner_optimizer.learning_rate = 0.001
    before = model.get_layer("down1_conv1").get_weights()[0]
    X = np.random.default_rng(0).random((2, 16, 16, 1), np.float32)
    y = (X > 0.9).astype(np.float32)
    result = model.train_on_batch(X, y, return_dict=True)
    assert 1 < result["loss"] < 3  # unscaled
    moved = np.abs(model.get_layer("down1_conv1").get_weights()[0] - before)
    assert int(model.optimizer.iterations) == 1 and 0 < moved.max() <= 0.0011  # Adam's first step is the learning rate


def test_the_full_profile_stops_if_tensorflow_has_no_gpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    for found, expected in ((True, "TensorFlow cannot use it"), (False, "has none. In Colab, choose a GPU")):
        monkeypatch.setattr(machine, "gpu_found", lambda found=found: found)
        for allow_slow in (False, "no"):
            with pytest.raises(helpers.CourseError, match=expected) as refusal:
                helpers.check_device({"profile": "full"}, allow_slow)
            assert len(str(refusal.value)) < 400
        helpers.check_device({"profile": "full"}, allow_slow=True)
        helpers.check_device({"profile": "hour"})
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a GPU"] if kind == "GPU" else [])
    helpers.check_device({"profile": "full"})


def with_one_normalization(arithmetic, trainable):
    """Return a network with one batch normalisation whose numbers all differ."""
    keras.utils.set_random_seed(0)
    image = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(5, 3, use_bias=False, padding="same", dtype=arithmetic)(image)
    normalization = keras.layers.BatchNormalization(momentum=0.7, epsilon=0.02, trainable=trainable, dtype=arithmetic)
    network = keras.Model(image, keras.layers.Conv2D(1, 1, dtype="float32")(normalization(x)))
    normalization.set_weights(np.random.default_rng(1).uniform(0.5, 2, (4, 5)))
    return network, normalization


@pytest.mark.parametrize("arithmetic", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("trainable", [True, False])
def test_fused_batch_normalization_agrees_with_keras(arithmetic, trainable):
    images = np.random.default_rng(2).random((2, 6, 4, 1), np.float32)  # so few values that n and n - 1 differ
    computed = []
    for fuse in (False, True):
        network, normalization = with_one_normalization(arithmetic, trainable)
        before = normalization.moving_variance.numpy()
        if fuse:
            fuse_normalization(network)
        with tf.GradientTape() as tape:
            answer = network(images, training=True)
            loss = tf.reduce_sum(answer**3)
        slopes = tape.gradient(loss, network.trainable_variables)
        assert np.all(normalization.moving_variance.numpy() != before) == trainable
        computed.append([answer, *slopes, *normalization.get_weights(), network(images)])
    tolerance = 1e-4 if arithmetic == "float32" else 0.01
    for expected, found in zip(*computed, strict=True):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_under_xla_the_normalization_is_not_replaced():
    network, normalization = with_one_normalization("float32", True)
    network.jit_compile = True
    fuse_normalization(network)
    assert normalization.call.__func__ is keras.layers.BatchNormalization.call


def test_a_network_with_fused_normalization_is_saved_as_keras_own(model, tmp_path):
    fused = [layer for layer in model.layers if "normalization" in layer.name]
    assert [layer.call.func.__name__ for layer in fused] == ["_normalize"] * 7
    model.save(tmp_path / "network.keras")
    with zipfile.ZipFile(tmp_path / "network.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
    assert {layer["module"] for layer in layers} == {"keras.layers"}
    images = np.random.default_rng(0).random((1, 256, 256, 1), np.float32)
    plain = keras.saving.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    np.testing.assert_allclose(plain(images), model(images), atol=1e-5)
