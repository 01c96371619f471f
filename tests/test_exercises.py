"""Exercises: a blank says that it is not tried, the notebook's own solution is right, a typical mistake gets the hint.

A cell with the tag `exercise` is where a student works. The next code cell checks it, the next `<details>` solves it.
"""

import ast
import re

import matplotlib
import nbformat
import numpy as np
import pytest

import helpers
from course.sample import draw_patient
from course.trust import describe_training
from course.workspace import COURSE_FOLDER as COURSE

matplotlib.use("agg")
LESSONS = sorted((COURSE / "notebooks").glob("0[1-7]*.ipynb"))


def read_exercises():
    """Return {number: (imports of the notebook, blank, check, solution, output of the check)} of all notebooks."""
    exercises = {}
    for path in LESSONS:
        cells = nbformat.read(path, as_version=4).cells
        statements = [node for cell in cells if cell.cell_type == "code" for node in ast.parse(cell.source).body]
        imports = ast.unparse([node for node in statements if isinstance(node, (ast.Import, ast.ImportFrom))])
        for place, cell in enumerate(cells):
            if "exercise" in cell.metadata.get("tags", []):
                title, blank, check, solution = (entry.source for entry in cells[place - 1 : place + 3])
                number = re.findall(r"### Exercise (\d\.\d): ", title)[0]
                solved = re.match(r"<details><summary>Solution</summary>\n\n```python\n(.*?)```\n", solution, re.DOTALL)
                assert solution.endswith("\n\n</details>")
                stored = "".join(output.get("text", "") for output in cells[place + 1].outputs)
                exercises[number] = imports, blank, check, solved[1], stored
    return exercises


EXERCISES = read_exercises()
each_exercise = pytest.mark.parametrize("number", EXERCISES)

# Right answers in other words than the solution's, in each exercise
RIGHT = {
    "1.1": [
        """def shared_patients(patients):
            names = [name for subset in patients.values() for name in subset]
            return {name for name in names if names.count(name) > 1}""",
        """def shared_patients(patients):
            shared, subsets = [], list(patients)
            for i in range(3):
                for j in range(i):
                    shared += [name for name in patients[subsets[i]] if name in patients[subsets[j]]]
            return sorted(shared)""",
    ],
    "1.2": ["share_of_atrium = 0.01", "share_of_atrium = 0.003"],
    "1.3": [
        """import itertools
def find_twins(scans):
    same = lambda one, other: scans[one].shape == scans[other].shape and (scans[one] == scans[other]).all()
    return [[one, other] for one, other in itertools.combinations(scans, 2) if same(one, other)]""",
        """def find_twins(scans):
    twins, done = [], []
    for name, scan in scans.items():
        twins += [(other, name) for other in done if np.array_equal(scans[other], scan)]
        done.append(name)
    return twins""",
    ],
    "2.1": [
        "four_pixels = np.array([[1, 0], [0, 1]])",
        "four_pixels = True, False, False, True",
        "four_pixels = [1.0, 0.0, 0.0, 1.0]",
    ],
    "2.2": [
        "def scale(image): return (image / 255).astype('float32')",
        "def scale(image): return np.array([[np.float32(grey) / 255 for grey in row] for row in image], np.float32)",
        "def scale(image): return np.multiply(image, 1 / 255, dtype='float32')",
    ],
    "2.3": ["accuracy_of_nothing = 0.99", "accuracy_of_nothing = 1 - 1 / 100"],
    "2.4": [
        "my_dice = helpers.dice",
        """def my_dice(truth, prediction):
    if not truth.any() and not prediction.any():
        return 1
    overlap = np.count_nonzero(np.logical_and(truth, prediction))
    precision, recall = overlap / max(prediction.sum(), 1), overlap / max(truth.sum(), 1)
    return 2 * precision * recall / (precision + recall) if overlap else 0""",
    ],
    "3.1": [
        "my_weights = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])",
        "my_weights = ((0, -1, 0), (0, 0, 0), (0, 1, 0))",
        "my_weights = np.transpose([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])",
    ],
    "3.2": ["width_seen = 5.0", "width_seen = 3 + 2"],
    "3.3": [
        """def convolution_parameters(window, channels_in, channels_out):
    weights = channels_in * channels_out * window**2
    biases = channels_out
    return weights + biases""",
        """def convolution_parameters(window, channels_in, channels_out):
    layer = keras.layers.Conv2D(channels_out, window)
    layer.build((1, 20, 20, channels_in))
    return layer.count_params()""",
    ],
    "3.4": [
        """def my_block(x, filters):
    for _ in range(2):
        x = keras.layers.ReLU()(keras.layers.Conv2D(filters, (3, 3), padding="same")(x))
    return keras.layers.BatchNormalization(momentum=0.95)(x)""",
        """def my_block(x, filters):
    block = [
        keras.layers.Conv2D(filters, 3, 1, "same", activation="relu", kernel_initializer="he_normal"),
        keras.layers.Dropout(0.0),
        keras.layers.Conv2D(filters, 3, 1, "same", activation=keras.activations.relu),
        keras.layers.BatchNormalization(),
    ]
    for layer in block:
        x = layer(x)
    return x""",
    ],
    "4.1": [
        "def next_weight(weight, slope, learning_rate):\n    weight -= slope * learning_rate\n    return weight",
        "def next_weight(weight, slope, learning_rate): return weight + learning_rate * -slope",
    ],
    "4.2": [
        EXERCISES["4.2"][3].replace("0.7 * missed + 0.3", "2 * missed + 1"),
        EXERCISES["4.2"][3].replace("0.7 * missed + 0.3", "0.51 * missed + 0.49"),
        EXERCISES["4.2"][3].replace("keras.ops.sum", "tf.reduce_sum"),
    ],
    "4.3": ["steps = -(-1160 // 32)", "steps = np.ceil(1160 / 32)"],
    "4.4": ["kept_epoch, best_dice_epoch = 18, 20", "kept_epoch, best_dice_epoch = 18.0, np.int64(20)"],
    "5.1": ["dice_of_squares = 0.5", "dice_of_squares = 2 * 2 / (4 + 4)"],
    "5.2": [
        "def mean_dice_of_patients(patients): return sum(helpers.dice(*p) for p in patients) / len(patients)",
        "def mean_dice_of_patients(patients):\n    each = []\n    for truth, prediction in patients:\n"
        "        both = truth.sum() + prediction.sum()\n"
        "        each.append(2 * (truth & prediction).sum() / both)\n    return np.array(each).mean()",
    ],
    "5.3": [
        "def dice_from(precision, recall): return 2 / (1 / precision + 1 / recall)\nright_precision = 0.9643",
        "import statistics\ndef dice_from(precision, recall): return statistics.harmonic_mean([precision, recall])\n"
        "right_precision = 0.9643",
    ],
    "5.4": [
        "def can_be_true(loss, dice, accuracy): return loss >= 0 and max(abs(dice - 0.5), abs(accuracy - 0.5)) <= 0.5",
        "def can_be_true(loss, dice, accuracy):\n    if loss < 0:\n        return False\n"
        "    return all([0 <= dice, dice <= 1, 0 <= accuracy, accuracy <= 1])",
    ],
    "6.1": ["largest_gain = 'small_batches'", "largest_gain = rungs[1]"],
    "6.2": [
        "def is_better(before, after): return all(a > b for a in after for b in before)",
        "def is_better(before, after): return np.all(after[:, None] > before)",
        "def is_better(before, after): return min(after) > max(before)",
    ],
    "6.3": [
        "my_rung = {'dropout_rate': 0.2}",
        "my_rung = {'batch_size': 8, 'learning_rate': 0.003}",
        "my_rung = {'foreground_share': None}",
        "my_rung = {'loss': 'bce_dice_loss'}",
    ],
    "7.1": ["millilitres = 85.6", "millilitres = round(40000 * 1.25 * 1.25 * 1.37 * 0.001)", "millilitres = 85.0"],
    "7.2": ["should_differ = ('flipped', 'dark')", "should_differ = {'dark', 'flipped'}"],
    "7.3": [
        "my_affine = scan.affine + np.array([[0] * 4, [0] * 4, [0, 0, 0, 20], [0] * 4])",
        "my_affine = (np.eye(4) + 20 * np.outer([0, 0, 1, 0], [0, 0, 0, 1])) @ scan.affine",
        "my_affine = scan.affine.tolist(); my_affine[2][3] += 20",
    ],
}

# Typical mistakes in each exercise, in place of the solution.
MISTAKES = {
    "1.1": [
        "def shared_patients(patients): return set.intersection(*map(set, patients.values()))",
        "def shared_patients(p): return set(p['train']) & set(p['valid']) | set(p['valid']) & set(p['test'])",
        "def shared_patients(p): return set(p['train']) & (set(p['valid']) | set(p['test']))",
        "def shared_patients(p): return set.union(*map(set, p.values()))",
        "def shared_patients(p): return {'ann', 'bob', 'dia'}",
        "def shared_patients(p): return len(set(p['train']) & set(p['valid']))",
        "shared_patients = {'ann', 'bob', 'dia'}",
    ],
    "1.2": [
        "share_of_atrium = 0.1",
        "share_of_atrium = 0.5",
        "share_of_atrium = 0",
        "share_of_atrium = 0.0005",
        "share_of_atrium = -0.005",
    ],
    "1.3": [
        "def find_twins(scans): return [(a, b) for a in scans for b in scans if scans[a].shape == scans[b].shape]",
        "def find_twins(scans): return [(a, b) for a in scans for b in scans if np.array_equal(scans[a], scans[b])]",
        "def find_twins(scans): return [(a, b) for a in scans for b in scans if a < b and scans[a] == scans[b]]",
        "def find_twins(scans): return [(a, b) for a in scans for b in scans if a < b and scans[a] is scans[b]]",
        "def find_twins(scans): return [('ann', 'cem')]",
        *(
            f"def find_twins(scans): return [(a, b) for a in scans for b in scans if a < b and {equal}]"
            for equal in (
                "scans[a][0, 0] == scans[b][0, 0]",
                "np.array_equal(scans[a][0], scans[b][0])",
                "scans[a].mean() == scans[b].mean()",
                "np.array_equal(scans[a][-1], scans[b][-1])",
                "np.array_equal(scans[a].diagonal(), scans[b].diagonal())",
                "np.array_equal(scans[a][::2, ::2], scans[b][::2, ::2])",
                "sorted(scans[a].ravel()) == sorted(scans[b].ravel())",
                "(scans[a] == scans[b]).all()",
                "set(scans[a].ravel()) == set(scans[b].ravel())",
                "scans[a].shape == scans[b].shape and (scans[a] == scans[b]).mean() > 0.9",
            )
        ),
        """def find_twins(scans):
    for a in scans:
        for b in scans:
            if a < b and np.array_equal(scans[a], scans[b]):
                return [(a, b)]
    return []""",
    ],
    "2.1": [
        "four_pixels = [1, 0, 0, 0]",
        "four_pixels = [1, 1, 1, 1]",
        "four_pixels = [0.75, 0, 0, 0.5]",
        "four_pixels = [1, 0, 0]",
        "four_pixels = '1001'",
        "four_pixels = 2",
    ],
    "2.2": [
        f"def scale(image): return {result}"
        for result in (
            "np.float32(image / 255 if image.max() > 1 else image)",
            "np.float32(image // 255)",
            "image / 255",
            "np.float32(image / 256)",
            "np.float32(image / image.max())",
            "np.float32((image - image.min()) / (image.max() - image.min() + 1e-9))",
            "np.float16(image / 255)",
            "np.float32(image) / 255 > 0.5",
            "np.float32(image / 255).ravel()",
            "np.float32(np.round(image / 255, 2))",
        )
    ]
    + ["scale = 1 / 255"],
    "2.3": [
        "accuracy_of_nothing = 0.01",
        "accuracy_of_nothing = 99",
        "accuracy_of_nothing = 0.9",
        "accuracy_of_nothing = 1",
    ],
    "2.4": [
        "def my_dice(truth, prediction): return (truth & prediction).sum() / max((truth | prediction).sum(), 1)",
        "def my_dice(t, p): return 2 * (t & p).sum() / (t.sum() + p.sum())",
        "def my_dice(t, p): return 2 * (t & p).sum() / (t.sum() + p.sum()) if p.any() else 1",
        "def my_dice(t, p): return 2 * (t & p).sum() / (t.sum() + p.sum()) if t.any() else 1",
        "def my_dice(t, p): return 2 * (t & p).sum() / (t.sum() + p.sum()) if t.any() or p.any() else 0",
        "def my_dice(t, p): return (2 * (t & p).sum() + 1) / (t.sum() + p.sum() + 1)",
        "def my_dice(t, p): return (t & p).sum() / (t.sum() + p.sum()) if (t | p).any() else 1",
        "def my_dice(t, p): return (t == p).mean()",
        "def my_dice(t, p): return np.mean([helpers.dice(*rows) for rows in zip(t, p)])",
        "def my_dice(t, p): return helpers.dice(t, p) if t.ndim == 2 else helpers.dice(t[0], p[0])",
        "def my_dice(t, p): return 2 * (t * p).sum() / (t + p).sum() if (t + p).any() else 1",
        "def my_dice(t, p): return 2 * (t and p).sum() / (t.sum() + p.sum())",
        """def my_dice(t, p):
    if t.any() or p.any():
        return 2 * (t & p).sum() / (t.sum() + p.sum())""",
    ],
    "3.1": [
        "my_weights = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]",
        "my_weights = [[0, -1, -2], [1, 0, -1], [2, 1, 0]]",
        "my_weights = [[-3, -3, -3], [1, 1, 1], [1, 1, 1]]",
        "my_weights = [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]",
        "my_weights = [[-1, -1, -1], [2, 2, 2], [-1, -1, -1]]",
        "my_weights = [[0, 0, 0], [0, 0, 0], [0, 0, 0]]",
        "my_weights = [[-2, -1, 0], [-1, 0, 1], [0, 1, 2]]",
        "my_weights = [-1, 0, 1]",
    ],
    "3.2": ["width_seen = 6", "width_seen = 3", "width_seen = 9", "width_seen = 25"],
    "3.3": [
        "def convolution_parameters(window, channels_in, channels_out): return 9 * channels_in * channels_out",
        *(
            f"def convolution_parameters(window, channels_in, channels_out): return {count}"
            for count in (
                "window * window * channels_in * channels_out",
                "(9 * channels_in + 1) * channels_out",
                "window * window * (channels_in + 1) * channels_out",
                "window * window * channels_in * channels_out + 1",
                "window * window * channels_in * channels_out + channels_in",
                "(window * channels_in + 1) * channels_out",
                "window * window * channels_out + channels_out",
                "320",
                "bottom.count_params()",
            )
        ),
    ],
    "3.4": [
        *(
            EXERCISES["3.4"][3].replace(right, wrong)
            for right, wrong in (
                (', padding="same"', ""),
                (', activation="relu"', ""),
                ('activation="relu"', 'activation="sigmoid"'),
                ("filters, 3,", "filters, 5,"),
                ("filters, 3,", "32, 3,"),
                ("filters, 3,", "filters, 3, 2,"),
                ("return keras.layers.BatchNormalization()(x)", "return x"),
                ("return keras.layers.BatchNormalization()(x)", "return keras.layers.BatchNormalization()"),
                ("return keras.layers.BatchNormalization()(x)", "return keras.layers.LayerNormalization()(x)"),
            )
        ),
        "def my_block(x, filters): return keras.layers.Conv2D(filters, 3, padding='same', activation='relu')(x)",
        """def my_block(x, filters):
    for _ in range(2):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
    return x""",
        """def my_block(x, filters):
    x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = keras.layers.Conv2D(filters, 3, padding="same")(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(x))""",
        """def my_block(x, filters):
    x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)""",
        """def my_block(x, filters):
    y = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    y = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    return keras.layers.BatchNormalization()(y)""",
    ],
    "4.1": [
        "def next_weight(weight, slope, learning_rate): return weight + learning_rate * slope",
        "def next_weight(weight, slope, learning_rate): return weight - slope",
        "def next_weight(weight, slope, learning_rate): return -learning_rate * slope",
        "def next_weight(weight, slope, learning_rate): return weight - learning_rate * np.sign(slope)",
        "def next_weight(weight, slope, learning_rate): return weight * (1 - learning_rate * slope)",
        "next_weight = 2.95",
    ],
    "4.2": [
        "def my_loss(y_true, y_pred): return keras.ops.mean(keras.losses.binary_crossentropy(y_true, y_pred))",
        *(
            EXERCISES["4.2"][3].replace("0.7 * missed + 0.3", weights)
            for weights in ("0.5 * missed + 0.5", "0.4 * missed + 0.7")
        ),
        EXERCISES["4.2"][3].replace(" + 1e-7", ""),
        EXERCISES["4.2"][3].replace("found = ", "y_pred = keras.ops.round(y_pred)\n    found = "),
        EXERCISES["4.2"][3].replace("keras.ops.sum", "np.sum"),
        EXERCISES["4.2"][3].replace("found = ", "if keras.ops.sum(y_true) == 0:\n        return 0.0\n    found = "),
        EXERCISES["4.2"][3].replace("return 1 - ", "return "),
    ],
    "4.3": ["steps = 36", "steps = 1160 / 32", "steps = 38"],
    "4.4": [
        "kept_epoch, best_dice_epoch = 20, 20",
        "kept_epoch, best_dice_epoch = 20, 18",
        "kept_epoch, best_dice_epoch = np.argmin(loss_on_valid), np.argmax(soft_dice_on_valid)",
        "kept_epoch, best_dice_epoch = [18, 20], [18, 20]",
    ],
    "5.1": ["dice_of_squares = 1 / 3", "dice_of_squares = 0.25", "dice_of_squares = 50"],
    "5.2": [
        "def mean_dice_of_patients(patients): return helpers.dice(*(np.stack(masks) for masks in zip(*patients)))",
        "def mean_dice_of_patients(patients): return np.median([helpers.dice(*patient) for patient in patients])",
        "def mean_dice_of_patients(patients): return sum(helpers.dice(*patient) for patient in patients) / 2",
        "def mean_dice_of_patients(patients):\n    for patient in patients:\n        return helpers.dice(*patient)",
        "def mean_dice_of_patients(patients): return np.average([helpers.dice(*p) for p in patients], "
        "weights=[p[0].sum() for p in patients])",
        "def mean_dice_of_patients(patients): return np.mean([helpers.scores(helpers.confusion_counts(*p))['iou'] "
        "for p in patients])",
    ],
    "5.3": [
        "def dice_from(precision, recall): return (precision + recall) / 2\nright_precision = 0.9643",
        "def dice_from(precision, recall): return (precision * recall) ** 0.5\nright_precision = 0.9643",
        "def dice_from(precision, recall): return precision * recall / (precision + recall)\nright_precision = 0.9643",
        EXERCISES["5.3"][3].replace("0.9643", "0.9432"),
        EXERCISES["5.3"][3].replace("0.9643", "None"),
    ],
    "5.4": [
        "def can_be_true(loss, dice, accuracy): return loss >= 0 and dice <= 1 and accuracy <= 1",
        "def can_be_true(loss, dice, accuracy): return loss >= 0 and 0 <= dice <= 1 and accuracy <= 1",
        "def can_be_true(loss, dice, accuracy): return 0 <= loss <= 1 and 0 <= dice <= 1 and 0 <= accuracy <= 1",
        "def can_be_true(loss, dice, accuracy): return loss > 0 and 0 < dice <= 1 and 0 < accuracy <= 1",
        "def can_be_true(loss, dice, accuracy): return loss >= 0 or 0 <= dice <= 1 or 0 <= accuracy <= 1",
        "def can_be_true(loss, dice, accuracy): return 0 <= dice <= 1 and 0 <= accuracy <= 1",
    ],
    "6.1": ["largest_gain = 'best'", "largest_gain = 'overlap'", "largest_gain = 'report'", "largest_gain = 0.732"],
    "6.2": [
        f"def is_better(before, after): return {rule}"
        for rule in (
            "after.mean() > before.mean()",
            "after.mean() > before.max()",
            "after.min() > before.mean()",
            "after.min() >= before.max()",
            "after.max() > before.max()",
            "all(a > b for a, b in zip(sorted(after), sorted(before)))",
            "after > before",
        )
    ],
    "6.3": [
        "my_rung = {'learning_rate': helpers.RECIPES['best']['learning_rate']}",
        "my_rung = {'learning_rate': -5}",
        "my_rung = {'learning_rate': None}",
        "my_rung = {'learning_rates': 0.001}",
        "my_rung = {'planes': 2}",
        "my_rung = {'loss': 'dice'}",
        "my_rung = {'epochs': 100}",
        "my_rung = {}",
        "my_rung = 'batch_size'",
        "my_rung = {'batch_size', 8}",
    ],
    "7.1": [
        "millilitres = 40",
        "millilitres = 85625",
        "millilitres = 0.0856",
        "millilitres = 8.56",
        "millilitres = 68.5",
    ],
    "7.2": [
        "should_differ = ['dark']",
        "should_differ = ['flipped', 'noisy']",
        "should_differ = ['dark', 'flipped', 'noisy']",
        "should_differ = []",
        "should_differ = 'dark'",
    ],
    "7.3": [
        "my_affine = scan.affine",
        "my_affine = scan.affine + 20",
        "my_affine = scan.affine.copy(); my_affine[2, 3] -= 20",
        "my_affine = scan.affine.copy(); my_affine[2, 3] += 20 / 1.37",
        "my_affine = scan.affine.copy(); my_affine[2, 2] += 20",
        "my_affine = scan.affine.copy(); my_affine[3, 2] += 20",
        "my_affine = scan.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 20], [0, 0, 0, 1]])",
        "my_affine = 20",
    ],
}


@pytest.fixture(scope="session")
def untrained():
    return helpers.create_model(image_size=32)


SAMPLE = [draw_patient(0, patient, slices=12, size=64)[0] / np.float32(255) for patient in range(1, 9)]
LEARNED = describe_training(dict(enumerate(SAMPLE)), dict.fromkeys(range(8), 90.0))


def run(number, answer, small_dataset, untrained, capsys):
    """Run blank, answer and check in this process, with what the notebook has at hand there; return what it printed."""
    imports, blank, check, _, _ = EXERCISES[number]
    names = {
        "helpers": helpers,
        "description": helpers.read_json(small_dataset / "dataset.json", "01_dataset_upload"),
        "slope_of": lambda weight: np.tanh(weight - 1),
        "nothing": np.zeros((1, 8, 8, 1), "float32"),
        "whole": np.pad(np.ones((1, 2, 4, 1), "float32"), [(0, 0), (2, 4), (2, 2), (0, 0)]),
        "half": np.pad(np.ones((1, 2, 2, 1), "float32"), [(0, 0), (2, 4), (2, 4), (0, 0)]),
        "model": untrained,
        "rungs": list(helpers.LADDER),
        "scan": helpers.Scan("scan", SAMPLE[1], np.diag([1.25, 1.25, 1.37, 1]) + np.eye(4, k=3), True),
        "X": SAMPLE[1][..., None],
        "known": None,
        "learned": {**LEARNED, "spacing": None},
        "warnings": [],
        "dice": dict(zip(helpers.LADDER, np.array([0.6, 0.7, 0.8, 0.85, 0.86, 0.9])[:, None])),
        "without_twin": {"report": np.array([0.1]), "small_batches": np.array([0.7])},
    }
    for source in (imports, blank, answer, check):
        exec(source, names)
    return capsys.readouterr().out.strip()


def test_every_lesson_has_three_to_five_exercises():
    per_lesson = {path.name[1]: [number for number in EXERCISES if number[0] == path.name[1]] for path in LESSONS}
    for lesson, numbers in per_lesson.items():
        assert 3 <= len(numbers) <= 5 and numbers == [f"{lesson}.{count + 1}" for count in range(len(numbers))]
    assert set(MISTAKES) == set(EXERCISES)


@each_exercise
def test_a_blank_is_not_tried_yet(number, small_dataset, untrained, capsys):
    assert run(number, "", small_dataset, untrained, capsys) == f"Exercise {number}: not tried yet."
    assert EXERCISES[number][-1].strip() == f"Exercise {number}: not tried yet."


@each_exercise
def test_the_solution_is_right(number, small_dataset, untrained, capsys):
    assert run(number, EXERCISES[number][3], small_dataset, untrained, capsys) == f"Exercise {number}: right."


@pytest.mark.parametrize(("number", "answer"), [(number, answer) for number in RIGHT for answer in RIGHT[number]])
def test_another_right_answer_is_right(number, answer, small_dataset, untrained, capsys):
    assert run(number, answer, small_dataset, untrained, capsys) == f"Exercise {number}: right."


@pytest.mark.parametrize(
    ("number", "mistake"), [(number, mistake) for number in MISTAKES for mistake in MISTAKES[number]]
)
def test_a_typical_mistake_is_not_right_and_gets_a_hint(number, mistake, small_dataset, untrained, capsys):
    printed = run(number, mistake, small_dataset, untrained, capsys)
    assert printed.startswith(f"Exercise {number}: not right yet. ") and len(printed) > 50


@pytest.mark.parametrize("answer", ["None", "20", "'abc'", "np.eye(3)", "scan.affine + 20"])
def test_the_figure_after_the_last_exercise_is_drawn_whatever_the_answer_was(answer):
    cells = nbformat.read(LESSONS[-1], as_version=4).cells
    [source] = [cell.source for cell in cells if "resample_from_to(" in cell.source]
    scan = helpers.Scan("scan", SAMPLE[1], np.diag([1.25, 1.25, 1.37, 1]), True)
    mask = (SAMPLE[1] > 0.8).astype(np.uint8)
    names = {"np": np, "scan": scan, "in_scan": mask, "axes": ("A", "S", "R"), "mask": mask, "pictures": SAMPLE[1]}
    imports = (
        "import nibabel, helpers\nimport matplotlib.pyplot as plt\nfrom nibabel.processing import resample_from_to"
    )
    for code in (imports, "pixel = [1.25, 1.37, 1.25]", f"my_affine = {answer}", source.replace("plt.show()", "")):
        exec(code, names)
    names["plt"].close("all")


def checked(answer, is_right, capsys):
    """Return what the check of an exercise prints."""
    helpers.check_exercise("9.9", answer, is_right, "A hint.")
    return capsys.readouterr().out


def unreturned(number):
    """A function as a reader may leave it: with work done, but no return."""
    number += 1


def not_a_branch(number):
    """Returns something for 0 alone."""
    if number == 0:
        return 5


def blank(number):
    """A function as the course leaves it."""
    return None  # your code


@pytest.mark.parametrize(
    ("answer", "is_right", "printed"),
    [
        (None, bool, "not tried yet."),
        (blank, lambda function: function(1) == 2, "not tried yet."),
        (5, lambda value: value == 5, "right."),
        (0, lambda value: value == 0, "right."),
        (6, lambda value: value == 5, "not right yet. A hint."),
        (float("nan"), lambda value: abs(value - 5) < 1, "not right yet. A hint."),
        ("five", lambda value: abs(value - 5) < 1, "not right yet. A hint."),
        (np.ones(3), lambda value: value == 1 and True, "not right yet. A hint."),
        (abs, lambda function: function(-1) == 1, "right."),
        (lambda number: None, lambda function: function(0) == 1, "not tried yet."),
        (lambda number: number + 1, lambda function: function(number=1) == 2, "right."),
        (lambda number: number, lambda function: function(1) == 2, "not right yet. A hint."),
        (lambda number: "2", lambda function: function(1) - 2 == 0, "not right yet. A hint."),
        (7, lambda function: function(1) == 2, "not right yet. A hint."),
        (
            unreturned,
            lambda function: function(1) == 2,
            "not right yet. Your function returned nothing: does every way through it end with `return`? A hint.",
        ),
        (
            not_a_branch,
            lambda function: function(0) == 5 and function(1) == 6,
            "not right yet. Your function returned nothing: does every way through it end with `return`? A hint.",
        ),
        (
            lambda number: number / 0,
            lambda function: function(1) == 2,
            "not right yet. Your function stopped with ZeroDivisionError: division by zero. A hint.",
        ),
        (
            lambda: 2,
            lambda function: function(1) == 2,
            "not right yet. Your function stopped with TypeError: <lambda>() takes 0 positional arguments but 1 was "
            "given. A hint.",
        ),
    ],
)
def test_the_check_says_one_sentence_whatever_the_reader_wrote(answer, is_right, printed, capsys):
    assert checked(answer, is_right, capsys) == f"Exercise 9.9: {printed}\n"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotImplementedError(), "NotImplementedError."),
        (ValueError("no.\nAnd more"), "ValueError: no."),
        (ValueError("x" * 500), f"ValueError: {'x' * 150}."),
    ],
)
def test_of_an_error_the_first_line_is_told(error, told, capsys):
    def fails(number):
        raise error

    printed = checked(fails, lambda function: function(1), capsys)
    assert printed == f"Exercise 9.9: not right yet. Your function stopped with {told} A hint.\n"
