"""A scan is compared with the training patients: what is alike passes, what differs is reported."""

import numpy as np
import pytest

import helpers
from course import trust
from course.sample import draw_patient


def pictures(patient, seed=0):
    """A patient of the sample as the network gets it: (slices, 64, 64), 0 to 1."""
    slices, _ = draw_patient(seed, patient, slices=12, size=64)
    return slices / np.float32(255)


@pytest.fixture(scope="module")
def learned():
    """The description of a training on eight patients of the sample."""
    volumes = {f"p{number}": pictures(number) for number in range(1, 9)}
    described = trust.describe_training(volumes.items(), {f"p{number}": 80.0 + 5 * number for number in range(1, 9)})
    return {**described, "spacing": [1.25, 1.25, 6.0], "spacing_range": [[1.25, 1.25, 6.0]] * 2}


def test_the_typical_picture_is_the_mean_of_the_middle_half():
    volume = np.zeros((8, 64, 64), np.float32)
    volume[2:6, :32] = 1  # the upper half of the middle four slices
    volume[[0, 1, 6, 7], :, :32] = 9
    typical = trust.typical_picture(volume).reshape(trust.SIDE, trust.SIDE)
    assert np.allclose(typical, np.repeat([[1], [-1]], trust.SIDE // 2, axis=0) / trust.SIDE)
    assert np.linalg.norm(typical) == pytest.approx(1)
    assert not trust.typical_picture(np.full((4, 64, 64), 0.3, np.float32)).any()


def test_likeness_is_the_correlation_with_the_mean_of_the_others():
    rng = np.random.default_rng(0)
    volumes = [rng.random((4, 32, 32)).astype(np.float32) for _ in range(3)]
    one, *others = (trust.typical_picture(volume) for volume in volumes)
    expected = np.corrcoef(one, np.mean(others, axis=0))[0, 1]
    assert trust.likeness(one, others) == pytest.approx(expected, abs=1e-5)
    assert trust.likeness(one, [one]) == pytest.approx(1)


def test_the_training_patients_are_described(learned):
    assert learned["patients"] == 8 and learned["millilitres"] == [85, 120]
    brightness = [float(np.median(volume[volume > 0])) for volume in map(pictures, range(1, 9))]
    assert learned["brightness"] == [min(brightness), max(brightness)]
    typical = [trust.typical_picture(pictures(number)) for number in range(1, 9)]
    alike = [trust.likeness(typical[n], typical[:n] + typical[n + 1 :]) for n in range(8)]
    assert learned["least_likeness"] == pytest.approx(min(alike)) and 0.3 < min(alike) < 1


def test_a_black_patient_has_no_brightness():
    volumes = {"p1": pictures(1), "p2": 0 * pictures(2), "p3": pictures(3)}
    described = trust.describe_training(volumes.items(), dict.fromkeys(volumes, 80.0))
    medians = [float(np.median(volumes[name][volumes[name] > 0])) for name in ("p1", "p3")]
    assert described["brightness"] == [min(medians), max(medians)]


def test_the_training_patients_are_measured_on_the_train_arrays(work_dir):
    description = helpers.read_json(work_dir / "dataset.json", "01_dataset_upload")
    helpers.prepare_arrays(description, work_dir, 32, progress=False)
    learned = trust.learned_from(work_dir)
    pairs = description["subsets"]["train"]
    assert learned["axes"] == ["I", "A", "R"] and learned["spacing"] == description["spacing"]
    assert learned["size"] == pairs[0]["size"] and learned["patients"] == len({pair["patient"] for pair in pairs})
    (height, width), (row, column, between) = pairs[0]["size"], description["spacing"]
    voxel = (height * row / 32) * (width * column / 32) * between / 1000  # a field of view in mm has 32 x 32 pixels
    _, y = helpers.load_arrays(work_dir, "train")
    of_patient = np.array([pair["patient"] for pair in pairs])
    millilitres = {patient: voxel * y[of_patient == patient].sum() for patient in of_patient}
    assert learned["millilitres"] == pytest.approx([min(millilitres.values()), max(millilitres.values())])
    assert learned["notes"] == []  # all are of one size
    first, second, third = dict.fromkeys(of_patient)
    row_of = {first: 4 * row, second: row, third: 2 * row}  # each patient has its own pixel size
    geometry = {patient: {"spacing": [own, column, between], "axes": None} for patient, own in row_of.items()}
    helpers.write_json(work_dir / "dataset.json", {**description, "geometry": {**description["geometry"], **geometry}})
    several = trust.learned_from(work_dir)
    known = sorted(millilitres[patient] * own / row for patient, own in row_of.items())
    assert several["millilitres"] == pytest.approx([known[0], known[-1]])
    assert several["spacing"] == [2 * row, column, between] and several["axes"] is None  # of the median patient
    assert several["spacing_range"] == [[row, column, between], [4 * row, column, between]]
    [sentence] = several["notes"]
    small, median, large = (f"{factor * height * row:.0f} x {width * column:.0f} mm" for factor in (1, 2, 4))
    assert f"show {small[:-3]} to {large}, but only the middle {median} of a scan are used, as for {third}." in sentence
    geometry[third] = geometry[first] = {"spacing": None, "axes": None}  # then one field of view is known
    helpers.write_json(work_dir / "dataset.json", {**description, "geometry": {**description["geometry"], **geometry}})
    alone = trust.learned_from(work_dir)
    assert alone["notes"] == [] and alone["spacing"] == [row, column, between]


def test_a_patient_like_those_of_the_training_passes(learned):
    told = [trust.differences(pictures(number, seed=1), [1.25, 1.25, 6.0], learned) for number in range(1, 7)]
    assert sum(map(bool, told)) <= 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda volume: volume[:, ::-1], "upside down"),
        (lambda volume: volume[:, :, ::-1], "mirrored"),
        (lambda volume: volume[:, ::-1, ::-1], "turned by 180 degrees"),
        (lambda volume: np.rot90(volume, axes=(1, 2)), "turned by 270 degrees"),
        (lambda volume: np.rot90(volume, -1, axes=(1, 2)), "turned by 90 degrees"),
        (lambda volume: volume / 4, "median brightness"),
        (lambda volume: volume * 0, "completely black"),
        (lambda volume: np.random.default_rng(0).random(volume.shape), "does not look like"),
    ],
)
def test_what_differs_is_reported(learned, change, sentence):
    assert sentence in " ".join(trust.differences(change(pictures(2)), [1.25, 1.25, 6.0], learned))


@pytest.mark.parametrize(
    ("spacing", "named"), [([2, 1.25, 6], "row"), ([1.25, 0.5, 6], "column"), ([1.25, 1.25, 1], "slice")]
)
def test_another_spacing_is_reported_with_its_axis(learned, spacing, named):
    [sentence] = trust.differences(pictures(2), spacing, learned)
    assert f"Its {named} spacing" in sentence
    assert not trust.differences(pictures(2), None, learned)
    several = {**learned, "spacing_range": [[1.25, 1.25, 1.0], [2.0, 1.25, 6.0]]}
    assert not trust.differences(pictures(2), [2.9, 1.25, 6], several)
    assert trust.differences(pictures(2), [1.25, 2, 6], several)
    [sentence] = trust.differences(pictures(2), [3.1, 1.25, 6], several)
    assert "row spacing is 3.10 mm; in training it was 1.25 to 2.00 mm." in sentence


def test_a_volume_far_outside_those_of_the_training_is_reported(learned):
    for inside in (85 / 1.5 + 0.1, 120 * 1.5 - 0.1):
        assert not trust.volume_difference(inside, learned)
    for outside in (85 / 1.5 - 0.1, 120 * 1.5 + 0.1):
        assert f"{outside:.1f} ml" in trust.volume_difference(outside, learned)[0]


def test_the_field_of_view_matches_the_training_in_mm():
    """In a scan with pixels half as large, twice as many of them cover the same field of view."""
    learned = {"spacing": [2.0, 2.0, 5.0], "size": [40, 48]}
    rng = np.random.default_rng(0)
    scan = np.kron(rng.integers(0, 255, (3, 40, 48)), np.ones((1, 2, 2))).astype(np.uint8)
    wide = np.pad(scan, [(0, 0), (10, 10), (6, 6)], constant_values=77)  # more is seen than in training
    X, field = helpers.scan_input(wide, [1.0, 1.0, 5.0], learned, 16)
    assert field == [80, 96] and X.shape == (3, 16, 16, 1) and X.dtype == np.float32
    expected = np.stack([helpers.resize_image(picture, 16) for picture in scan]) / np.float32(255)
    assert np.array_equal(X[..., 0], expected)
    unknown, field = helpers.scan_input(wide, None, learned, 16)
    assert field == [100, 108] and unknown.shape == X.shape


@pytest.mark.parametrize(
    ("spacing", "axis"), [([0.002, 0.002, 0.005], "row"), ([2, 2000, 5], "column"), ([2, 2, 5000], "slice")]
)
def test_a_spacing_in_another_unit_is_refused(spacing, axis):
    learned = {"spacing": [2.0, 2.0, 5.0], "size": [40, 48]}
    with pytest.raises(helpers.CourseError, match=f"The {axis} spacing of the scan is .* so one of the two is wrong"):
        helpers.scan_input(np.zeros((3, 40, 48), np.uint8), spacing, learned, 16)
