"""What an import does to files that are not as they should be, and the sentences that report it."""

from collections.abc import Collection
from pathlib import Path

from course.workspace import CourseError, end_of_path

# What is wrong with a file, and what was done.
TOLD = {
    "turned_alone": "is turned by EXIF in another way than its mask: both were read as a viewer shows them. If "
    "the outlines in 01 do not fit, save the images without EXIF.",
    "stored": "is turned by EXIF, but fits its mask only without that turn: EXIF was ignored.",
    "negative": "holds negative values: the smallest value became black.",
    "offset": "has no value below half of its largest: the smallest value became black.",
    "dark_outlier": "holds values far below all others: they were clipped, so that the others keep their greys.",
    "bright_outlier": "holds a few values far brighter than all others: they were clipped at the 99.5th percentile.",
    "crowded": "holds values far from all others: they leave the others at most a quarter of the greys. If they are "
    "markers and the like, and not the structure, remove them from the data.",
    "spacing_of_affine": "has one spacing in its affine and another in pixdim: the one in the affine was used.",
    "spacing_of_pixdim": "has a spacing in pixdim, but 1 mm in its affine: the one in pixdim was used.",
    "huge_voxels": "has voxels longer than 10 cm, by its header: all distances will be wrong by the same factor. "
    "Correct the spacing in the header, or its unit.",
    "no_spacing": "does not give its voxel spacing: its distances are unknown.",
    "two_ways": "has two different orientations in its header (sform and qform): the sform was used. If its pictures "
    "are turned or mirrored, correct the header.",
    "slanted": "has axes that are not at right angles, as with a tilted gantry: they were treated as if they were, "
    "so shapes and volumes are somewhat wrong.",
    "no_axes": "does not give its orientation in the body: it was read as it is stored.",
    "turned": "has another orientation than most volumes: its axes were swapped or flipped to match theirs.",
    "labels_turned": "has another orientation than its labels: their axes were swapped or flipped to match.",
    "labels_unplaced": "has labels whose header gives neither spacing nor origin: they were matched voxel by "
    "voxel. Check that the outlines in 01 fit.",
    "labels_aside": "has labels whose origin or spacing differs by less than half a voxel: they were matched voxel "
    "by voxel.",
    "rounded": "holds values that are not whole numbers: they were rounded.",
    "soft": "holds a soft label: values of at least half the label's number (0.5 for label 1) were taken as the "
    "structure.",
    "very_dark": "is very dark: at most 0.5 % of its patient's pixels are brighter than a tenth of white. Save "
    "brighter pictures.",
    "no_contrast": "has almost no contrast: 99.5 % of its patient's pixels lie within a tenth of the range from black "
    "to white. Save the pictures with more contrast.",
}


def told_sentences(told: dict[Path, tuple[str, ...]]) -> list[str]:
    """Return one sentence for each key of TOLD that any file has; told: {path: keys}."""
    files = {key: [path for path, keys in told.items() if key in keys] for key in TOLD}
    return [sentence for key, paths in files.items() for sentence in sentences_about(paths, *TOLD[key].split(": ", 1))]


def sentences_about(paths: Collection[Path], what: str, advice: str) -> list[str]:
    """Return a list with one sentence about all of `paths`, naming the first; empty if there are no paths."""
    if not paths:
        return []
    more = f" (and {len(paths) - 1:,} more)" if len(paths) > 1 else ""
    return [f"{end_of_path(min(paths))}{more} {what}: {advice}"]


def refuse(paths: Collection[Path], what: str, advice: str) -> None:
    """Raise CourseError with the sentence about all of `paths`, unless there are none."""
    for sentence in sentences_about(paths, what, advice):
        raise CourseError(sentence)
