"""What is doubtful in a dataset, and pictures of that."""

from collections import Counter, defaultdict

import numpy as np

from course.figures import PREDICTION_COLOR, TRUTH_COLOR
from course.folds import same_scans
from course.metrics import add_counts, confusion_counts, scores
from course.pictures import SUBSETS, read_picture, slice_folder
from course.workspace import CourseError

MAX_COMPARED = 4000  # of them, evenly chosen
LIKENESS = 0.85  # correlation of their detail from which two are near-copies
EXAMPLES = 6  # of each kind of doubt
MAX_LISTED = 10  # scans under two names, and near-copies, that get a sentence of their own


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


def dataset_counts(description):
    """Return the rows (subset, images, masks, size, patients) of a dataset's table; pairs are complete by then."""
    return [
        (
            subset,
            len(pairs),
            len(pairs),
            ", ".join(description["audit"]["subsets"][subset]["sizes"]),
            len({pair["patient"] for pair in pairs}),
        )
        for subset, pairs in description["subsets"].items()
    ]


def audit_rows(description):
    """Return the rows (how many, what is doubtful, for example) of what the audit found."""
    return [
        (finding["count"], finding["sentence"], "/".join(finding["examples"][0]))
        for finding in description["audit"]["findings"]
    ]


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
