"""The audit finds what is wrong with a dataset, and nothing in a clean one."""

import io
import time
import tracemalloc
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from outlines import color_of, extent
from PIL import Image
from scipy import ndimage

from course import audit
from course.audit import audit_rows, plot_findings, plot_twins
from course.figures import PREDICTION_COLOR, TRUTH_COLOR, plain_text
from course.importing import import_dataset
from course.workspace import CourseError

matplotlib.use("Agg")

SIZE = 64
PLACES = {"p1": "train", "p2": "train", "p3": "valid", "p4": "test"}
SLICES = 4


def scan(seed):
    """A volume of smooth shapes, different for each seed; uint8 (SLICES, SIZE, SIZE). Neighbouring slices are alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (11, 11)), rng.uniform(0, 255, (11, 11))
    smooth = [np.asarray(Image.fromarray(values.astype(np.float32)).resize((SIZE, SIZE), 3)) for values in coarse]
    volume = np.stack([smooth[0] + index * 0.05 * (smooth[1] - smooth[0]) for index in range(SLICES)])
    window = np.minimum(*np.mgrid[:SIZE, :SIZE])
    window = np.minimum(window, window[::-1, ::-1]) / SIZE * 2  # dark at the border, as scans are
    return np.clip(volume * np.clip(window, 0, 1), 0, 255).astype(np.uint8)


def disc(row=30):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (((rows - row) ** 2 + (columns - 30) ** 2 < 80) * 255).astype(np.uint8)


@pytest.fixture()
def scans():
    """The images of a clean dataset: {patient: volume}."""
    return {patient: scan(number) for number, patient in enumerate(PLACES)}


@pytest.fixture()
def masks():
    return {patient: np.stack([disc()] * SLICES) for patient in PLACES}


@pytest.fixture()
def take(tmp_path):
    """A function that writes images and masks and returns the description of their import."""

    def function(scans, masks, places=PLACES):
        for patient, subset in places.items():
            for kind, volume in (("images", scans[patient]), ("masks", masks[patient])):
                (tmp_path / "source" / subset / kind).mkdir(parents=True, exist_ok=True)
                for index, pixels in enumerate(volume):
                    Image.fromarray(pixels).save(tmp_path / "source" / subset / kind / f"{patient}_{index:03d}.png")
        return import_dataset(tmp_path / "source", tmp_path / "data", progress=False)

    return function


def findings(description):
    return {finding["sentence"]: finding["count"] for finding in description["audit"]["findings"]}


def test_a_clean_dataset_raises_no_doubt(take, scans, masks):
    description = take(scans, masks)
    assert findings(description) == {}
    assert description["twins"] == []
    with pytest.raises(CourseError, match="nothing to show"):
        plot_findings(description, "data")
    with pytest.raises(CourseError, match="found 0 scans under two names"):
        plot_twins(description, "data")


def test_the_table_describes_the_dataset(take, scans, masks):
    masks["p3"][:2] = 0
    description = take(scans, masks)
    row = description["audit"]["subsets"]["valid"]
    assert row["patients"] == ["p3"] and row["pairs"] == SLICES
    assert row["sizes"] == [f"{SIZE}x{SIZE}x1"]
    assert row["intensity"] == [scans["p3"].min(), scans["p3"].max()]
    assert row["empty_share"] == 0.5
    assert row["foreground_share"] == pytest.approx((masks["p3"] > 0).mean(), abs=1e-6)


def test_one_scan_under_two_names_is_found_by_content_with_the_dice_of_its_annotations(take, scans, masks, tmp_path):
    scans["p4"] = scans["p1"]
    masks["p4"] = np.stack([disc(33)] * SLICES)
    masks["p1"][0, 30:32] = 0  # so that p1_001 has the largest mask
    description = take(scans, masks)
    one, other = masks["p1"] > 0, masks["p4"] > 0
    dice = 2 * (one & other).sum() / (one.sum() + other.sum())
    [twin] = description["twins"]
    assert twin["patients"] == [["train", "p1"], ["test", "p4"]]
    assert (twin["slices"], twin["dice"]) == (SLICES, round(dice, 4))
    [(sentence, count)] = findings(description).items()
    assert sentence.startswith("p1 (train) and p4 (test) are one scan under two names") and f"{dice:.3f}" in sentence
    assert count == 2 * SLICES
    figure = plot_twins(description, tmp_path / "data")
    assert [panel.get_title() for panel in figure.axes] == ["p1_001, train", "p4_001, test", "both outlines"]
    told = f"p1 and p4 are one scan: {SLICES} identical slices, Dice {dice:.3f} between the annotations"
    assert figure.get_suptitle() == told
    outlines = [[(color_of(c), extent(c)[3]) for c in panel.collections] for panel in figure.axes]
    first, second = (TRUTH_COLOR, 38.5), (PREDICTION_COLOR, 41.5)  # discs of radius 8 around rows 30 and 33
    assert outlines == [[first], [second], [first, second]]
    assert all(outline.get_linewidth() > 0 for panel in figure.axes for outline in panel.collections)
    figure = plot_findings(description, tmp_path / "data")
    [part] = figure.subfigs
    assert part.get_suptitle() == f"{2 * SLICES}: {sentence}"
    titles = [f"{place}_{index:03d}" for index in (1, 2, 3) for place in ("train\np1", "test\np4")]
    assert [panel.get_title() for panel in part.axes] == titles
    for panel, patient in zip(part.axes, ("p1", "p4")):
        assert np.array_equal(panel.images[0].get_array(), scans[patient][1])
        assert [extent(outline)[3] for outline in panel.collections] == [38.5 if patient == "p1" else 41.5]


def test_a_copy_of_a_scan_with_its_slices_reordered_is_found(take, scans, masks):
    scans["p3"] = scans["p2"][::-1]
    [twin] = take(scans, masks)["twins"]
    assert twin["patients"] == [["train", "p2"], ["valid", "p3"]] and twin["slices"] == SLICES


DOUBTS = {  # a sentence: how often it is counted, and the change that causes it
    "image that another patient also has": (1, lambda scans, masks: np.copyto(scans["p3"][1], scans["p1"][1])),
    "image that its patient has twice": (1, lambda scans, masks: np.copyto(scans["p2"][2], scans["p2"][0])),
    "image that is the same picture as its mask": (1, lambda scans, masks: np.copyto(scans["p2"][0], masks["p2"][0])),
    "image of a single grey value": (12, lambda scans, masks: [volume[:3].fill(0) for volume in scans.values()]),
    "slice of a patient whose masks are all empty": (SLICES, lambda scans, masks: masks["p2"].fill(0)),
}


@pytest.mark.parametrize("sentence", DOUBTS)
def test_a_doubt_is_counted_and_makes_no_twins(sentence, take, scans, masks):
    count, change = DOUBTS[sentence]
    change(scans, masks)
    description = take(scans, masks)
    assert findings(description) == {sentence: count} and description["twins"] == []


def as_jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))


COPIES = {
    "compressed": as_jpeg,
    "noisy": lambda pixels: np.clip(pixels + np.random.default_rng(0).normal(0, 5, pixels.shape), 0, 255),
    "brighter": lambda pixels: np.clip(pixels * 1.2 + 3, 0, 255),
    "moved": lambda pixels: np.roll(pixels, 1, axis=0),
}
TURNS = {
    "mirrored": lambda pixels: as_jpeg(pixels[:, ::-1]),
    "upside down": lambda pixels: as_jpeg(pixels[::-1]),
    "turned by a quarter": lambda pixels: as_jpeg(np.rot90(pixels)),
    "turned by half": lambda pixels: as_jpeg(pixels[::-1, ::-1]),
    "turned by three quarters": lambda pixels: as_jpeg(np.rot90(pixels, 3)),
    "transposed": lambda pixels: as_jpeg(pixels.T),
    "transposed the other way": lambda pixels: as_jpeg(pixels[::-1, ::-1].T),
}


@pytest.mark.parametrize("change", [*COPIES, *TURNS])
def test_changed_copies_are_found_across_patients(change, take, scans, masks):
    scans["p3"] = np.stack([{**COPIES, **TURNS}[change](pixels).astype(np.uint8) for pixels in scans["p2"]])
    description = take(scans, masks)
    how = "copies" if change in COPIES else "turned or mirrored copies"
    assert description["twins"] == []
    assert findings(description) == {f"p2 (train) and p3 (valid) look like {how} of one scan": SLICES}


def in_frame(pixels, kind):
    rows, columns = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    outside = np.hypot(rows, columns) > 26 if kind == "round" else np.maximum(abs(rows), abs(columns)) > 24
    if kind == "touching":
        return np.where(np.hypot(rows, columns) > 31, 0, pixels // 8 + 150).astype(np.uint8)
    return np.where(outside, 255 if kind == "white" else 0, pixels // 2 + 100).astype(np.uint8)


@pytest.mark.parametrize("kind", ["round", "square", "white", "touching"])
def test_a_shared_frame_does_not_make_copies_but_a_copy_inside_it_is_found(kind, take, masks):
    places = {f"p{number}": ("train", "valid", "test")[number % 3] for number in range(9)}
    scans = {patient: np.stack([in_frame(pixels, kind) for pixels in scan(n)]) for n, patient in enumerate(places)}
    masks = dict.fromkeys(places, masks["p1"])
    assert findings(take(scans, masks, places)) == {}
    scans["p5"] = np.stack([as_jpeg(pixels) for pixels in scans["p4"]])
    assert findings(take(scans, masks, places)) == {"p4 (valid) and p5 (test) look like copies of one scan": SLICES}


def test_an_even_ground_that_only_begins_at_the_border_is_not_a_frame():
    """A slope from the border's grey to a bright middle, in steps that are even, belongs to the picture."""
    rows, columns = np.mgrid[:32, :32] - 15.5
    slope = 200 - 9 * np.maximum(abs(rows), abs(columns))
    frames = audit._frames(np.stack([slope, np.where(slope < 100, 60, 200)]).astype(np.float32))
    ring = np.ones((32, 32), bool)
    ring[4:-4, 4:-4] = False
    assert frames.shape == (2, 32, 32) and not (frames[0] & ~ring).any()
    assert np.array_equal(frames[1], np.maximum(abs(rows), abs(columns)) > 9.5)


def test_among_too_many_pictures_the_same_positions_in_each_patient_are_compared(take, scans, masks, monkeypatch):
    monkeypatch.setattr(audit, "MAX_COMPARED", 2 * len(PLACES))
    scans["p3"] = np.stack([COPIES["brighter"](pixels).astype(np.uint8) for pixels in scans["p2"]])
    description = take(scans, masks)
    assert findings(description) == {"p2 (train) and p3 (valid) look like copies of one scan": 2}
    assert description["notes"] == [
        "The search for near-duplicates compared 8 of the 16 pictures, the same slices of each patient. "
        "The search for identical pictures compared all."
    ]


def pair_of(patient, thumbnail):
    """Stands in for a pair, without files."""
    return SimpleNamespace(patient=patient, name=f"{patient}_0", facts=SimpleNamespace(thumbnail=thumbnail))


def test_patients_are_chosen_evenly_if_there_are_too_many_to_compare(monkeypatch):
    monkeypatch.setattr(audit, "MAX_COMPARED", 5)
    assert [pair.patient for pair in audit._compared([pair_of(number, None) for number in range(9)])] == [0, 2, 4, 6, 8]


def test_a_uniform_region_inside_a_picture_is_not_a_frame():
    """Pictures that differ only there are not copies, although their surroundings are equal."""
    pictures = [np.random.default_rng(0).integers(100, 160, (32, 32)).astype(np.uint8) for _ in range(2)]
    for picture, grey in zip(pictures, (20, 240)):
        picture[8:24, 8:24] = grey
    assert audit.near_copies([pair_of("p", pictures[0]), pair_of("q", pictures[1])], set()) == {}


def test_a_pattern_common_to_all_pictures_does_not_make_copies():
    rng = np.random.default_rng(0)
    common, *own = rng.normal(0, 1, (7, 32, 32))
    drawn = [np.clip(128 + 30 * common + 10 * noise, 0, 255).astype(np.uint8) for noise in own]  # correlation 0.9
    pairs = [pair_of(f"p{number}", pixels) for number, pixels in enumerate(drawn)]
    assert audit.near_copies(pairs, set()) == {}
    pairs[5].facts.thumbnail = np.clip(drawn[2] + rng.normal(0, 1, (32, 32)), 0, 255).astype(np.uint8)
    assert list(audit.near_copies(pairs, set())) == [("p2", "p5")]


@pytest.mark.parametrize("mirrored", [2, 3])
def test_copies_are_called_mirrored_if_most_of_them_are(mirrored):
    pairs = [pair_of(patient, scan(number)[0, ::2, ::2]) for patient in "pq" for number in range(5)]
    for number, pair in enumerate(pairs):
        pair.name = f"{pair.patient}_{number % 5}"
        if number >= 10 - mirrored:
            pair.facts.thumbnail = pair.facts.thumbnail[:, ::-1]
    assert audit.near_copies(pairs, set()) == {("p", "q"): (pairs[:5], mirrored == 3)}
    assert audit.near_copies(pairs, {frozenset("pq")}) == {}


@pytest.mark.slow
def test_ten_thousand_pictures_are_compared_in_seconds_and_little_memory():
    random = np.random.default_rng(0)
    pairs = [pair_of(f"p{number}", random.integers(0, 255, (32, 32)).astype(np.uint8)) for number in range(10_000)]
    pairs[7_000].facts.thumbnail = pairs[3].facts.thumbnail[::-1]
    tracemalloc.start()
    began = time.process_time()
    assert list(audit.near_copies(pairs, set())) == [("p3", "p7000")]
    assert time.process_time() - began < 60
    assert tracemalloc.get_traced_memory()[1] < 2**30
    tracemalloc.stop()


def test_identical_pictures_give_a_number_of_pairs_linear_in_their_number():
    pairs = [pair_of(f"p{number:04d}", scan(0)[0, ::2, ::2]) for number in range(600)]
    assert len(audit.near_copies(pairs, set())) < 30 * len(pairs)


def test_dollar_signs_in_titles_are_drawn_literally(take, scans, masks, tmp_path):
    places = {"a$^$": "train", "b$x_$": "train", "c": "valid", "d": "test"}
    scans = dict(zip(places, scans.values()))
    scans["b$x_$"] = scans["a$^$"]
    description = take(scans, dict(zip(places, masks.values())), places)
    for figure in (plot_twins(description, tmp_path / "data"), plot_findings(description, tmp_path / "data")):
        figure.canvas.draw()  # once raised ParseException
    assert plain_text("a$^$_0") == r"a\$^\$_0"
    assert plot_twins(description, tmp_path / "data").axes[0].get_title() == r"a\$^\$_000, train"


def test_almost_empty_pictures_are_not_near_duplicates(take, scans, masks):
    for number, patient in enumerate(PLACES):
        scans[patient][:] = 0
        scans[patient][:, 20, 20] = 40
        scans[patient][range(SLICES), 50, range(SLICES)] = 1 + number
    assert findings(take(scans, masks)) == {}


def test_many_near_duplicates_are_summarised(take, masks):
    places = {f"p{number:02d}": ("train", "valid", "test")[number % 3] for number in range(8)}
    scans = {patient: np.clip(scan(0) + number, 0, 255).astype(np.uint8) for number, patient in enumerate(places)}
    found = findings(take(scans, dict.fromkeys(places, masks["p1"]), places))
    assert len(found) == 11
    assert found["more that look like copies"] == (8 * 7 // 2 - 10) * SLICES


def test_an_inverted_image_is_found(take, scans, masks):
    scans["p2"][2] = 255 - scans["p2"][2]
    noise = np.random.default_rng(0).integers(0, 200, (SIZE // 2, SIZE // 2)).repeat(2, axis=0).repeat(2, axis=1)
    scans["p3"][1] = (noise + (255 - scans["p3"][1]) / 5).astype(np.uint8)  # somewhat like an inverted one
    assert findings(take(scans, masks)) == {"image that looks inverted compared with the others": 1}


def test_masks_at_the_border_and_masks_that_cover_most_are_found(take, scans, masks):
    masks["p2"][0][10:12, 0] = 255
    masks["p3"][1][2:-2, 2:-2] = 255
    description = take(scans, masks)
    assert findings(description) == {"mask that touches the border": 1, "mask that covers over half the picture": 1}
    assert audit_rows(description)[0] == (1, "mask that touches the border", "train/p2_000")


@pytest.mark.parametrize("thickness", [1, 2, 3])
def test_masks_that_are_outlines_are_found(thickness, take, scans, masks):
    masks["p2"] *= ~ndimage.binary_erosion(masks["p2"] > 0, np.ones((1, 3, 3)), thickness)
    found = {"mask that is a thin line around an area, not filled in": SLICES}
    assert findings(take(scans, masks)) == (found if thickness < 3 else {})  # a thicker outline may be a ring


@pytest.mark.slow
def test_the_real_data_hold_one_scan_under_two_names_and_no_other_doubt(heart, tmp_path):
    description = import_dataset(heart, tmp_path, progress=False)
    [twin] = description["twins"]
    assert twin["patients"] == [["train", "la_005"], ["valid", "la_026"]]
    assert (twin["slices"], twin["dice"]) == (120, pytest.approx(0.927, abs=5e-4))
    assert list(findings(description).values()) == [240]
    table = description["audit"]["subsets"]
    counts = {subset: (row["pairs"], len(row["patients"])) for subset, row in table.items()}
    assert counts == {"train": (950, 8), "valid": (569, 5), "test": (210, 2)}
    assert all(row["sizes"] == ["320x320x3"] for row in table.values())
    assert table["valid"]["empty_share"] == pytest.approx(0.43, abs=0.005)
    figure = plot_twins(description, tmp_path)
    assert "la_005 and la_026 are one scan: 120 identical slices, Dice 0.927" in figure.get_suptitle()
