"""What looks doubtful in a dataset, and figures that show it."""

from collections import Counter, defaultdict

import numpy as np

from course.figures import PREDICTION_COLOR, TRUTH_COLOR, draw_outline, plain_text
from course.folds import same_scans
from course.metrics import add_counts, confusion_counts, scores
from course.pictures import SUBSETS, Pair, read_picture
from course.store import read_slice
from course.workspace import CourseError

MAX_COMPARED = 10_000  # pictures that are searched for near-duplicates
BLOCK = 500  # pictures compared at a time, to save memory
EVEN = 10  # greys by which neighbouring pixels of a frame differ at most
LIKENESS = 0.85  # correlation of their detail from which two pictures are near-duplicates
BEYOND_COMMON = 0.8  # of the way from the usual likeness of different patients to 1, which near-duplicates must exceed
ALL_ALIKE = 0.95  # usual likeness that is only reached if all pictures are copies
COMMON_SAMPLE = 300  # pictures from which the usual likeness is measured
MOST_ALIKE = 20  # if more pictures than this resemble one, only some of them are counted
EXAMPLES = 6  # of each kind of doubt
MAX_LISTED = 10  # scans under two names, and near-duplicates, that get a sentence of their own


def _frames(small):
    """Return a bool mask of the frame around the field of view of each picture, float32 (pairs, height, width).

    The frame is the even area along the border that has nearly the border's darkest or brightest grey, plus two pixels
    around it: its edge is the same in all pictures and says nothing about what they show. If there is a frame, the
    whole border counts, since the field may just touch it.
    """
    from scipy import ndimage

    even = ndimage.maximum_filter(small, (1, 3, 3)) - ndimage.minimum_filter(small, (1, 3, 3)) <= EVEN
    within = np.zeros((3, 3, 3), bool)
    within[1] = True  # regions stay within a picture
    border = np.ones(small.shape[1:], bool)
    border[1:-1, 1:-1] = False
    extremes = np.quantile(small[:, border], (0.1, 0.9), axis=1)[..., None, None]
    even &= (abs(small - extremes) <= EVEN / 2).any(axis=0)
    frame = ndimage.binary_propagation(even & border, structure=within, mask=even)
    frame |= border & frame.any(axis=(1, 2), keepdims=True)
    return ndimage.binary_dilation(frame, np.ones((1, 5, 5), bool))


def _details(pairs):
    """Return the thumbnails minus their local means, each of norm 1: float32 (pairs, height, width).

    Frames are left out. Pictures with almost no detail become zero, since they would resemble every other one.
    """
    from scipy import ndimage

    small = np.stack([pair.facts.thumbnail for pair in pairs]).astype(np.float32)
    seen = ~_frames(small)
    share = ndimage.uniform_filter(seen.astype(np.float32), (0, 5, 5), mode="nearest")
    mean = ndimage.uniform_filter(small * seen, (0, 5, 5), mode="nearest") / np.maximum(share, 1e-3)
    details = np.where(seen, small - mean, 0)
    counts = np.maximum(seen.sum(axis=(1, 2), keepdims=True), 1)
    details -= np.where(seen, details.sum(axis=(1, 2), keepdims=True) / counts, 0)
    norms = np.sqrt((details**2).sum(axis=(1, 2), keepdims=True))
    details[(norms < np.sqrt(details[0].size)).ravel()] = 0  # a standard deviation below one grey
    return details / np.maximum(norms, 1)


def _compared(pairs):
    """Return all pairs, or at most MAX_COMPARED: the same slices of each patient, so that copies are compared."""
    if len(pairs) <= MAX_COMPARED:
        return pairs
    of_patient = defaultdict(list)
    for pair in pairs:
        of_patient[pair.patient].append(pair)
    most = max(1, MAX_COMPARED // len(of_patient))
    chosen = [found[place] for found in of_patient.values() for place in _evenly(len(found), most)]
    return [chosen[place] for place in _evenly(len(chosen), MAX_COMPARED)]


def _evenly(length, most):
    """Return at most `most` indices below `length`, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))


def _likeness(details, others):
    """Return two arrays (details, others) of correlations: as they lie, and the best after turning or mirroring."""
    flat = others.reshape(len(others), -1).T
    upright = best = details.reshape(len(details), -1) @ flat
    for number in range(1, 8):
        moved = np.rot90(details[:, :, ::-1] if number > 3 else details, number % 4, axes=(1, 2))
        moved = np.ascontiguousarray(moved)  # NumPy 2.0 multiplies a view that runs backwards slowly, without BLAS
        best = np.maximum(best, moved.reshape(len(details), -1) @ flat)
    return upright, best


def _common_likeness(details, owners):
    """Return for each picture its usual likeness to other patients' pictures: the 0.4 quantile over a sample of them.

    Even pictures of different patients are somewhat alike, since they show the same organ.
    """
    some = _evenly(len(details), COMMON_SAMPLE)
    _, best = _likeness(details, details[some])
    best[owners[:, None] == owners[some]] = np.nan
    return np.nan_to_num(np.nanquantile(best, 0.4, axis=1))


def _alike(details, owners):
    """Yield (index, other, is_turned) for pictures of two patients that are near-duplicates; index < other.

    Their likeness is at least LIKENESS, and at least BEYOND_COMMON of the way from their usual likeness to 1, unless
    all pictures are copies. If many pictures resemble one, only some of them are yielded.
    """
    common = _common_likeness(details, owners)
    for start in range(0, len(details), BLOCK):
        upright, best = _likeness(details[start : start + BLOCK], details[start:])
        both = (common[start : start + BLOCK, None] + common[start:]) / 2
        alike = (best >= LIKENESS) & ((best - both >= BEYOND_COMMON * (1 - both)) | (both >= ALL_ALIKE))
        alike = np.triu(alike & (owners[start : start + BLOCK, None] != owners[start:]))
        for row in np.flatnonzero(alike.any(axis=1)):
            columns = np.flatnonzero(alike[row])
            step = -(-len(columns) // MOST_ALIKE)
            for column in columns[row % step :: step]:
                yield start + row, start + column, upright[row, column] < LIKENESS


def near_copies(pairs: list[Pair], known: set[frozenset]) -> dict:
    """Find patients half of whose pictures are near-duplicates; return {(patient, patient): ([pair, ...], is_turned)}.

    A copy that was compressed, brightened, made noisy or shifted by two pixels keeps a correlation of 0.9; slices of
    different hearts stay below 0.65 (measured on the heart data). `known` pairs of patients are skipped. is_turned:
    the pictures only match when rotated or mirrored.
    """
    found, turned = defaultdict(dict), Counter()
    for index, other, is_turned in _alike(_details(pairs), np.array([pair.patient for pair in pairs])):
        one, two = pairs[index], pairs[other]
        found[one.patient, two.patient][one.name] = one
        found[two.patient, one.patient][two.name] = two
        turned[frozenset((one.patient, two.patient))] += 1 if is_turned else -1
    counts = Counter(pair.patient for pair in pairs)
    return {
        (one, other): (list(alike.values()), turned[frozenset((one, other))] > 0)
        for (one, other), alike in found.items()
        if (counts[one], one) < (counts[other], other)
        and 2 * min(len(alike), len(found[other, one])) >= counts[one]
        and {one, other} not in known
    }


def _inverted(pairs):
    """Return the pairs whose image is bright where the typical image is dark."""
    small = np.stack([pair.facts.thumbnail.ravel() for pair in pairs]).astype(np.float32)
    typical = np.median(small, axis=0)
    typical -= typical.mean()
    small -= small.mean(axis=1, keepdims=True)
    limit = -0.5 * np.linalg.norm(small, axis=1) * np.linalg.norm(typical)
    return [pair for pair, likeness, least in zip(pairs, small @ typical, limit) if likeness < least]


def _repeated(pairs, known):
    """Return the pairs whose image another patient, not a `known` twin, also has, and those repeated in one patient."""
    first, elsewhere, twice = {}, [], []
    for pair in pairs:
        earlier = first.setdefault(pair.facts.image_hash, pair)
        if earlier is pair or pair.facts.is_constant:
            continue
        if earlier.patient == pair.patient:
            twice.append(pair)
        elif {earlier.patient, pair.patient} not in known:
            elsewhere.append(pair)
    return elsewhere, twice


def _subset_row(pairs, mask_values):
    """Return the row of the audit's table for the pairs of one subset."""
    shares = [pair.facts.foreground_pixels(mask_values) / (pair.facts.size[0] * pair.facts.size[1]) for pair in pairs]
    return {
        "patients": sorted({pair.patient for pair in pairs}),
        "pairs": len(pairs),
        "sizes": sorted({"x".join(map(str, [*pair.facts.size, pair.facts.channels])) for pair in pairs}),
        "intensity": [min(pair.facts.greys.low for pair in pairs), max(pair.facts.greys.high for pair in pairs)],
        "foreground_share": round(float(np.mean(shares)), 6),
        "empty_share": round(float(np.mean(np.array(shares) == 0)), 4),
    }


def _twins(scans, mask_values):
    """Describe scans under two names; return (twins, doubts).

    scans: from `same_scans`, the slices with the largest masks first. The Dice is 1.0 if both annotations are empty.
    """
    twins, doubts = [], []
    for matches in scans.values():
        masks = ([read_picture(pair.mask).pixels == mask_values[1] for pair in match] for match in matches)
        dice = round(scores(add_counts(confusion_counts(*match) for match in masks))["dice"], 4)
        one, other = matches[0]
        twin = {
            "patients": [[one.subset, one.patient], [other.subset, other.patient]],
            "slices": len(matches),
            "dice": dice,
            "example": [one.name, other.name],
        }
        sentence = (
            f"{one.patient} ({one.subset}) and {other.patient} ({other.subset}) are one scan under two names; "
            f"the Dice between their two annotations is {dice:.3f}"
        )
        twins.append(twin)
        doubts.append((sentence, [pair for match in matches for pair in match]))
    return twins, _shortened(doubts, "more scans under two names")


def _copy_doubts(pairs, known):
    """Return the doubts (sentence, pairs) about near-duplicates other than `known` ones, and notes."""
    subset_of = {pair.patient: pair.subset for pair in pairs}
    compared = _compared(pairs)
    doubts, notes = [], []
    for (one, other), (found, is_turned) in near_copies(compared, known).items():
        how = "turned or mirrored copies" if is_turned else "copies"
        doubts.append((f"{one} ({subset_of[one]}) and {other} ({subset_of[other]}) look like {how} of one scan", found))
    if len(compared) < len(pairs):
        notes.append(
            f"The search for near-duplicates compared {len(compared):,} of the {len(pairs):,} pictures, the same "
            "slices of each patient. The search for identical pictures compared all."
        )
    return _shortened(doubts, "more that look like copies"), notes


def audit(pairs: list[Pair], mask_values: list) -> tuple[list[dict], dict, list[str]]:
    """Look for doubtful pairs in canonical form; return (twins, {"subsets": ..., "findings": ...}, notes).

    twins: the scans that appear under two names. "subsets" holds for each subset its patients, number of pairs, sizes,
    intensity range, share of foreground pixels and share of empty masks. "findings" holds {"sentence", "count",
    "examples": [[subset, name], ...]} for each kind of doubt found. Fatal errors have been raised before.
    """
    scans = {
        patients: sorted(matches, key=lambda match: -match[0].facts.foreground_pixels(mask_values))
        for patients, matches in same_scans(pairs).items()
    }
    known = {frozenset(patients) for patients in scans}
    twins, doubts = _twins(scans, mask_values)
    copies, notes = _copy_doubts(pairs, known)
    elsewhere, twice = _repeated(pairs, known)
    drawn = {pair.patient for pair in pairs if pair.facts.foreground_pixels(mask_values)}
    counts = Counter(pair.patient for pair in pairs)
    doubts += [
        *copies,
        ("image that another patient also has", elsewhere),
        ("image that its patient has twice", twice),
        (
            "image that is the same picture as its mask",
            [pair for pair in pairs if pair.facts.image_hash == pair.facts.mask_hash and not pair.facts.is_constant],
        ),
        ("image of a single grey value", [pair for pair in pairs if pair.facts.is_constant]),
        ("image that looks inverted compared with the others", _inverted(pairs)),
        ("mask that is a thin line around an area, not filled in", [pair for pair in pairs if pair.facts.outline]),
        ("mask that touches the border", [pair for pair in pairs if mask_values[1] in pair.facts.border_values]),
        (
            "mask that covers over half the picture",
            [pair for pair in pairs if 2 * pair.facts.foreground_pixels(mask_values) > np.prod(pair.facts.size)],
        ),
        (
            "slice of a patient whose masks are all empty",
            [pair for pair in pairs if pair.patient not in drawn and counts[pair.patient] > 1],
        ),
    ]
    findings = [
        {"sentence": sentence, "count": len(found), "examples": [[pair.subset, pair.name] for pair in found[:EXAMPLES]]}
        for sentence, found in doubts
        if found
    ]
    table = {subset: _subset_row([pair for pair in pairs if pair.subset == subset], mask_values) for subset in SUBSETS}
    return twins, {"subsets": table, "findings": findings}, notes


def _shortened(doubts, rest):
    """Return the first MAX_LISTED doubts of a kind, and one more, `rest`, for all that follow."""
    more = [pair for _, found in doubts[MAX_LISTED:] for pair in found]
    return [*doubts[:MAX_LISTED], (rest, more)]


def dataset_counts(description: dict) -> list[tuple]:
    """Return the rows (subset, images, masks, size, patients) of a dataset's table; every image has a mask by then."""
    rows = []
    for subset, pairs in description["subsets"].items():
        sizes = ", ".join(description["audit"]["subsets"][subset]["sizes"])
        rows.append((subset, len(pairs), len(pairs), sizes, len({pair["patient"] for pair in pairs})))
    return rows


def audit_rows(description: dict) -> list[tuple]:
    """Return the audit's findings as rows (count, what is doubtful, example)."""
    return [
        (finding["count"], finding["sentence"], "/".join(finding["examples"][0]))
        for finding in description["audit"]["findings"]
    ]


def _draw(panel, description, work_dir, subset, name, title, color=TRUTH_COLOR):
    """Draw a picture with the outline of its mask."""
    image, mask = read_slice(description, work_dir, subset, name)
    panel.imshow(image, cmap="gray")
    draw_outline(panel, mask, color, width=1)
    panel.set_title(plain_text(title), fontsize="small")
    panel.set_axis_off()


def plot_twins(description: dict, work_dir, number: int = 0):
    """Return a Matplotlib Figure of twin `number` in the slice with the largest mask: each outline alone, then both.

    Raises CourseError if there is no twin of that number.
    """
    if number >= len(description["twins"]):
        found = len(description["twins"])
        raise CourseError(f"There is no twin {number}: the audit found {found} scans under two names, numbered from 0.")
    import matplotlib.pyplot as plt

    twin = description["twins"][number]
    figure, panels = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
    colors = (TRUTH_COLOR, PREDICTION_COLOR)
    for panel, (subset, _), name, color in zip(panels, twin["patients"], twin["example"], colors):
        _draw(panel, description, work_dir, subset, name, f"{name}, {subset}", color)
        _draw(panels[2], description, work_dir, subset, name, "both outlines", color)
    figure.suptitle(
        plain_text(f"{twin['patients'][0][1]} and {twin['patients'][1][1]} are one scan: ")
        + f"{twin['slices']} identical slices, Dice {twin['dice']:.3f} between the annotations",
        fontsize="medium",
    )
    return figure


def plot_findings(description: dict, work_dir):
    """Return a Matplotlib Figure with a row of examples for each kind of doubt that the audit found.

    Raises CourseError if it found nothing.
    """
    findings = description["audit"]["findings"]
    if not findings:
        raise CourseError("The audit found nothing doubtful, so there is nothing to show.")
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(1.8 * EXAMPLES, 2.5 * len(findings)), layout="constrained")
    for part, finding in zip(figure.subfigures(len(findings), 1, squeeze=False)[:, 0], findings):
        part.suptitle(plain_text(f"{finding['count']}: {finding['sentence']}"), x=0.01, ha="left", fontsize="medium")
        panels = part.subplots(1, EXAMPLES)
        for panel in panels:
            panel.set_axis_off()
        for panel, (subset, name) in zip(panels, finding["examples"]):
            _draw(panel, description, work_dir, subset, name, f"{subset}\n{name}")
    return figure
