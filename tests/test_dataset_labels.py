"""Which values of a mask are the structure: found, assumed with a note, or asked for in one sentence."""

import io
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from course.importing import import_dataset
from course.pictures import read_picture
from course.store import pair_paths
from course.workspace import CourseError

HEIGHT, WIDTH = 48, 64
STRUCTURE = np.zeros((HEIGHT, WIDTH), bool)
LEFT = np.arange(WIDTH) < 12  # part of the structure
STRUCTURE[10:34, 8:20] = STRUCTURE[26:34, 8:40] = True


def grey(values):
    return Image.fromarray(np.asarray(values).astype(np.uint8))


class Jpeg:
    """A mask that is saved as a JPEG, whatever its file name."""

    def __init__(self, values):
        self.values = values

    def save(self, path):
        grey(self.values).save(path, "JPEG", quality=100)


def palette(*colours, transparent=None):
    """Return a function that makes a picture with this palette from labels."""

    def make(labels):
        picture = Image.frombytes("P", (WIDTH, HEIGHT), labels.astype(np.uint8).tobytes())
        picture.putpalette([channel for colour in colours for channel in colour])
        if transparent is not None:
            picture.info["transparency"] = transparent
        return picture

    return make


def drawn_on_nothing(labels):
    """Black on a transparent background: converted to grey, nothing would be visible."""
    return grey(np.dstack([np.zeros((HEIGHT, WIDTH, 3)), labels * 255]))


def in_red(labels):
    """Red with a soft edge: more reds than greys."""
    red = np.rint(ndimage.gaussian_filter(labels * 255.0, 1))
    return grey(red[..., None] * [1, 0, 0])


def red_jpeg(labels):
    return Jpeg(labels[..., None] * [255, 0, 0])


def ground_cut_away(labels):
    """A white background, made transparent, around a structure of two greys."""
    ground = np.where(labels, np.where(LEFT, 90, 200), 255)
    return grey(np.dstack([ground, ground, ground, labels * 255]))


def smoothed(labels, deviation=1.0):
    return grey(np.rint(ndimage.gaussian_filter(labels * 255.0, deviation)))


def once_a_jpeg(values, quality):
    buffer = io.BytesIO()
    grey(values).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).copy()


def jpeg(labels):
    """A mask that was once a JPEG, stored as PNG: grey ringing around its edges."""
    return once_a_jpeg(labels * 255, 70)


def labels_with_ignored(count):
    def make(labels):
        values = labels.astype(np.uint8)
        values[44, : 3 * count] = np.repeat(np.arange(count), 3)
        values[:2] = 255
        return Image.fromarray(values)

    return make


def a_ramp(labels):
    """Forty labels, each a stripe: the values in between are not blurred edges."""
    return grey(np.where(labels, 255, np.minimum(np.arange(WIDTH) * 2, 78)))


def take(folder, work_dir, make, **options):
    random = np.random.default_rng(0)
    for number in range(3):
        for kind in ("images", "masks"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        grey(random.integers(0, 255, (HEIGHT, WIDTH))).save(folder / "images" / f"p{number}_0.png")
        make(STRUCTURE).save(folder / "masks" / f"p{number}_0.png")
    description = import_dataset(folder, work_dir, progress=False, **options)
    drawn = Image.open(pair_paths(description, work_dir, "train", description["subsets"]["train"][0]["name"])[1])
    return np.asarray(drawn.convert("L")) == description["mask_values"][1], " ".join(description["notes"][:-1])


READ = {
    "a palette with a white ground": (palette((255, 255, 255), (200, 0, 0)), ""),
    "a palette of one grey twice": (palette((10, 10, 10), (30, 0, 0), (0, 15, 0)), ""),
    "a palette with a black ground": (palette((0, 0, 0), (0, 0, 255)), ""),
    "a palette of greys": (palette((0, 0, 0), (255, 255, 255)), ""),
    "a palette whose ground is transparent": (palette((9, 9, 200), (255, 0, 0), transparent=0), ""),
    "black ink on nothing": (drawn_on_nothing, ""),
    "blurred": (smoothed, "is blurred, so it has more than two values: the values above 127.5"),
    "blurred and red": (in_red, "is blurred, so it has more than two values: the values above 38"),
    "a red JPEG": (red_jpeg, "is blurred, so it has more than two values: the values above 38"),
    "a JPEG of 0 and 1": (Jpeg, "is a JPEG of the values 0 and 1, which are so close"),
    "a JPEG kept as PNG": (jpeg, "is blurred, so it has more than two values: the values above 127.5"),
}


@pytest.mark.parametrize("case", READ)
def test_the_structure_is_found_and_assumptions_are_reported(case, tmp_path):
    make, words = READ[case]
    drawn, notes = take(tmp_path / "source", tmp_path / "work", make)
    assert np.mean(drawn != STRUCTURE) < (0.01 if words else 1e-9)
    assert words in notes and bool(words) == bool(notes)


@pytest.mark.parametrize(
    "make, value",
    [
        (palette((255, 255, 255), (0, 0, 0)), 255),  # greys: the background is white
        (lambda labels: grey(np.where(labels, 0, 255)), 255),
        (palette((200, 0, 0), (255, 255, 255)), 1),
    ],
)
def test_inverted_masks_are_reported_and_can_be_inverted_back(make, value, tmp_path):
    def inverted(labels):
        return make(labels if value == 255 else ~labels)

    share = 1 - STRUCTURE.mean()
    drawn, notes = take(tmp_path / "source", tmp_path / "work", inverted)
    assert (drawn == ~STRUCTURE).all()
    told = (
        f"The masks may be inverted: the value {value} was taken as the structure, but covers {share:.0%} of the pict"
    )
    assert notes.startswith(told)
    assert notes.endswith("If the structure is the rest, give foreground=0.")
    drawn, notes = take(tmp_path / "source", tmp_path / "turned", inverted, foreground=np.int64(0))
    assert (drawn == STRUCTURE).all() and notes == ""


def test_a_mask_shrunk_to_half_counts_as_blurred_although_it_holds_few_values(tmp_path):
    rows, columns = np.mgrid[: 2 * HEIGHT, : 2 * WIDTH]
    disc = np.hypot(rows - 43, columns - 37) < 25
    of_four = disc.reshape(HEIGHT, 2, WIDTH, 2).sum(axis=(1, 3))
    drawn, notes = take(tmp_path / "source", tmp_path / "work", lambda _: grey(of_four * 255 // 4))
    assert set(of_four.ravel()) == {0, 1, 2, 3, 4} and (drawn == (of_four > 2)).all()
    assert "is blurred, so it has more than two values: the values above 127.5" in notes


@pytest.mark.parametrize("make", [jpeg, red_jpeg, smoothed])
def test_choosing_the_highest_or_lowest_value_of_blurred_masks_takes_that_half(make, tmp_path):
    make(STRUCTURE).save(tmp_path / "mask.png")
    highest = read_picture(tmp_path / "mask.png", labels=True).pixels.max()
    for value, structure, side in ((highest, STRUCTURE, "above"), (0, ~STRUCTURE, "below")):
        drawn, notes = take(tmp_path / "source", tmp_path / "work", make, foreground=value)
        assert np.mean(drawn != structure) < 0.01
        assert "is blurred, so it has more than two values: the values " + side in notes


def test_exactly_half_is_not_called_inverted(tmp_path):
    drawn, notes = take(tmp_path / "source", tmp_path / "work", lambda _: Image.fromarray(HALF))
    assert (drawn == (HALF > 0)).all() and notes == ""


@pytest.mark.parametrize("is_inverted", [False, True])
def test_the_border_distinguishes_large_structures_from_inverted_masks(is_inverted, tmp_path):
    box = np.zeros((HEIGHT, WIDTH), np.uint8)
    box[5:-5, 5:-5] = 255  # 67 %
    _, notes = take(tmp_path / "source", tmp_path / "work", lambda _: grey(255 - box if is_inverted else box))
    told = (
        "The masks may be inverted: the value 255 was taken as the structure, but covers 33% of the pictures and the "
    )
    assert notes.startswith(told) if is_inverted else notes == ""


HALF = np.zeros((HEIGHT, WIDTH), np.uint8)
HALF[: HEIGHT // 2] = 255


def jpeg_of_three_labels(labels):
    """A wall of 128 around the structure, three pixels thick: as thin as blur, but all of one value."""
    return once_a_jpeg(np.where(labels, 255, 128 * ndimage.binary_dilation(labels, iterations=3)), 95)


ASKED = {
    "a thin label around the structure, once a JPEG": (jpeg_of_three_labels, r"\d+ values \(0, .*\), but two are"),
    "17 labels, 255 for what is not scored": (labels_with_ignored(16), r"17 values \(0, 1, 2, 3, 4, 5, ..., 255\)"),
    "two labels, 255 for what is not scored": (labels_with_ignored(2), r"3 values \(0, 1, 255\)"),
    "a cup in a disc on 255": (lambda disc: grey(np.where(disc, 128 * LEFT, 255)), r"3 values \(0, 128, 255\)"),
    "stripes of many labels": (a_ramp, r"41 values \(0, 2, 4, 6, 8, 10, ..., 255\)"),
    "a structure of two greys": (ground_cut_away, r"3 values \(0, 90, 200\)"),
    "blur as wide as the structure": (lambda labels: smoothed(labels, 9), r"125 values \(0, 1, .*\), but two are"),
}


@pytest.mark.parametrize("case", ASKED)
def test_the_user_is_asked_for_unclear_labels_in_a_short_sentence(case, tmp_path):
    make, words = ASKED[case]
    with pytest.raises(CourseError, match=f"and other masks hold {words}") as caught:
        take(tmp_path / "source", tmp_path / "work", make)
    assert "foreground=[...]" in str(caught.value) and len(str(caught.value)) < 400
    assert ("255 often means" in str(caught.value)) == ("not scored" in case or "stripes" in case)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "make, hint",
    [
        (
            lambda seed: STRUCTURE * (1 if seed % 2 else 255),
            "No mask holds two of them besides 0, so they may all be one",
        ),
        (
            lambda seed: 255 * STRUCTURE[..., None] * np.eye(3)[np.arange(WIDTH) // 12 % 2],
            "Their colours are 0 (0, 0, 0), 76 (255, 0, 0), 150 (0, 255, 0)",
        ),
    ],
)
def test_the_question_says_what_the_values_may_mean(make, hint, tmp_path):
    seeds = iter(range(100))
    with pytest.raises(CourseError, match=r"hold 3 values .* Choose the structure") as caught:
        take(tmp_path / "source", tmp_path / "work", lambda _: grey(make(next(seeds))))
    assert hint in str(caught.value) and "do not score" not in str(caught.value)


TIP = np.zeros((HEIGHT, WIDTH), np.uint8)
TIP[8:11, 8:11] = 100
LARGER_TIP = np.where(np.eye(HEIGHT, WIDTH, 1) * (np.arange(WIDTH) == 12), 100, TIP).astype(np.uint8)
BLOCKS = np.zeros((HEIGHT, WIDTH), np.uint8)
BLOCKS[8:24, 16:24] = 40  # whole blocks of a JPEG, which keeps them as they are
OTHER_VALUES = r"p2_0\.png holds two values, neither above 127\.5, but other masks are blurred and reach 255: save"
EMPTY = r"All masks of (train|valid|test) are empty"  # p2 alone is in its subset


@pytest.mark.parametrize(
    "drawn, sentence",
    [
        *[(grey(STRUCTURE * 127), OTHER_VALUES), (grey(STRUCTURE * 128), None)],
        *[(grey(TIP), EMPTY), (grey(LARGER_TIP), OTHER_VALUES), (grey(BLOCKS), OTHER_VALUES), (Jpeg(BLOCKS), EMPTY)],
    ],
)
def test_masks_that_become_background_beside_blurred_ones_are_refused(drawn, sentence, tmp_path):
    made = iter([smoothed(STRUCTURE), smoothed(STRUCTURE), drawn])
    with pytest.raises(CourseError, match=sentence) if sentence else nullcontext():
        take(tmp_path / "source", tmp_path / "work", lambda _: next(made))


def test_the_chosen_label_is_used_and_the_rest_is_reported_as_background(tmp_path):
    make = labels_with_ignored(16)
    drawn, notes = take(tmp_path / "source", tmp_path / "work", make, foreground=1)
    assert (drawn == (np.asarray(make(STRUCTURE)) == 1)).all()
    background = "0, 2, 3, 4, 5, 6, ..., 255"
    assert notes == f"Of the masks' values you chose 1 as the structure. The background is {background}."


def test_fully_transparent_masks_are_empty_whatever_their_colour(tmp_path):
    """An empty mask of a program that draws in the alpha channel is white and fully transparent."""
    empty = grey(np.full((HEIGHT, WIDTH, 4), (255, 255, 255, 0)))
    made = iter([drawn_on_nothing(STRUCTURE)] * 3)
    drawn, _ = take(tmp_path / "source", tmp_path / "work", lambda labels: next(made))
    assert (drawn == STRUCTURE).all()
    for number in range(3, 6):
        grey(np.full((HEIGHT, WIDTH), 9 * number)).save(tmp_path / f"source/images/p0_{number}.png")
        empty.save(tmp_path / f"source/masks/p0_{number}.png")
    description = import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    [subset] = [name for name, pairs in description["subsets"].items() if pairs[0]["patient"] == "p0"]
    drawn = np.asarray(Image.open(pair_paths(description, tmp_path / "work", subset, "p0_3")[1]).convert("L"))
    assert not drawn.any()
