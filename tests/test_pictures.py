"""How a picture and its mask are read: palettes, transparency, EXIF, deep greys, outliers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import helpers
from course.geometry import picture_geometry
from course.greys import GreyRange, faint_sentences, grey_windows, to_greys
from course.importing import import_dataset
from course.pictures import Pair, check_palettes, measure_pair, read_pair, read_picture
from course.store import pair_paths
from course.workspace import CourseError

HEIGHT, WIDTH = 12, 20
MASK = np.zeros((HEIGHT, WIDTH), np.uint8)
MASK[2:9, 3:6] = 1
MASK[7:9, 3:12] = 1  # an L: every flip or rotation changes it
IMAGE = np.random.default_rng(0).integers(30, 200, (HEIGHT, WIDTH)).astype(np.uint8)


def save(path, pixels, palette=None, **options):
    """Save an array, or a picture with a palette, and return the path."""
    drawn = Image.fromarray(pixels)
    if palette is not None:
        drawn = Image.frombytes("P", pixels.shape[::-1], pixels.tobytes())
        drawn.putpalette(palette)
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(path, **options)
    return path


def labels_of(path):
    return read_picture(path, labels=True)


# --- what the label is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.bmp", "a.tif"])
@pytest.mark.parametrize("colours", [[255, 255, 255, 200, 0, 0], [0, 0, 0, 0, 0, 130], [9, 200, 9, 0, 0, 0]])
def test_the_index_in_a_palette_of_colours_is_the_label(tmp_path, name, colours):
    assert np.array_equal(labels_of(save(tmp_path / name, MASK, colours)).pixels, MASK)


def test_a_mask_that_holds_only_the_background_of_a_palette_is_empty(tmp_path):
    found = labels_of(save(tmp_path / "a.png", MASK * 0, [255, 255, 255, 200, 0, 0]))
    assert (found.pixels == 0).all() and not found.plain and found.palette == {(255, 255, 255, 255): 0}


@pytest.mark.parametrize("greys", [(0, 255), (255, 0), (40, 90)])
def test_a_palette_of_greys_is_a_grey_picture_in_any_order(tmp_path, greys):
    found = labels_of(save(tmp_path / "a.png", MASK, [grey for grey in greys for _ in range(3)]))
    assert np.array_equal(found.pixels, np.where(MASK, greys[1], greys[0]))
    assert found.palette == {(grey, grey, grey, 255): grey for grey in greys}


def test_black_cannot_be_background_in_one_mask_and_structure_in_another(tmp_path):
    one, other = save(tmp_path / "a.png", MASK, [200, 0, 0, 0, 0, 0]), save(tmp_path / "b.png", MASK * 0, [0, 0, 0])
    with pytest.raises(CourseError, match=r"colour \(0, 0, 0, 255\) is label 1 in .*a.png and 0 in .*b.png"):
        check_palettes([(path, labels_of(path).palette) for path in (one, other)])


def test_a_palette_whose_entries_differ_only_in_transparency_gives_the_label(tmp_path):
    path = save(tmp_path / "a.png", MASK, [0, 0, 0, 0, 0, 0], transparency=bytes([0, 255]))
    assert np.array_equal(labels_of(path).pixels, MASK)


def rgba(colour, background, alpha=(0, 255)):
    """A picture of a colour on a background, with the transparency of both."""
    pixels = np.empty((HEIGHT, WIDTH, 4), np.uint8)
    pixels[..., :3] = np.where(MASK[..., None], colour, background)
    pixels[..., 3] = np.where(MASK, alpha[1], alpha[0])
    return pixels


@pytest.mark.parametrize(
    "pixels, expected",
    [
        (rgba((0, 0, 0), (0, 0, 0)), (0, 255)),  # alpha alone
        (rgba((0, 0, 0), (255, 255, 255)), (0, 255)),  # black on white that is transparent
        (rgba((0, 0, 0), (0, 0, 0), (255, 0)), (255, 0)),  # a hole
        (rgba((255, 255, 255), (0, 0, 0), (255, 255)), (0, 255)),  # opaque: the colour
        (rgba((255, 255, 255), (0, 0, 0), (0, 0)), (0, 255)),  # transparent all over: the colour
        (rgba((7, 7, 7), (7, 7, 7), (0, 0)), (0, 0)),  # nothing
        (rgba((7, 7, 7), (7, 7, 7), (90, 90)), (7, 7)),
    ],
)
def test_transparency_is_the_label_if_it_distinguishes_the_pixels(tmp_path, pixels, expected):
    found = labels_of(save(tmp_path / "a.png", pixels))
    assert np.array_equal(found.pixels, np.where(MASK, expected[1], expected[0]))
    assert found.plain == (pixels[..., 3].min() == pixels[..., 3].max() and expected != (0, 0))


def test_colours_on_a_transparent_ground_are_labels_and_the_ground_is_background(tmp_path):
    pixels = rgba((200, 200, 200), (90, 90, 90))
    pixels[0, 0] = 50, 50, 50, 255
    expected = MASK * 200
    expected[0, 0] = 50
    assert np.array_equal(labels_of(save(tmp_path / "a.png", pixels)).pixels, expected)


def test_an_image_with_a_palette_is_its_greys_not_its_indices(tmp_path):
    found = read_picture(save(tmp_path / "a.gif", MASK, [255, 255, 255, 20, 20, 20]))
    assert np.array_equal(found.pixels, 255 - MASK * 235)


def test_a_phones_photo_with_an_embedded_preview_is_read(tmp_path):
    more = [Image.fromarray(IMAGE // 2)]
    path = save(tmp_path / "a.jpg", IMAGE, format="MPO", save_all=True, append_images=more, quality=100)
    found = read_picture(path)
    assert np.abs(found.pixels - IMAGE.astype(int)).max() < 12 and found.lossy and not found.plain


# --- orientation ---------------------------------------------------------------------------------------

# Where the row and the column of the upright picture are found in the stored one, by the table of the EXIF standard:
# orientation -> (stored row, stored column) of upright (row, column), with the last row and column of the stored one.
STORED = {
    1: lambda row, column, rows, columns: (row, column),
    2: lambda row, column, rows, columns: (row, columns - column),
    3: lambda row, column, rows, columns: (rows - row, columns - column),
    4: lambda row, column, rows, columns: (rows - row, column),
    5: lambda row, column, rows, columns: (column, row),
    6: lambda row, column, rows, columns: (rows - column, row),
    7: lambda row, column, rows, columns: (rows - column, columns - row),
    8: lambda row, column, rows, columns: (column, columns - row),
}


def upright(stored, orientation):
    rows, columns = np.indices(stored.shape if orientation < 5 else stored.shape[::-1])
    return stored[STORED[orientation](rows, columns, stored.shape[0] - 1, stored.shape[1] - 1)]


def exif(orientation):
    found = Image.Exif()
    found[0x0112] = orientation
    return {"exif": found}


FILES = {"png": {}, "tif": {}, "compressed.tif": {"compression": "tiff_lzw"}}


@pytest.mark.parametrize("ending", FILES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_image_and_mask_are_both_turned_if_both_have_an_orientation(tmp_path, ending, orientation):
    image = save(tmp_path / f"i.{ending}", IMAGE, **exif(orientation), **FILES[ending])
    mask = save(tmp_path / f"m.{ending}", MASK, **exif(orientation), **FILES[ending])
    found, drawn, told = read_pair(image, mask)
    assert np.array_equal(found.pixels, upright(IMAGE, orientation)) and told == ()
    assert np.array_equal(drawn.pixels, upright(MASK, orientation))
    assert found.plain == (orientation == 1 and ending == "png")


@pytest.mark.parametrize("ending", FILES)
@pytest.mark.parametrize("alone", ["image", "mask"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_if_only_one_of_a_pair_is_turned_it_fits_the_other_or_is_reported(tmp_path, ending, alone, orientation):
    """A half turn fits either way, so it is reported. A quarter turn fits in one way only."""
    turned = {**exif(orientation), **FILES[ending]}
    image = save(tmp_path / f"i.{ending}", IMAGE, **(turned if alone == "image" else {}))
    mask = save(tmp_path / f"m.{ending}", MASK, **(turned if alone == "mask" else {}))
    found, drawn, told = read_pair(image, mask)
    is_half = orientation < 5
    assert np.array_equal(found.pixels, upright(IMAGE, orientation) if is_half and alone == "image" else IMAGE)
    assert np.array_equal(drawn.pixels, upright(MASK, orientation) if is_half and alone == "mask" else MASK)
    assert told == (("turned_alone",) if is_half else ("stored",))


def test_a_quarter_turn_of_the_image_that_makes_it_fit_raises_no_doubt(tmp_path):
    image = save(tmp_path / "i.png", np.ascontiguousarray(IMAGE.T), **exif(6))
    found, _, told = read_pair(image, save(tmp_path / "m.png", MASK))
    assert np.array_equal(found.pixels, upright(IMAGE.T, 6)) and told == ()


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path, orientation):
    image = save(tmp_path / "i.png", IMAGE, **exif(orientation))
    found, _, told = read_pair(image, save(tmp_path / "m.png", MASK))
    assert np.array_equal(found.pixels, IMAGE) and told == ()


# --- greys ----------------------------------------------------------------------------------------------


DEEP = IMAGE.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("stored", "white", "values"), [(65535 - DEEP, 0, DEEP), (DEEP, 1, DEEP), (-IMAGE.astype(np.float32), 0, IMAGE)]
)
def test_pictures_that_store_white_as_zero_are_inverted(tmp_path, stored, white, values):
    assert np.array_equal(read_picture(save(tmp_path / "a.tif", stored, tiffinfo={262: white})).pixels, values)


def test_signed_bytes_and_large_unsigned_numbers_keep_their_order(tmp_path):
    signed = save(tmp_path / "a.tif", (IMAGE.astype(int) - 128).astype(np.int8).view(np.uint8), tiffinfo={339: 2})
    assert np.array_equal(read_picture(signed).pixels, IMAGE.astype(int) - 128)
    assert np.array_equal(read_picture(signed, labels=True).pixels, IMAGE ^ 128)  # -1 may be a mask's 255
    values = IMAGE.astype(np.uint32) << 24
    unsigned = save(tmp_path / "b.tif", values.view(np.int32))  # Pillow marks them as signed
    tag = np.array([339, 3, 1, 0, 2], "<u2")
    unsigned.write_bytes(unsigned.read_bytes().replace(tag.tobytes(), np.array([339, 3, 1, 0, 1], "<u2").tobytes()))
    assert np.array_equal(read_picture(unsigned).pixels, values)


def test_sixteen_bits_are_read_in_both_byte_orders(tmp_path):
    one, other = (read_picture(save(tmp_path / "a.tif", IMAGE.astype(order))).pixels for order in ("<u2", ">u2"))
    assert one.dtype == other.dtype and np.array_equal(one, other)


@pytest.mark.parametrize(
    ("values", "spread"),
    [
        (np.random.default_rng(0).permutation(1001).astype(np.uint16).reshape(7, 143), (0, 5, 995, 1000)),
        (np.array([-4.5, 2.0]), (-4.5, 2.0, 2.0, 2.0)),
        (np.array([0] * 9980 + [*range(100, 120)]), (0, 100, 119, 119)),  # nearly all is background: the others count
        (np.array([-9000] * 30 + [*range(1001)]), (-9000, 5, 995, 1000)),  # a background of a few per cent
    ],
)
def test_a_range_is_measured_at_the_0_5_and_99_5_percentiles(values, spread):
    assert GreyRange.of(values) == spread


def test_the_widest_range_holds_every_range():
    assert GreyRange.widest([GreyRange(1, 5, 7, 9), GreyRange(2, 3, 8, 8)]) == (1, 3, 8, 9)


@pytest.mark.parametrize(
    "spread, window",
    [
        ((0, 3, 900, 1600), (0, 1600, ())),  # as the heart data: 1.8 times
        ((10, 11, 100, 400), (0, 400, ())),  # four times is not yet an outlier
        ((10, 11, 100, 401), (0, 100, ("bright_outlier",))),
        ((-1000, -990, 800, 3000), (-1000, 3000, ("negative",))),  # CT
        ((-1000, -990, 800, 30000), (-1000, 800, ("negative", "bright_outlier"))),
        ((-30000, -1000, 800, 3000), (-1000, 3000, ("dark_outlier",))),
        ((-30000, 5, 200, 255), (0, 255, ("dark_outlier",))),
        ((-10, 0, 3, 4), (0, 4, ("dark_outlier",))),
        ((-9, 0, 3, 4), (-9, 4, ("negative",))),
        ((61440, 61500, 65000, 65535), (61440, 65535, ("offset",))),
        ((500, 500, 900, 1000), (0, 1000, ())),  # half of the highest is not yet an offset
        ((501, 501, 900, 1000), (501, 1000, ("offset",))),
        ((7, 7, 7, 7), (0, 7, ())),
        ((0, 0, 0, 0), (0, 0, ())),
    ],
)
def test_black_and_white_of_a_range(spread, window):
    assert GreyRange(*map(float, spread)).window() == window


def test_values_become_greys_rounded_and_clipped():
    values = np.array([-5, 0, 1, 2, 51, 99.9, 100, 4000])
    assert to_greys(values, 0.0, 100.0).tolist() == [0, 0, 3, 5, 130, 255, 255, 255]  # 2.55, 5.1, 130.05, 254.7
    assert to_greys(np.array([-1000, 0, 1000], np.int16), -1000, 1000).tolist() == [0, 128, 255]
    assert to_greys(np.array([7, 7]), 7, 7).tolist() == [0, 0]


def measured(tmp_path, name, image, patient="p"):
    mask = save(tmp_path / "masks" / "m.png", MASK)
    return measure_pair(Pair("train", name, patient, 0, save(tmp_path / "images" / name, image), mask))


def test_all_pictures_of_a_patient_share_a_window_and_one_bright_pixel_does_not_set_it(tmp_path):
    deep = IMAGE.astype(np.uint16)
    bright = deep.copy()
    bright[0, 0] = 60000
    pairs = [
        measured(tmp_path, "1.png", deep, "one"),
        measured(tmp_path, "2.png", deep * 3, "one"),
        measured(tmp_path, "3.png", bright, "other"),
        measured(tmp_path, "4.png", IMAGE, "shallow"),
        measured(tmp_path, "5.png", deep // 2, "other"),
    ]
    values = np.sort(bright.ravel())
    assert values[-1] == 60000 and values[round(0.995 * (values.size - 1))] == values[-2] < 200
    windows, sentences = grey_windows(pairs)
    assert windows == {"one": (0, 3 * int(deep.max())), "other": (0, int(values[-2]))}
    [sentence] = sentences
    told = "a few values far brighter than all others: they were clipped at the 99.5th percentile."
    assert sentence.endswith(f"images/3.png holds {told}")


@pytest.mark.parametrize("place", [(0, 9), (11, 9), (5, 0), (5, 19)])
def test_the_facts_of_a_pair_are_measured(tmp_path, place):
    drawn = MASK.copy()
    drawn[place] = 7
    image = Image.fromarray(IMAGE).convert("RGB")
    image.save(tmp_path / "i.png")
    pair = measure_pair(Pair("train", "i", "p", 0, tmp_path / "i.png", save(tmp_path / "m.png", drawn)))
    facts = pair.facts
    assert facts.size == (HEIGHT, WIDTH) and facts.channels == 3 and facts.image_plain and facts.mask_plain
    assert facts.mask_values == {0: 239 - MASK.sum(), 1: MASK.sum(), 7: 1} and facts.border_values == {0, 7}
    assert (facts.greys.low, facts.greys.high) == (IMAGE.min(), IMAGE.max())
    assert not (facts.deep or facts.lossy or facts.is_constant)
    corners = np.ix_([0, -1], [0, -1])
    assert facts.thumbnail.shape == (32, 32) and np.array_equal(facts.thumbnail[corners], IMAGE[corners])
    assert facts.foreground_pixels([0, 1]) == MASK.sum() and facts.foreground_pixels([0, 9]) == 0 and facts.told == ()
    inner = measure_pair(Pair("train", "i", "p", 0, tmp_path / "i.png", save(tmp_path / "m.png", MASK))).facts
    assert inner.border_values == {0} and inner.image_hash == facts.image_hash and inner.mask_hash != facts.mask_hash


def test_a_patient_is_dark_if_every_picture_is(tmp_path):
    dark = np.minimum(IMAGE // 10, 25)
    pairs = [
        measured(tmp_path, "1.png", dark, "dark"),
        measured(tmp_path, "2.png", dark // 2, "dark"),
        measured(tmp_path, "3.png", dark, "lit"),
        measured(tmp_path, "4.png", np.where(MASK, 26, dark).astype(np.uint8), "lit"),
        measured(tmp_path, "5.png", dark * 0, "black"),
    ]
    sentences = faint_sentences(pairs)
    assert "images/1.png (and 1 more) is very dark" in sentences[0]
    assert "images/3.png (and 1 more) has almost no contrast" in sentences[1] and faint_sentences(pairs[4:]) == []
    assert faint_sentences([*pairs[2:], measured(tmp_path, "6.png", dark * 3, "lit")]) == []


# --- the whole import -----------------------------------------------------------------------------------


def make(folder, image=None, ending="png", **options):
    """A dataset of six patients with a picture each; the first has `image`."""
    for number in range(6):
        pixels = np.random.default_rng(number).integers(30, 200, (HEIGHT, WIDTH)).astype(np.uint8)
        pixels = image if image is not None and number == 0 else pixels
        save(folder / "images" / f"p{number}_0.{ending}", pixels, **(options if number == 0 else {}))
        save(folder / "masks" / f"p{number}_0.png", MASK * 255)
    return folder


def imported(folder, work_dir, name="p0_0", **options):
    """Return the description, and image and mask of a picture as stored in the work folder."""
    description = import_dataset(folder, work_dir, progress=False, **options)
    [subset] = [key for key, pairs in description["subsets"].items() if name in {pair["name"] for pair in pairs}]
    paths = pair_paths(description, work_dir, subset, name)
    return description, *(np.asarray(Image.open(path).convert("L")) for path in paths)


COUNTED = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)  # 0 to 239
OUTLIER = np.where(COUNTED, COUNTED, 65535).astype(np.uint16)
NEGATIVE = (COUNTED * 10.0 - 1000).astype(np.float32)
GREYS = np.rint(COUNTED / 239 * 255)
MARKED = np.where(COUNTED < 4, 255, IMAGE // 12).astype(np.uint8)  # 1.7 % of the pixels
DOUBTED = {  # image, ending, options, image as it is imported, what is reported
    "outlier": (OUTLIER, "png", {}, np.where(COUNTED, GREYS, 255), "png holds a few values far brighter than all"),
    "negative": (NEGATIVE, "tif", {}, GREYS, "tif holds negative values: the smallest value became black"),
    "turned alone": (IMAGE, "png", exif(3), IMAGE[::-1, ::-1], "png is turned by EXIF in another way than its mask"),
    "as stored": (IMAGE, "png", exif(6), IMAGE, "only without that turn: EXIF was ignored"),
    "marker": (MARKED, "png", {}, MARKED, "png holds values far from all others"),
    "dark": (IMAGE // 12, "png", {}, IMAGE // 12, "png is very dark"),
    "flat": (230 + IMAGE // 12, "png", {}, 230 + IMAGE // 12, "png has almost no contrast"),
}


@pytest.mark.parametrize("case", DOUBTED)
def test_changes_to_an_image_are_reported(tmp_path, case):
    pixels, ending, options, expected, told = DOUBTED[case]
    description, image, mask = imported(make(tmp_path / "s", pixels, ending=ending, **options), tmp_path / "data")
    assert np.array_equal(image, expected) and np.array_equal(mask, MASK * 255)
    [note] = [note for note in description["notes"] if "p0_0" in note]
    assert "/images/p0_0." in note and told in note


class Nothing:
    """A stand-in for a network that finds nothing."""

    jit_compile = False

    def predict(self, batches, verbose):
        return np.concatenate([batch[0] * 0 for batch in batches])


@pytest.mark.parametrize("case", ["outlier", "negative"])
def test_a_picture_to_segment_has_the_greys_of_the_import(tmp_path, case):
    pixels, ending, _, expected, _ = DOUBTED[case]
    image, mask = helpers.segment_picture(Nothing(), save(tmp_path / f"a.{ending}", pixels), 16, 0.5)
    assert np.array_equal(image, expected) and mask.shape == image.shape and not mask.any()


@pytest.mark.parametrize("labels", [False, True])
def test_values_that_are_not_finite_are_refused_in_images_and_masks(tmp_path, labels):
    pixels = NEGATIVE.copy()
    pixels[3, 4] = np.inf
    with pytest.raises(CourseError, match=r"a\.tif holds values that are not finite"):
        read_picture(save(tmp_path / "a.tif", pixels), labels)


IAR = ["I", "A", "R"]
PASSED_OVER = "source/geometry.json was passed over: only one above all images and masks is read"


@pytest.mark.parametrize(
    ("files", "given", "common", "geometry", "notes"),
    [
        (
            {"source": {"spacing": [1, 2, 3], "patients": {"p1": {"spacing": [4, 5, 6], "axes": ["P", "L", "S"]}}}},
            None,
            None,
            {"p0": ([1, 2, 3], None), "p1": ([4, 5, 6], ["P", "L", "S"]), "p2": ([1, 2, 3], None)},
            ["from patient to patient: p0 1 x 2 x 3 mm, p1 4 x 5 x 6 mm.", "p0 unknown, p1 P L S (rows, columns"],
        ),
        (  # the nearest file counts, and differences are reported once
            {
                "source": {"spacing": [9, 9, 9]},
                "source/scans": {"patients": {f"p{n}": {"spacing": [1, 1, n + 1], "axes": IAR} for n in (0, 1, 2)}},
            },
            None,
            None,
            {"p0": ([1, 1, 1], IAR), "p2": ([1, 1, 3], IAR), "p3": (None, None)},
            [PASSED_OVER, "p0 1 x 1 x 1 mm, p1 1 x 1 x 2 mm.", "p0 I A R, p3 unknown (rows, columns, slices)."],
        ),
        ({"source": {"axes": IAR}}, [1.25, 1.5, 8], [1.25, 1.5, 8], {"p5": ([1.25, 1.5, 8.0], IAR)}, []),
        ({}, tuple(np.float32([1, 1, 2.5])), [1, 1, 2.5], {"p5": ([1, 1, 2.5], None)}, []),  # as nibabel's get_zooms
        ({"source": {"spacing": [1, 2, 3]}}, None, [1, 2, 3], {"p0": ([1, 2, 3], None)}, []),
        ({".": {"spacing": [1, 1, 1]}}, None, None, {"p0": (None, None)}, []),  # a file above the dataset
        (
            {f"source/scans/{kind}": {"spacing": [1, 1, 1]} for kind in ("images", "masks")},
            None,
            None,
            {"p0": (None, None)},
            ["images/geometry.json (and 1 more) was passed over"],
        ),
    ],
)
def test_spacing_and_axes_of_pictures(tmp_path, files, given, common, geometry, notes):
    make(tmp_path / "source" / "scans")
    for place, described in files.items():
        (tmp_path / place / "geometry.json").write_text(json.dumps(described))
    description, *_ = imported(tmp_path / "source", tmp_path / "data", spacing=given)
    found = {patient: (entry["spacing"], entry["axes"]) for patient, entry in description["geometry"].items()}
    assert {**found, **geometry} == found and len(found) == 6 and description["spacing"] == common
    told = [note for note in description["notes"] if "differ" in note or "passed over" in note]
    assert len(told) == len(notes) and all(words in note for words, note in zip(notes, told))


WRONG = [[], [1, 1], [1, 1, 1, 1], [1, 1, True], ["1", 1, 1], [1, 1, 0], [1, 1, -1], [1, 1, np.inf], "111", np.ones(3)]


@pytest.mark.parametrize("spacing", WRONG)
def test_a_spacing_that_is_not_three_positive_numbers_is_refused(spacing):
    with pytest.raises(CourseError, match="a spacing is three numbers above 0"):
        picture_geometry([], Path(), spacing)


@pytest.mark.parametrize("axes", [["I", "A"], ["I", "A", "X"], ["I", "A", "P"], [*IAR, "L"], {"I": 1}, [1, 2, 3], 3])
def test_axes_that_do_not_name_each_direction_once_are_refused(tmp_path, axes):
    (make(tmp_path) / "geometry.json").write_text(json.dumps({"patients": {"p0": {"axes": axes}}}))
    with pytest.raises(CourseError, match=r"geometry\.json, p0: axes are three letters, .* one is R or L, one is A"):
        imported(tmp_path, tmp_path / "data")


def test_a_geometry_file_from_windows_may_name_excluded_patients(tmp_path):
    described = {"spacing": [1, 2, 3], "patients": {"p1": {"spacing": [4, 5, 6]}}}
    (make(tmp_path / "source") / "geometry.json").write_text(json.dumps(described), encoding="utf-8-sig")
    description, *_ = imported(tmp_path / "source", tmp_path / "data", exclude=["p1"])
    assert description["spacing"] == [1, 2, 3] and "p1" not in description["geometry"]


def test_a_geometry_file_is_read_from_an_archive(tmp_path):
    folder = make(tmp_path / "source")
    (folder / "geometry.json").write_text('{"spacing": [1, 2, 3]}')
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "source")
    assert imported(Path(archive), tmp_path / "data")[0]["spacing"] == [1, 2, 3]
