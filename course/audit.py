"""What is doubtful in a dataset, and pictures of that."""

from collections import Counter, defaultdict

import numpy as np

from course.figures import PREDICTION_COLOR, TRUTH_COLOR, draw_outline, plain_text
from course.folds import same_scans
from course.metrics import add_counts, confusion_counts, scores
from course.pictures import SUBSETS, Pair, read_picture
from course.store import read_slice
from course.workspace import CourseError

MAX_COMPARED = 10_000  # pictures that are searched for near-copies
BLOCK = 500  # of them at a time, so that little memory is needed
EVEN = 10  # greys between neighbours of a frame, at most
LIKENESS = 0.85  # correlation of their detail from which two are near-copies
BEYOND_COMMON = 0.8  # of the way from what pictures of other patients have in common to the very same
ALL_ALIKE = 0.95  # so much in common have pictures only where all are copies
COMMON_SAMPLE = 300  # pictures that tell what all have in common
MOST_ALIKE = 20  # of the pictures that resemble one, at least so many are counted
EXAMPLES = 6  # of each kind of doubt
MAX_LISTED = 10  # scans under two names, and near-copies, that get a sentence of their own


def _frames(small):
    """Return where pictures, float32 (pairs, height, width), show nothing but a frame, as round fields of view have.

    It is the even border of each, whose edge, alike in all pictures, says nothing of what they show, and two pixels
    around it; and the rest of the border, which such a field may just touch.
    """
    from scipy import ndimage

    even = ndimage.maximum_filter(small, (1, 3, 3)) - ndimage.minimum_filter(small, (1, 3, 3)) <= EVEN
    within = np.zeros((3, 3, 3), bool)
    within[1] = True  # regions of one picture, not through several
    border = np.ones(small.shape[1:], bool)
    border[1:-1, 1:-1] = False
    frame = ndimage.binary_propagation(even & border, structure=within, mask=even)
    frame |= border & frame.any(axis=(1, 2), keepdims=True)
    return ndimage.binary_dilation(frame, np.ones((1, 5, 5), bool))


def _details(pairs):
    """Return the small pictures less the mean of their neighbourhoods: float32 (pairs, height, width), of length one.

    Frames are left out. Pictures in which next to nothing is to be seen are zero: these resemble every other one.
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
    details[(norms < np.sqrt(details[0].size)).ravel()] = 0  # a deviation of one grey
    return details / np.maximum(norms, 1)


def _compared(pairs):
    """Return all pairs, or MAX_COMPARED: of each patient the same places of the stack, so that copies of it meet."""
    if len(pairs) <= MAX_COMPARED:
        return pairs
    of_patient = defaultdict(list)
    for pair in pairs:
        of_patient[pair.patient].append(pair)
    most = max(1, MAX_COMPARED // len(of_patient))
    chosen = [found[place] for found in of_patient.values() for place in _evenly(len(found), most)]
    return [chosen[place] for place in _evenly(len(chosen), MAX_COMPARED)]


def _evenly(length, most):
    """Return the places of `most` of so many things, evenly chosen from the first to the last, or of all."""
    return np.unique(np.linspace(0, length - 1, min(most, length)).astype(int))


def _likeness(details, others):
    """Return correlations (details, others) of pictures, as they lie and at best, turned by quarters or mirrored."""
    flat = others.reshape(len(others), -1).T
    upright = best = details.reshape(len(details), -1) @ flat
    for number in range(1, 8):
        moved = np.rot90(details[:, :, ::-1] if number > 3 else details, number % 4, axes=(1, 2))
        moved = np.ascontiguousarray(moved)  # NumPy 2.0 multiplies a view that runs backwards slowly, without BLAS
        best = np.maximum(best, moved.reshape(len(details), -1) @ flat)
    return upright, best


def _common_likeness(details, owners):
    """Return the likeness that each picture exceeds with three in five of some others, all of other patients.

    So much all pictures have in common, since they show the same frame or organ.
    """
    some = _evenly(len(details), COMMON_SAMPLE)
    _, best = _likeness(details, details[some])
    best[owners[:, None] == owners[some]] = np.nan
    return np.nan_to_num(np.nanquantile(best, 0.4, axis=1))


def _alike(details, owners):
    """Yield (index, other, is_turned) for pictures of two patients that resemble each other; index < other.

    They do so by LIKENESS, and by BEYOND_COMMON of what all pictures of the dataset leave open, unless all are alike.
    Of the many that resemble one picture some are enough.
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
    """Return {(patient, patient): ([pair, ...], is_turned)}, the patients half of whose pictures look like the other's.

    A copy that was compressed, brightened, made noisy or moved by two pixels keeps a correlation of 0.9; slices of
    different hearts stay below 0.65 (measured on the heart data). `known` pairs of patients are passed over. is_turned:
    the likeness is that of turned or mirrored pictures.
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
    """Return pairs whose image another patient, no `known` twin, has too, and those whose own patient has it twice."""
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
    """Return the row of the audit's table on the pairs of one subset."""
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
    """Describe scans under two names, as `same_scans` gives them, the fullest pictures first; return also the doubts.

    The Dice is 1.0 where neither annotation holds any.
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
    """Return the doubts (sentence, pairs) about copies that were changed, other than `known` ones, and notes."""
    subset_of = {pair.patient: pair.subset for pair in pairs}
    compared = _compared(pairs)
    doubts, notes = [], []
    for (one, other), (found, is_turned) in near_copies(compared, known).items():
        how = "turned or mirrored copies" if is_turned else "copies"
        doubts.append((f"{one} ({subset_of[one]}) and {other} ({subset_of[other]}) look like {how} of one scan", found))
    if len(compared) < len(pairs):
        notes.append(
            f"Copies that were changed were looked for among {len(compared):,} of the {len(pairs):,} pictures, "
            "the same places of each patient's stack; identical ones among all."
        )
    return _shortened(doubts, "more that look like copies"), notes


def audit(pairs: list[Pair], mask_values: list) -> tuple[list[dict], dict, list[str]]:
    """Look for what is doubtful in pairs in canonical form; return (twins, {"subsets": ..., "findings": ...}, notes).

    `twins` are the scans that stand under two names. "subsets" holds for each subset its patients, number of pairs,
    sizes, intensity range, share of foreground pixels and of empty masks. "findings" holds {"sentence", "count",
    "examples": [[subset, name], ...]} for each kind of doubt that was found. What is fatal has raised before.
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
        ("image that another patient has too", elsewhere),
        ("image that its patient has twice", twice),
        ("image of one single grey value", [pair for pair in pairs if pair.facts.is_constant]),
        ("image that looks inverted beside the others", _inverted(pairs)),
        ("mask that is a thin line around an area, and counts as that", [pair for pair in pairs if pair.facts.outline]),
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
    return twins, {"subsets": table, "findings": findings}, notes


def _shortened(doubts, rest):
    """Return the first doubts of a kind, and one more for all that follow."""
    more = [pair for _, found in doubts[MAX_LISTED:] for pair in found]
    return [*doubts[:MAX_LISTED], (rest, more)]


def dataset_counts(description: dict) -> list[tuple]:
    """Return the rows (subset, images, masks, size, patients) of a dataset's table; pairs are complete by then."""
    rows = []
    for subset, pairs in description["subsets"].items():
        sizes = ", ".join(description["audit"]["subsets"][subset]["sizes"])
        rows.append((subset, len(pairs), len(pairs), sizes, len({pair["patient"] for pair in pairs})))
    return rows


def audit_rows(description: dict) -> list[tuple]:
    """Return the rows (how many, what is doubtful, for example) of what the audit found."""
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
    """Return a Matplotlib Figure of twin `number` in the slice in which most is drawn, each outline alone and both.

    Raises CourseError where there are not so many twins.
    """
    if number >= len(description["twins"]):
        raise CourseError(
            f"The audit found {len(description['twins'])} scans under two names: number {number} is not one of them."
        )
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
    """Return a Matplotlib Figure with a row of examples of each kind of doubt that the audit found.

    Raises CourseError where it found nothing.
    """
    findings = description["audit"]["findings"]
    if not findings:
        raise CourseError("The audit found nothing doubtful: there is nothing to show.")
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
