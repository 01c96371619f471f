"""Which mask is of which image: by their names, however a dataset marks its masks."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from course.pictures import VOLUMES, file_suffix
from course.workspace import CourseError, end_of_path, sentence_about

IN_NAMES = "masks?|labels?|segmentation|seg|gt|groundtruth|annotation|manual|1stho|2ndho"
MASK_ENDING = re.compile(rf"[ _.-]({IN_NAMES})([ _.-]?\d+)?$", re.IGNORECASE)
MASK_WITHIN = re.compile(rf"[ _.-]({IN_NAMES})(?=[ _.-]\d+$)", re.IGNORECASE)
MASK_START = re.compile(rf"^({IN_NAMES})([ _.-]+|(?=\d))", re.IGNORECASE)
WORDS_AFTER = re.compile(r"([ _.-][^\W\d_]+)+$")
IMAGE_AFFIX = re.compile(r"^(image|img)([ _.-]+|(?=\d))|[ _.-](image|img|0000)$", re.IGNORECASE)


@dataclass
class Layout:
    """What the files of a dataset are: `images` and `masks` map (subset or None, name) to a path, or to paths."""

    images: dict = field(default_factory=dict)
    masks: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    left: str = ""  # what else lies there, of no type that is read or neither image nor mask
    is_of_cases: bool = False  # named as nnU-Net names cases: a name is no patient and slice

    @property
    def has_volumes(self) -> bool:
        """Tell whether any image or mask is a NIfTI volume."""
        paths = [*self.images.values(), *(path for several in self.masks.values() for path in several)]
        return any(file_suffix(path.name) in VOLUMES for path in paths)


@dataclass(frozen=True)
class File:
    """A picture or volume, and what its path says of it."""

    path: Path
    subset: str | None
    kind: str | None  # "images", "masks"
    name: str
    above: tuple  # folders that name neither subset nor kind, from the top down to the kind


def bare_names(name: str) -> list[str]:
    """Return the names that the image of a mask called `name` may have, the likeliest first."""
    names = [pattern.sub("", name) for pattern in (MASK_WITHIN, MASK_ENDING, MASK_START)]
    return [bare for bare in dict.fromkeys(names) if bare != name]


def match_masks(files: list[File], layout: Layout) -> None:
    """Fill a layout: give each mask to its image. Masks without one keep a name of their own."""
    masks = [file for file in files if file.kind == "masks"]
    for file in files:
        if file.kind == "images":
            _add_image(file, layout)
    parent_of = _single_images(files)
    affixed = defaultdict(list)
    for key in layout.images:
        affixed[key[0], IMAGE_AFFIX.sub("", key[1])].append(key)
    beginnings = defaultdict(list)
    for subset, name in layout.images:
        for end in re.finditer(r"[ _.-]", name):
            beginnings[subset, name[: end.start()]].append((subset, name))
    united, several = [], {}
    for file in masks:
        stem = file.path.name[: -len(file_suffix(file.path.name))]
        names = [file.name, *bare_names(file.name), stem, WORDS_AFTER.sub("", file.name)]
        keys = [(file.subset, name) for name in names]
        key = next((key for key in keys if key in layout.images), None)
        numbered = MASK_ENDING.search(file.name)
        is_part = bool(numbered and numbered[2])
        if key is None:
            alike = next((found for key in keys if (found := affixed[key] + beginnings[key])), [])
            alike = list(dict.fromkeys(alike))
            is_part = is_part or file.path.parent.parent in parent_of
            key = alike[0] if len(alike) == 1 else parent_of.get(file.path.parent.parent, keys[0])
            if len(alike) > 1:
                several.setdefault(alike[0], (file, alike))
        _add_mask(file, key, is_part, layout, united)
    free = {key: found for key, found in several.items() if not any(image in layout.masks for image in found[1])}
    if free:
        file, alike = next(iter(free.values()))
        names = ", ".join(end_of_path(name) for _, name in alike[:4])
        raise CourseError(
            f"{end_of_path(file.path)} has several images ({names}{' ...' if len(alike) > 4 else ''}), as channels or "
            "modalities of one patient: keep those of one kind in the dataset, take the others out."
        )
    _drop_channel_number(layout)
    if united:
        layout.notes.append(sentence_about(united, "is one of several masks of one image", "they are united."))


def _add_image(file, layout):
    key = (file.subset, file.name)
    if key in layout.images:
        raise CourseError(
            f"{end_of_path(layout.images[key])} and {end_of_path(file.path)} are images of the same name: "
            "give each a name of its own, or, if they are the same, keep one."
        )
    layout.images[key] = file.path


def _add_mask(file, key, is_part, layout, united):
    """Add a mask; is_part says whether it may be one of several of one image."""
    earlier = layout.masks.setdefault(key, [])
    if earlier and not is_part:
        raise CourseError(
            f"{end_of_path(earlier[0])} and {end_of_path(file.path)} are masks of the same name: "
            "give each a name of its own, or, if they are the same, keep one."
        )
    united += [file.path] if earlier else []
    earlier.append(file.path)


def _single_images(files):
    """Return {folder: image}, where each image is alone in FOLDER/images and called as its folder, beside its masks."""
    images = [file for file in files if file.kind == "images"]
    alone = {file.path.parent.parent: (file.subset, file.name) for file in images}
    if len(alone) < len(images) or any(
        file.path.name[: -len(file_suffix(file.path.name))] != file.path.parent.parent.name for file in images
    ):
        return {}
    return alone


def _drop_channel_number(layout):
    """Take the _0000 away that nnU-Net puts after the names of images with one channel."""
    keys = list(layout.images)
    if (
        keys
        and all(name.endswith("_0000") for _, name in keys)
        and not any(path.stem.split(".")[0].endswith("_0000") for paths in layout.masks.values() for path in paths)
    ):
        layout.is_of_cases = True
        for files in (layout.images, layout.masks):
            for subset, name in [key for key in files if key in keys]:
                files[subset, name.removesuffix("_0000")] = files.pop((subset, name))
