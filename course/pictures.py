"""Where a picture lies, how it is read, and what its pixels tell."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from course.workspace import CourseError, end_of_path, parallel

SUBSETS = ("train", "valid", "test")
MAX_PIXELS = 50_000_000  # of one picture
THUMBNAIL = 32  # pixels on a side of the small pictures that are compared to find near-copies
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
VOLUMES = (".nii.gz", ".nii")


def file_suffix(name):
    """Return the suffix of `name` in lower case, `.nii.gz` counted as one."""
    name = name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else os.path.splitext(name)[1]


def is_stray(name):
    """Tell whether a file or folder of this name is no data: a system's or editor's trace, or images without masks."""
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini", "imagests")


@dataclass(frozen=True)
class Facts:
    """What the pixels of a pair tell: measured once, when they are read."""

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
                    f"{end_of_path(path)} claims {picture.width} x {picture.height} pixels: "
                    f"more than {MAX_PIXELS:,} are refused; exclude it."
                )
            if getattr(picture, "n_frames", 1) > 1:
                raise CourseError(
                    f"{end_of_path(path)} holds {picture.n_frames} pictures: save each in a file of its own."
                )
            if (
                not labels
                and picture.mode in ("RGB", "RGBA", "LA")
                and any(";16" in str(tile[3]) for tile in picture.tile)
            ):
                raise CourseError(
                    f"{end_of_path(path)} has 16 bits for each of several channels, of which eight would be lost: "
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
                    f"{end_of_path(path)} has colours that are the same in grey: save it as a grey picture "
                    "with a grey of its own for each label."
                )
            return grey, channels, plain, lossy
    except CourseError:
        raise
    except Exception as error:  # Pillow has no common error for a damaged file
        raise CourseError(
            f"{end_of_path(path)} cannot be read as a picture ({error}): replace or exclude it."
        ) from error


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


def measure_pair(pair):
    """Read the files of a pair and return it with its Facts.

    Raises CourseError where one cannot be read, has impossible values, or their sizes differ.
    """
    image, channels, image_plain, _ = read_picture(pair.image)
    mask, _, mask_plain, lossy = read_picture(pair.mask, labels=True)
    if image.shape != mask.shape:
        raise CourseError(
            f"{end_of_path(pair.image)} has {image.shape[1]} x {image.shape[0]} pixels but its mask {mask.shape[1]} x "
            f"{mask.shape[0]}: both must have the same size."
        )
    low, high = float(image.min()), float(image.max())
    if not np.isfinite([low, high]).all() or low < 0:
        raise CourseError(
            f"{end_of_path(pair.image)} holds negative or not finite values ({low:g} to {high:g}): "
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


def measure_pairs(pairs, progress=False):
    """Read every pair once and return them with their Facts; raise CourseError for the first bad one."""
    return parallel(measure_pair, pairs, "reading images and masks", progress)


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


def pair_paths(description, work_dir, subset, name):
    """Return the paths of the image and of the mask called `name`."""
    folder = slice_folder(description, work_dir, subset, name)
    return folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
