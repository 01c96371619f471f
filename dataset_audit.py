"""Every pixel read once: what a pair of pictures is, what is doubtful in a dataset, and pictures of that.

`dataset_import` finds the files and decides what stops an import; here they are read (by a few threads: Pillow
lets them run), measured and compared.
"""

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from dataset_sources import parallel, shown
from figures import PREDICTION_COLOR, TRUTH_COLOR
from metrics import add_counts, confusion_counts, scores
from settings import CourseError

SUBSETS = ("train", "valid", "test")

MAX_PIXELS = 50_000_000  # of one picture
THUMBNAIL = 32  # pixels on a side of the small pictures that are compared to find near-copies
MAX_COMPARED = 4000  # of them, evenly chosen
LIKENESS = 0.85  # correlation of their detail from which two are near-copies
EXAMPLES = 6  # of each kind of doubt
MAX_LISTED = 10  # scans under two names, and near-copies, that get a sentence of their own


@dataclass(frozen=True)
class Facts:
    """What one look at the pixels of a pair tells."""

    size: tuple  # height, width
    channels: int  # of the image as it is stored
    image_plain: bool  # an 8-bit PNG that needs no conversion
    mask_plain: bool
    low: float  # smallest and largest value of the image
    high: float
    mask_values: dict  # value -> number of pixels
    border_values: frozenset  # of the mask's outermost rows and columns
    lossy: bool  # the mask is a JPEG
    image_hash: str
    mask_hash: str
    thumbnail: np.ndarray  # uint8, THUMBNAIL x THUMBNAIL

    @property
    def is_constant(self):
        """Tell whether the image has one single grey value: such images are alike without being copies."""
        return self.low == self.high

    def foreground_pixels(self, mask_values):
        """Return the number of foreground pixels; `mask_values` is [background, foreground]."""
        return self.mask_values.get(mask_values[1], 0)


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its mask, where they belong, and what was seen in them; what is not known yet is None."""

    subset: str | None
    name: str
    patient: str
    slice: int | None
    image: Path
    mask: Path
    facts: Facts | None = None


def reading_order(pair):
    """Return the key that sorts pairs by patient, then slice by number."""
    return pair.patient, -1 if pair.slice is None else pair.slice, pair.name


def read_picture(path, labels=False):
    """Return (pixels, channels, plain, lossy): pixels of shape (height, width), uint8 or as deep as the file is.

    labels: True for a mask, which is refused if two colours of its palette become one grey.
    """
    try:
        with Image.open(path, formats=("PNG", "JPEG", "TIFF", "BMP")) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise CourseError(
                    f"{shown(path)} claims {picture.width} x {picture.height} pixels: "
                    f"more than {MAX_PIXELS:,} are refused; exclude it."
                )
            if getattr(picture, "n_frames", 1) > 1:
                raise CourseError(f"{shown(path)} holds {picture.n_frames} pictures: save each in a file of its own.")
            if (
                not labels
                and picture.mode in ("RGB", "RGBA", "LA")
                and any(";16" in str(tile[3]) for tile in picture.tile)
            ):
                raise CourseError(
                    f"{shown(path)} has 16 bits for each of several channels, of which eight would be lost: "
                    "save it as a grey picture."
                )
            picture.load()
            turned = picture.getexif().get(0x0112, 1) != 1
            plain = picture.format == "PNG" and picture.mode in ("L", "RGB", "RGBA") and not turned
            channels, lossy = len(picture.getbands()), picture.format == "JPEG"
            upright = ImageOps.exif_transpose(picture) if turned else picture
            if upright.mode == "F" or upright.mode.startswith("I"):
                return np.asarray(upright), channels, plain, lossy
            grey = np.asarray(upright.convert("L"))
            colours = (upright if upright.mode == "P" else upright.convert("RGB")).getcolors() if labels else None
            # colours is None where there are so many that it is no label
            if colours and len(colours) > np.count_nonzero(np.bincount(grey.ravel())):
                raise CourseError(
                    f"{shown(path)} has colours that are the same in grey: save it as a grey picture "
                    "with a grey of its own for each label."
                )
            return grey, channels, plain, lossy
    except CourseError:
        raise
    except Exception as error:  # Pillow has no common error for a damaged file
        raise CourseError(f"{shown(path)} cannot be read as a picture ({error}): replace or exclude it.") from error


def _hash(pixels):
    return hashlib.sha256(
        f"{pixels.dtype.str} {pixels.shape} ".encode() + np.ascontiguousarray(pixels).tobytes()
    ).hexdigest()


def _values(pixels):
    """Return {value: number of pixels}."""
    if pixels.dtype == np.uint8:
        counts = np.bincount(pixels.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(pixels, return_counts=True)
    return {value: int(count) for value, count in zip(values.tolist(), counts.tolist())}


def look(pair):
    """Read the files of a pair and return it with its Facts.

    Raises CourseError where one cannot be read, has impossible values, or their sizes differ.
    """
    image, channels, image_plain, _ = read_picture(pair.image)
    mask, _, mask_plain, lossy = read_picture(pair.mask, labels=True)
    if image.shape != mask.shape:
        raise CourseError(
            f"{shown(pair.image)} has {image.shape[1]} x {image.shape[0]} pixels but its mask {mask.shape[1]} x "
            f"{mask.shape[0]}: both must have the same size."
        )
    low, high = float(image.min()), float(image.max())
    if not np.isfinite([low, high]).all() or low < 0:
        raise CourseError(
            f"{shown(pair.image)} holds negative or not finite values ({low:g} to {high:g}): "
            "save it with values from 0 on."
        )
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    grey = image if image.dtype == np.uint8 else (image * (255 / high if high else 0)).astype(np.uint8)
    thumbnail = np.asarray(Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX))
    facts = Facts(
        size=image.shape,
        channels=channels,
        image_plain=image_plain,
        mask_plain=mask_plain,
        low=low,
        high=high,
        mask_values=_values(mask),
        border_values=frozenset(_values(border)),
        lossy=lossy,
        image_hash=_hash(image),
        mask_hash=_hash(mask),
        thumbnail=thumbnail,
    )
    return replace(pair, facts=facts)


def inspect(pairs, progress=False):
    """Read every pair once and return them with their Facts; raise CourseError for the first bad one."""
    return parallel(look, pairs, "reading images and masks", progress)


# --- the audit ------------------------------------------------------------------------------------------


def same_scans(pairs):
    """Return {(patient, patient): [(pair, pair), ...]}, the patients most of whose pictures are identical."""
    holders, shared = defaultdict(dict), defaultdict(list)
    for pair in pairs:
        if not pair.facts.is_constant:
            same = holders[pair.facts.image_hash]
            for patient, earlier in same.items():
                if patient != pair.patient:
                    shared[patient, pair.patient].append((earlier, pair))
            if len(same) < 20:  # the same picture in hundreds of files is told often enough
                same.setdefault(pair.patient, pair)
    counts = Counter(pair.patient for pair in pairs)
    return {
        (one, other): matches
        for (one, other), matches in shared.items()
        if 2 * len(matches) >= min(counts[one], counts[other])
    }


def _twin(matches, mask_values):
    """Describe one scan under two names, the fullest match first; Dice is 1.0 where neither annotation holds any."""
    masks = ([read_picture(pair.mask)[0] == mask_values[1] for pair in match] for match in matches)
    overlap = scores(add_counts(confusion_counts(*match) for match in masks))
    return {
        "patients": [[pair.subset, pair.patient] for pair in matches[0]],
        "slices": len(matches),
        "dice": round(overlap["dice"], 4),
        "example": [pair.name for pair in matches[0]],
    }


def _details(pairs):
    """Return the small pictures less the mean of their neighbourhoods: float32 of shape (pairs, pixels), of length one.

    Rows of pictures in which next to nothing is to be seen are zero: these resemble every other one.
    """
    small = np.stack([pair.facts.thumbnail for pair in pairs]).astype(np.float32)
    padded = np.pad(small, ((0, 0), (2, 2), (2, 2)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), axis=(1, 2))
    details = (small - windows.mean(axis=(-2, -1))).reshape(len(small), -1)
    details -= details.mean(axis=1, keepdims=True)
    details[details.std(axis=1) < 1] = 0
    return details / np.maximum(np.linalg.norm(details, axis=1, keepdims=True), 1)


def near_copies(pairs, known):
    """Return {(patient, patient): [pair, ...]}, the patients half of whose pictures look like pictures of the other.

    Compared is the detail of small pictures. A copy that was compressed, brightened, made noisy or moved by two
    pixels keeps a correlation of 0.9; slices of different hearts stay below 0.65 (both measured on the heart data).
    `known` pairs of patients are passed over.
    """
    pairs = [pairs[index] for index in np.linspace(0, len(pairs) - 1, min(len(pairs), MAX_COMPARED)).astype(int)]
    details = _details(pairs)
    likeness = details @ details.T
    owners = np.array([pair.patient for pair in pairs])
    alike = defaultdict(list)
    for pair, row in zip(pairs, likeness):
        for other in np.unique(owners[row >= LIKENESS]):
            if other != pair.patient:
                alike[pair.patient, str(other)].append(pair)
    counts = Counter(owners.tolist())
    return {
        (one, other): found
        for (one, other), found in alike.items()
        if (counts[one], one) < (counts[other], other)
        and 2 * min(len(found), len(alike[other, one])) >= counts[one]
        and not {(one, other), (other, one)} & set(known)
    }


def _inverted(pairs):
    """Return the pairs whose image is bright where the typical image is dark."""
    small = np.stack([pair.facts.thumbnail.ravel() for pair in pairs]).astype(np.float32)
    typical = np.median(small, axis=0)
    typical -= typical.mean()
    small -= small.mean(axis=1, keepdims=True)
    limit = -0.5 * np.linalg.norm(small, axis=1) * np.linalg.norm(typical)
    return [pair for pair, likeness, least in zip(pairs, small @ typical, limit) if likeness < least]


def _repeated(pairs, scans):
    """Return the pairs whose image another patient has too, and those whose own patient has it twice."""
    known = {*scans, *((other, one) for one, other in scans)}
    first, elsewhere, twice = {}, [], []
    for pair in pairs:
        earlier = first.setdefault(pair.facts.image_hash, pair)
        if earlier is pair or pair.facts.is_constant:
            continue
        if earlier.patient == pair.patient:
            twice.append(pair)
        elif (earlier.patient, pair.patient) not in known:
            elsewhere.append(pair)
    return elsewhere, twice


def _subset_row(pairs, mask_values):
    """Return the row of the audit's table on the pairs of one subset."""
    shares = [pair.facts.foreground_pixels(mask_values) / (pair.facts.size[0] * pair.facts.size[1]) for pair in pairs]
    return {
        "patients": sorted({pair.patient for pair in pairs}),
        "pairs": len(pairs),
        "sizes": sorted({"x".join(map(str, [*pair.facts.size, pair.facts.channels])) for pair in pairs}),
        "intensity": [min(pair.facts.low for pair in pairs), max(pair.facts.high for pair in pairs)],
        "foreground_share": round(float(np.mean(shares)), 6),
        "empty_share": round(float(np.mean(np.array(shares) == 0)), 4),
    }


def audit(pairs, mask_values):
    """Look for what is doubtful in pairs in canonical form; return (twins, {"subsets": ..., "findings": ...}).

    `twins` are the scans that stand under two names. "subsets" holds for each subset its patients, number of pairs,
    sizes, intensity range, share of foreground pixels and of empty masks. "findings" holds {"sentence", "count",
    "examples": [[subset, name], ...]} for each kind of doubt that was found. What is fatal has raised before.
    """
    scans = {
        patients: sorted(matches, key=lambda match: -match[0].facts.foreground_pixels(mask_values))
        for patients, matches in same_scans(pairs).items()
    }
    twins = [_twin(matches, mask_values) for matches in scans.values()]
    doubts = []
    for twin, matches in zip(twins, scans.values()):
        (subset, one), (other_subset, other) = twin["patients"]
        agreement = f"the Dice between their two annotations is {twin['dice']:.3f}"
        sentence = f"{one} ({subset}) and {other} ({other_subset}) are one scan under two names; {agreement}"
        doubts.append((sentence, [pair for match in matches for pair in match]))
    subset_of = {pair.patient: pair.subset for pair in pairs}
    likenesses = [
        (f"{one} ({subset_of[one]}) and {other} ({subset_of[other]}) look like copies of one scan", found)
        for (one, other), found in near_copies(pairs, scans).items()
    ]
    doubts = [*_shortened(doubts, "more scans under two names"), *_shortened(likenesses, "more that look like copies")]
    elsewhere, twice = _repeated(pairs, scans)
    drawn = {pair.patient for pair in pairs if pair.facts.foreground_pixels(mask_values)}
    counts = Counter(pair.patient for pair in pairs)
    doubts += [
        ("image that another patient has too", elsewhere),
        ("image that its patient has twice", twice),
        ("image of one single grey value", [pair for pair in pairs if pair.facts.is_constant]),
        ("image that looks inverted beside the others", _inverted(pairs)),
        ("mask that touches the border", [pair for pair in pairs if mask_values[1] in pair.facts.border_values]),
        (
            "mask that covers more than half",
            [pair for pair in pairs if 2 * pair.facts.foreground_pixels(mask_values) > np.prod(pair.facts.size)],
        ),
        (
            "slice of a patient in whom nothing is drawn",
            [pair for pair in pairs if pair.patient not in drawn and counts[pair.patient] > 1],
        ),
    ]
    findings = [
        {"sentence": sentence, "count": len(found), "examples": [[pair.subset, pair.name] for pair in found[:EXAMPLES]]}
        for sentence, found in doubts
        if found
    ]
    table = {subset: _subset_row([pair for pair in pairs if pair.subset == subset], mask_values) for subset in SUBSETS}
    return twins, {"subsets": table, "findings": findings}


def _shortened(doubts, rest):
    """Return the first doubts of a kind, and one more for all that follow."""
    more = [pair for _, found in doubts[MAX_LISTED:] for pair in found]
    return [*doubts[:MAX_LISTED], (rest, more)]


# --- tables and pictures --------------------------------------------------------------------------------


def dataset_root(description, work_dir):
    """Return the folder that holds `{train,valid,test}/{images,masks}/NAME.png` of a description.

    Converted files lie inside the work folder, which may be moved with them; files that were canonical
    already are where the user has them.
    """
    return Path(work_dir) / description["root"]


def slice_folder(description, work_dir, subset, name):
    """Return the folder that holds the slice `name` of a subset, in images/ and in masks/.

    A fold gives patients another subset; their files stay where they are.
    """
    stored_in = {} if subset == "test" else description.get("stored_in", {})
    return dataset_root(description, work_dir) / stored_in.get(name, subset)


def dataset_counts(description):
    """Return the rows (subset, images, masks, size, patients) of a dataset's table; pairs are complete by then."""
    return [
        (subset, len(pairs), len(pairs), ", ".join(description["audit"]["subsets"][subset]["sizes"]),
         len({pair["patient"] for pair in pairs}))
        for subset, pairs in description["subsets"].items()
    ]


def audit_rows(description):
    """Return the rows (how many, what is doubtful, for example) of what the audit found."""
    return [
        (finding["count"], finding["sentence"], "/".join(finding["examples"][0]))
        for finding in description["audit"]["findings"]
    ]


def format_table(rows, headers):
    """Return a plain-text table: columns aligned, numbers to the right, a line under the headers."""
    texts = [[str(cell) for cell in row] for row in [headers, *rows]]
    widths = [max(map(len, column)) for column in zip(*texts)]
    numeric = [all(isinstance(row[column], (int, float)) for row in rows) for column in range(len(headers))]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)
        ).rstrip()
        for row in texts
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _draw(panel, folder, name, foreground, color, title):
    image, mask = (read_picture(folder / kind / f"{name}.png")[0] for kind in ("images", "masks"))
    panel.imshow(image, cmap="gray")
    outline = mask == foreground
    if outline.any() and not outline.all():
        panel.contour(outline, levels=[0.5], colors=[color], linewidths=1)
    panel.set_title(title, fontsize="small")
    panel.set_axis_off()


def plot_twins(description, work_dir, number=0):
    """Return a Matplotlib Figure with both pictures of a scan that stands under two names, each with its own outline,
    and the two outlines together.

    `number` chooses among the twins; the slice is the one in which most is drawn. Raises CourseError without twins.
    """
    if number >= len(description["twins"]):
        raise CourseError(
            f"The audit found {len(description['twins'])} scans under two names: number {number} is not one of them."
        )
    import matplotlib.pyplot as plt

    twin = description["twins"][number]
    foreground = description["mask_values"][1]
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
    colors = (TRUTH_COLOR, PREDICTION_COLOR)
    for panel, (subset, _), name, color in zip(panels, twin["patients"], twin["example"], colors):
        folder = slice_folder(description, work_dir, subset, name)
        _draw(panel, folder, name, foreground, color, f"{name}, {subset}")
        _draw(panels[2], folder, name, foreground, color, "both outlines")
    figure.suptitle(
        f"{twin['patients'][0][1]} and {twin['patients'][1][1]} are one scan: {twin['slices']} identical slices, "
        f"Dice {twin['dice']:.3f} between the annotations",
        fontsize="medium",
    )
    return figure


def plot_findings(description, work_dir):
    """Return a Matplotlib Figure with examples of what the audit found doubtful, one row for each kind.

    Raises CourseError where it found nothing.
    """
    findings = description["audit"]["findings"]
    if not findings:
        raise CourseError("The audit found nothing doubtful: there is nothing to show.")
    import matplotlib.pyplot as plt

    foreground = description["mask_values"][1]
    figure = plt.figure(figsize=(1.8 * EXAMPLES, 2.5 * len(findings)), layout="constrained")
    for part, finding in zip(figure.subfigures(len(findings), 1, squeeze=False)[:, 0], findings):
        part.suptitle(f"{finding['count']}: {finding['sentence']}", x=0.01, ha="left", fontsize="medium")
        panels = part.subplots(1, EXAMPLES)
        for panel in panels:
            panel.set_axis_off()
        for panel, (subset, name) in zip(panels, finding["examples"]):
            folder = slice_folder(description, work_dir, subset, name)
            _draw(panel, folder, name, foreground, TRUTH_COLOR, f"{subset}\n{name}")
    return figure
