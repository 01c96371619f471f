"""Which mask belongs to which image, by their names, however a dataset marks its masks."""

import re
import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from course.notes import sentences_about
from course.people import TIME_OR_SIDE, loosely
from course.pictures import VOLUMES, file_suffix
from course.workspace import CourseError, end_of_path

IN_NAMES = "masks?|msk|label(?:s|l?ed)?|lbl|segmentation|seg|gt|groundtruth|anno(?:tation)?|manual|1stho|2ndho"
MASK_ENDING = re.compile(rf"[ _.-]({IN_NAMES})([ _.-]?\d+)?$", re.IGNORECASE)
MASK_WITHIN = re.compile(rf"[ _.-]({IN_NAMES})(?=[ _.-]\d+$)", re.IGNORECASE)
MASK_START = re.compile(rf"^({IN_NAMES})([ _.-]+(of[ _.-]+)?|(?=\d))", re.IGNORECASE)
WORDS_AFTER = re.compile(r"([ _.-][^\W\d_]+)+$")
OF_IMAGES = "image|img|volume|slice|scan|frame|orig|original|raw|input|ct|mri?"
IMAGE_AFFIX = re.compile(
    rf"^({OF_IMAGES})([ _.-]+|(?=\d))|[ _.-]({OF_IMAGES})(?=$|[ _.-]\d+$)|[ _.-]0000$", re.IGNORECASE
)
IMAGE_END = re.compile(rf"[ _.-]({OF_IMAGES})$", re.IGNORECASE)


@dataclass
class Layout:
    """What the files of a dataset are: `images` and `masks` map (subset or None, name) to a path, or to paths."""

    images: dict = field(default_factory=dict)
    masks: dict = field(default_factory=dict)
    notes: list = field(default_factory=list)
    neither: list = field(default_factory=list)  # paths of pictures that nothing calls an image or a mask
    passed_over: list = field(default_factory=list)  # sentences on files taken as neither image nor mask
    geometry: list = field(default_factory=list)  # the files geometry.json
    is_of_cases: bool = False  # named like the cases of nnU-Net: a name is not patient and slice

    @property
    def paths(self) -> list[Path]:
        """All images, then all masks."""
        return [*self.images.values(), *(path for paths in self.masks.values() for path in paths)]

    def pass_over(self, paths: list[Path], why: str) -> None:
        """Record a sentence on files, if there are any, that are taken as neither image nor mask."""
        self.passed_over += sentences_about(paths, "was passed over", why)

    @property
    def has_volumes(self) -> bool:
        """Tell whether any image or mask is a NIfTI volume."""
        return any(file_suffix(path.name) in VOLUMES for path in self.paths)


@dataclass(frozen=True)
class File:
    """A picture or volume, and what its path says of it."""

    path: Path
    subset: str | None
    kind: str | None  # "images", "masks"
    name: str
    above: tuple  # folders that name neither subset nor kind, from the top down to the kind

    @property
    def stem(self) -> str:
        """The file's own name without suffix, in Unicode's NFC form."""
        return unicodedata.normalize("NFC", self.path.name[: -len(file_suffix(self.path.name))])

    @property
    def folders(self) -> str:
        """What precedes the file's own name in `name`, such as "p1_" in p1_000, of images/p1/000.png."""
        return self.name.removesuffix(self.stem) if self.name.endswith(f"_{self.stem}") else ""


def bare_names(name: str) -> list[str]:
    """Return the names that the image of a mask called `name` may have, the most likely first."""
    names = [pattern.sub("", name) for pattern in (MASK_WITHIN, MASK_ENDING, MASK_START)]
    return [bare for bare in dict.fromkeys(names) if bare != name]


def match_masks(files: list[File], layout: Layout) -> None:
    """Fill a layout: assign each mask to its image. Masks without an image keep their own names.

    Raises CourseError for two files of one name, and for a mask that may belong to several images.
    """
    masks = [file for file in files if file.kind == "masks"]
    images = [file for file in files if file.kind == "images"]
    shortened, sure = _take_images(images, layout, bool(masks))
    # {folder: image}, if each image is alone in FOLDER/images and named like its folder, beside its masks
    are_alone = all(file.stem == file.path.parts[-3] for file in images)
    image_beside = {file.path.parents[1]: (file.subset, file.name) for file in images if are_alone}
    united, several, guessed = [], [], {}
    # c_mask_1 may belong to c_1, or be the first of c: unambiguous masks come before it
    for file in sorted(masks, key=lambda file: bool(MASK_WITHIN.search(file.name))):
        bare = [file.folders + name for name in bare_names(file.stem)]
        names = [file.name, *bare, *bare_names(file.name), file.stem]  # that its image may have, most likely first
        names += [WORDS_AFTER.sub("", name) for name in (file.name, file.stem)]
        keys = [(file.subset, name) for name in names]
        found = [key for key in keys if key in layout.images]
        numbered = MASK_ENDING.search(file.name if file.name.endswith(file.stem) else f"_{file.stem}")
        is_part = bool(numbered and numbered[2])
        if found:
            key = next((key for key in found if key not in layout.masks), found[0])
        else:
            alike = _similar_images(file, keys, shortened)
            is_part = is_part or file.path.parents[1] in image_beside
            key = alike[0] if len(alike) == 1 else image_beside.get(file.path.parents[1], keys[0])
            if len(alike) > 1:
                several.append((file.path, alike))
            elif alike and sure.isdisjoint(keys):
                guessed[file.path] = layout.images[key]
        of_image = layout.masks.setdefault(key, [])
        if of_image and key in layout.images:
            if not is_part:
                raise CourseError(
                    f"{end_of_path(of_image[0])} and {end_of_path(file.path)} are masks of one image. Keep one or, if "
                    "each shows a part of the structure, call them NAME_mask_1, NAME_mask_2 and so on."
                )
            united.append(file.path)
        of_image.append(file.path)
    for path, alike in several:
        if layout.masks.keys().isdisjoint(alike):
            names = ", ".join(end_of_path("/".join(filter(None, image))) for image in alike[:4])
            raise CourseError(
                f"{end_of_path(path)} is the mask of several images ({names}{' ...' if len(alike) > 4 else ''}), such "
                "as channels or modalities of one patient. Keep the images of one kind, and take the others out."
            )
    _drop_channel_number(layout)
    if guessed:
        what = f"was taken as the mask of {end_of_path(guessed[min(guessed)])}, whose name is only similar"
        layout.notes += sentences_about(guessed, what, "check that the outlines in 01 fit.")
    layout.notes += sentences_about(united, "is one of several masks of one image", "they were united.")


def _similar_images(file, keys, shortened):
    """Return the images similar to the first of a mask's keys that has any, without those that contradict the mask.

    Names contradict each other if each has a number, time or side that the other lacks: p1_ED does not match p1_ES.
    """

    def told(name):
        """Return the numbers, times and sides in a name."""
        words = re.split(r"[ _.-]+", loosely(name))
        return {word for word in words if word.isdigit() or TIME_OR_SIDE.fullmatch(word)}

    loose, own = [(subset, loosely(name)) for subset, name in keys], told(file.name)
    alike = next((shortened[key] for key in loose if key in shortened), [])
    return [image for image in alike if told(image[1]) <= own or own <= told(image[1])]


def _take_images(files, layout, has_masks):
    """Put the images into a layout; return the names under which masks may refer to them: (shortened, sure).

    shortened: {(subset, name): images} for their names, read `loosely`, in full, without an affix, and cut at any mark.
    sure: the set of (subset, name) that lack only an affix. A mask in no subset (None) may match an image in any.
    """
    shortened, sure = defaultdict(list), set()
    for file in files:
        key = file.subset, file.name
        if key in layout.images:
            advice = "give each a name of its own or, if they are the same or one is no image, keep one."
            if not has_masks:
                advice = "put images into a folder images/ and their masks, under the same names, into a folder masks/."
            both = f"{end_of_path(layout.images[key])} and {end_of_path(file.path)}"
            raise CourseError(f"{both} are images with the same name: {advice}")
        layout.images[key] = file.path
        beginnings = [file.name[: mark.start()] for mark in re.finditer(r"[ _.-]", file.name)]
        own = (("", file.name), (file.folders, file.stem))
        affixless = {start + IMAGE_AFFIX.sub("", name, count) for start, name in own for count in (0, 1)}  # all, one
        affixless |= {start + IMAGE_END.sub("", name) for start, name in own}  # ct_1_image is ct_1, beside ct_1_label
        for subset in {file.subset, None}:
            sure |= {(subset, name) for name in affixless}
            for name in {loosely(name) for name in (file.name, *affixless, *beginnings)}:
                shortened[subset, name].append(key)
    return shortened, sure


def _drop_channel_number(layout):
    """Remove the _0000 that nnU-Net appends to the names of images with one channel."""
    keys = list(layout.images)
    mask_names = [path.name.split(".")[0] for paths in layout.masks.values() for path in paths]
    if all(name.endswith("_0000") for _, name in keys) and not any(name.endswith("_0000") for name in mask_names):
        layout.is_of_cases = bool(keys)
        layout.images, layout.masks = (
            {(subset, name.removesuffix("_0000")): found for (subset, name), found in files.items()}
            for files in (layout.images, layout.masks)
        )
