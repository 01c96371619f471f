"""What an import does to files that are not as they should be, and the sentences that tell of it."""

from collections.abc import Collection
from pathlib import Path

from course.workspace import CourseError, end_of_path

# What is the matter with a file, and what was done.
TOLD = {
    "turned_alone": "says in EXIF that it is turned, and its mask does not, or the other way round: both are taken as "
    "a viewer shows them; if the outlines in 01 do not fit, save the images without EXIF.",
    "stored": "says in EXIF that it is turned, but fits its mask only as it is stored: EXIF was passed over.",
    "negative": "holds negative values: the smallest value became black.",
    "offset": "has no value below half of its largest: the smallest value became black.",
    "dark_outlier": "holds values far below all others: they were clipped, the others keep their greys.",
    "bright_outlier": "holds a few values far brighter than all others: they were clipped at the 99.5th percentile.",
    "crowded": "holds values far from all others: beside them these share no more than a quarter of the greys; take "
    "markers and the like out of the data.",
    "spacing_of_affine": "has one spacing in its affine and another in pixdim: that of the affine was taken.",
    "spacing_of_pixdim": "has a spacing in pixdim and none in its affine, where it is 1 mm: that of pixdim was taken.",
    "huge_voxels": "has voxels longer than 10 cm, by its header: all distances will be as wrong; mend the spacing "
    "there, or its unit.",
    "no_spacing": "does not say the spacing of its voxels: its distances are unknown.",
    "two_ways": "says in its header in two ways how it lies in the body (sform and qform): the sform was taken; if its "
    "pictures lie wrong, mend the header.",
    "slanted": "has axes that are not at right angles, as with a tilted gantry: they were taken as if they were, so "
    "shapes and volumes are somewhat wrong.",
    "no_axes": "does not say how it lies in the body: it was taken as it is stored.",
    "turned": "lies another way than most volumes: its axes were swapped or flipped to lie as theirs do.",
    "labels_turned": "lies another way than its labels: their axes were swapped or flipped, and now they fit.",
    "labels_unplaced": "has labels whose header gives neither spacing nor origin: they were taken voxel by voxel; see "
    "whether the outlines in 01 fit.",
    "labels_aside": "has labels whose origin or spacing differs a little, by less than half a voxel: they were taken "
    "voxel by voxel.",
    "rounded": "holds values that are not whole numbers: they were rounded.",
    "soft": "holds a soft label: its values from one half of the label's number on (0.5 of 1) were taken as the "
    "structure.",
    "very_dark": "is very dark: no more than 0.5 % of its patient's pictures is brighter than a tenth of white; save "
    "them brighter.",
    "no_contrast": "has next to no contrast: 99.5 % of its patient's pictures lie within a tenth of the way from black "
    "to white; save them with more.",
}


def told_sentences(told: dict[Path, tuple[str, ...]]) -> list[str]:
    """Return a sentence for each key of TOLD that a file has; told: {path: keys}."""
    files = {key: [path for path, keys in told.items() if key in keys] for key in TOLD}
    return [sentence for key, paths in files.items() for sentence in sentences_about(paths, *TOLD[key].split(": ", 1))]


def sentences_about(paths: Collection[Path], what: str, advice: str) -> list[str]:
    """Return one sentence about all of `paths`, naming the first, in a list, which is empty where there are none."""
    if not paths:
        return []
    more = f" (and {len(paths) - 1:,} more)" if len(paths) > 1 else ""
    return [f"{end_of_path(min(paths))}{more} {what}: {advice}"]


def refuse(paths: Collection[Path], what: str, advice: str) -> None:
    """Raise CourseError, the sentence about all of `paths`, unless there are none."""
    for sentence in sentences_about(paths, what, advice):
        raise CourseError(sentence)
