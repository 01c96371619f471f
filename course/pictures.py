"""Where a picture is stored, how it is read, and what is measured on its pixels."""

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from course.greys import GreyRange, are_crowded, to_greys
from course.workspace import CourseError, end_of_path, parallel

SUBSETS = ("train", "valid", "test")
MAX_LABEL_COLOURS = 16  # in a mask with more colours, the colours are not labels
MAX_PIXELS = 50_000_000  # of one picture
THUMBNAIL = 32  # pixels on a side of the small pictures that are compared to find near-duplicates
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif")
VOLUMES = (".nii.gz", ".nii")
DICOM = (".dcm", ".dicom", ".ima")
UNREAD = (
    *(".mha", ".mhd", ".nrrd", ".mgz", ".hdr", ".img", ".npy", ".npz", ".mat", ".h5"),
    *(".webp", ".heic", ".jp2", ".ppm", ".pgm"),
)
TEXTS = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".cfg", ".ini", ".log")
DESCRIPTIONS = (*TEXTS, ".pdf", ".html", ".docx", ".xlsx", ".py", ".ipynb", ".sh", ".m")  # all others may be data
PHOTOMETRIC, BITS_PER_SAMPLE, SAMPLE_FORMAT = 262, 258, 339  # TIFF tags


def file_suffix(name: str) -> str:
    """Return the suffix of `name` in lower case; `.nii.gz` counts as one suffix."""
    name = name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else os.path.splitext(name)[1]


def find_picture(path: str | os.PathLike) -> Path:
    """Return the absolute path of a picture to segment; raises CourseError if there is no such file."""
    place = Path(os.path.expanduser(path)).absolute()
    if not place.is_file():
        raise CourseError(f"There is no picture at {place}: give the path of one.")
    return place


def is_stray(name: str) -> bool:
    """Tell whether a file or folder of this name was left by a system or an editor, or is the index of a DICOM CD."""
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini", "@eadir", "dicomdir")


def may_be_data(path: Path) -> bool:
    """Tell whether a file that the course does not read may still be data: not a text, a description or a program."""
    if path.suffix or not path.is_file():
        return file_suffix(path.name) not in DESCRIPTIONS
    with open(path, "rb") as file:
        return b"\0" in file.read(512)


def is_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM, by its name or content."""
    if file_suffix(path.name) in DICOM:
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def refuse_dicom(paths: list[Path]) -> None:
    """Raise CourseError if one of these files, which are neither pictures nor volumes, is DICOM."""
    for path in paths:
        if is_dicom(path):
            raise CourseError(
                f"{end_of_path(path)} is DICOM, which cannot be imported. Convert each series to NIfTI with dcm2niix, "
                "and give a folder with these volumes and their labels, drawn on the same grid."
            )


@dataclass(frozen=True)
class Facts:
    """What is measured on the pixels of a pair, once, when they are read."""

    size: tuple[int, int]  # height, width
    channels: int  # of the image as it is stored
    image_plain: bool  # an 8-bit PNG that needs no conversion
    mask_plain: bool
    deep: bool  # the image has more than 8 bits, see `grey_windows`
    greys: GreyRange  # of the image's values
    mask_values: dict[float, int]  # value -> number of pixels
    border_values: frozenset[float]  # of the mask's outermost rows and columns
    outline: bool  # the mask is a thin line around an area
    lossy: bool  # the mask is a JPEG
    image_hash: str
    mask_hash: str
    thumbnail: np.ndarray  # uint8, THUMBNAIL x THUMBNAIL
    palette: dict[tuple, int]  # colour (RGBA) -> the label that the mask gives it; empty for masks of greys
    crowded: bool  # see `are_crowded`
    told: tuple[str, ...]  # keys of TOLD: what was done to the pair and must be reported

    @property
    def is_constant(self) -> bool:
        """Tell whether the image has a single grey value: such images are identical without being copies."""
        return self.greys.low == self.greys.high

    def foreground_pixels(self, mask_values: list) -> int:
        """Return the number of foreground pixels; `mask_values` is [background, foreground]."""
        return self.mask_values.get(mask_values[1], 0)


@dataclass(frozen=True, eq=False)
class Pair:
    """An image and its mask, where they belong, and what was measured on them; what is not known yet is None."""

    subset: str | None
    name: str
    patient: str
    slice: int | None
    image: Path
    mask: Path
    facts: Facts | None = None


def reading_order(pair: Pair) -> tuple:
    """Return the key that sorts pairs by patient, then slice by number."""
    return pair.patient, -1 if pair.slice is None else pair.slice, pair.name


class Picture(NamedTuple):
    """A picture as it was read, turned upright if its file says so."""

    pixels: np.ndarray  # (height, width), uint8 or of the file's own bit depth
    channels: int  # as stored
    plain: bool  # an 8-bit PNG that needs no conversion
    lossy: bool  # a JPEG
    orientation: int  # of the stored pixels by EXIF, 1 to 8; 1 is upright
    palette: dict[tuple, int]  # colour -> label, if a palette or colours define the labels


def read_picture(path: Path, labels: bool = False) -> Picture:
    """Read a picture as one channel of grey values or, with `labels`, of labels.

    The labels are the indices of a colour palette, or the alpha values if pixels differ only in these, else the grey
    values. Raises CourseError for a file that cannot be read, holds several pictures, too many pixels or values that
    are not finite, would lose bits, or has labels in different colours that become the same grey.
    """
    try:
        # Opened as a file: Pillow memory-maps a TIFF given by name, and then misreads one that has to be turned
        with open(path, "rb") as file, Image.open(file, formats=FORMATS) as picture:
            _check_readable(path, picture)
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)  # lost once a TIFF is loaded
            orientation = orientation if orientation in range(1, 9) else 1
            picture.load()
            is_upright = orientation == 1 or picture.format == "TIFF"
            upright = picture if is_upright else ImageOps.exif_transpose(picture)
            palette = _label_palette(upright) if labels else {}
            label = np.asarray(upright) if palette else _label_of_alpha(upright) if labels else None
            lossy = picture.format in ("JPEG", "MPO")  # its colours are not exact
            pixels = _grey(path, picture, upright, labels and not lossy) if label is None else label
            if labels and not lossy and label is None and upright.mode in ("P", "RGB", "RGBA"):  # greys of colours
                colours = [colour for _, colour in upright.convert("RGBA").getcolors(MAX_LABEL_COLOURS) or []]
                palette = {
                    colour: Image.new("RGBA", (1, 1), colour).convert("L").getpixel((0, 0)) for colour in colours
                }
            is_usual = picture.format == "PNG" and picture.mode in ("L", "RGB", "RGBA")
            plain = is_usual and orientation == 1 and label is None
            return Picture(pixels, len(picture.getbands()), plain, lossy, orientation, palette)
    except CourseError:
        raise
    except Exception as error:  # Pillow has no common error for a damaged file
        refuse_dicom([path])
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = f"it is none of {', '.join(FORMATS)}, or has too many bits or channels" if is_unknown else error
        raise CourseError(
            f"{end_of_path(path)} cannot be read as a picture ({reason}): replace or exclude it."
        ) from error


def _check_readable(path, picture):
    """Raise CourseError if part of an opened picture would be lost, before its pixels are read."""
    name = end_of_path(path)
    if picture.width * picture.height > MAX_PIXELS:
        raise CourseError(
            f"{name} claims {picture.width} x {picture.height} pixels, "
            f"but at most {MAX_PIXELS:,} are allowed: exclude it."
        )
    if min(picture.size) < 2:
        raise CourseError(f"{name} has {picture.width} x {picture.height} pixels, which is only a line: exclude it.")
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":  # a phone's photo, in which the further frames are previews
        raise CourseError(
            f"{name} holds {frames} pictures, of which only the first would be read: save each in a file of its own, "
            "such as NAME_0.png, NAME_1.png and so on."
        )
    if picture.mode in ("RGB", "RGBA", "LA", "CMYK") and any(";16" in str(tile[3]) for tile in picture.tile):
        raise CourseError(
            f"{name} has several channels of 16 bits, and 8 bits of each would be lost: save it as a grey picture."
        )


def _as_stored(picture):
    """Return the pixels of a picture as they are stored in its file."""
    pixels = picture.pixels.T if picture.orientation > 4 else picture.pixels
    rows, columns = (-1 if picture.orientation in turned else 1 for turned in ((3, 4, 6, 7), (2, 3, 7, 8)))
    return pixels[::rows, ::columns]


def _label_palette(picture):
    """Return {colour: index} for the palette colours that occur in a mask, or {} if it has no palette.

    A palette of opaque greys does not define labels: it only packs a grey picture, with its indices in any order.
    """
    if picture.mode != "P":
        return {}
    picture.apply_transparency()
    colours = np.array(picture.getpalette("RGBA"), np.uint8).reshape(-1, 4)
    if (colours[:, :3] == colours[:, :1]).all() and (colours[:, 3] == 255).all():
        return {}
    numbers = np.flatnonzero(np.bincount(np.asarray(picture).ravel(), minlength=len(colours)))
    return {tuple(colours[number].tolist()): int(number) for number in numbers[::-1] if number < len(colours)}


def _label_of_alpha(picture):
    """Return the labels of a mask with some transparent pixels, uint8 (height, width), or None if it has none."""
    if picture.mode not in ("RGBA", "LA", "PA"):
        return None
    pixels = np.asarray(picture.convert("RGBA")).reshape(-1, 4)
    alpha = pixels[:, 3]
    is_one_colour = (pixels == pixels[0]).all()
    if (alpha == alpha[0]).all() and not (is_one_colour and alpha[0] == 0):  # an empty mask is wholly transparent
        return None
    opaque = pixels[alpha > 0, :3]
    if is_one_colour or (opaque == opaque[0]).all():
        labels = alpha
    else:  # the colours are the labels, and transparent pixels are background
        labels = np.where(alpha > 0, np.asarray(picture.convert("L")).ravel(), np.uint8(0))
    return labels.reshape(picture.height, picture.width)


def _grey(path, picture, upright, labels):
    """Return the pixels as one grey channel; raise CourseError if different `labels` would become the same grey."""
    is_signed = picture.format == "TIFF" and picture.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == 2  # Pillow ignores it
    if upright.mode == "L" and is_signed and not labels:
        return np.asarray(upright).view(np.int8).astype(np.int16)
    if upright.mode == "F" or upright.mode.startswith("I"):
        pixels = np.asarray(upright)
        pixels = pixels.astype(pixels.dtype.newbyteorder("="))  # the same hash for big-endian files
        if upright.mode == "I" and picture.format == "TIFF" and not is_signed:
            pixels = pixels.view(np.uint32).astype(np.float64)
        if not np.isfinite(pixels).all():
            raise CourseError(
                f"{end_of_path(path)} holds values that are not finite (NaN or infinite): repair the picture first."
            )
        if picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == 0:  # stored with white as 0
            is_unsigned = pixels.dtype == np.uint16
            return np.uint16(2 ** picture.tag_v2[BITS_PER_SAMPLE][0] - 1) - pixels if is_unsigned else -pixels
        return pixels
    grey = np.asarray(upright.convert("L"))
    coloured = upright if upright.mode == "P" else upright.convert("RGB")
    colours = coloured.getcolors(MAX_LABEL_COLOURS) if labels else None  # None where there are more
    if colours and len(colours) > np.count_nonzero(np.bincount(grey.ravel())):
        raise CourseError(
            f"{end_of_path(path)} has different colours that become the same grey: save it as a grey "
            "picture with a different grey value for each label."
        )
    return grey


def read_pair(image: Path, mask: Path) -> tuple[Picture, Picture, tuple[str, ...]]:
    """Read an image and its mask on one grid; return (image, mask, keys of `TOLD` that must be reported).

    If their EXIF orientations differ, both are turned upright if their sizes then agree, else taken as they are stored.
    Raises CourseError as `read_picture` does, and if the sizes differ.
    """
    pair = read_picture(image), read_picture(mask, labels=True)
    told = ()
    one_turned = pair[0].orientation != pair[1].orientation
    stored = [_as_stored(picture) for picture in pair]
    if one_turned and stored[0].shape == stored[1].shape:
        told = ("turned_alone",)
        if pair[0].pixels.shape != pair[1].pixels.shape:
            told = ("stored",)
            pair = tuple(picture._replace(pixels=pixels) for picture, pixels in zip(pair, stored))
    (height, width), (mask_height, mask_width) = (picture.pixels.shape for picture in pair)
    if (height, width) != (mask_height, mask_width):
        raise CourseError(
            f"{end_of_path(image)} has {width} x {height} pixels but its mask {mask_width} x {mask_height}: "
            "both must have the same size."
        )
    return *pair, told


def _hash(pixels):
    return hashlib.sha256(f"{pixels.dtype.str} {pixels.shape} ".encode() + pixels.tobytes()).hexdigest()


def _values(pixels):
    """Return {value: number of pixels}."""
    values, counts = np.unique(pixels, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist()))


def _is_outline(drawn):
    """Tell whether a mask is a line, too thin for 3 x 3 pixels, around an area larger than itself."""
    columns = drawn[:-2] & drawn[1:-1] & drawn[2:]
    if not drawn.any() or (columns[:, :-2] & columns[:, 1:-1] & columns[:, 2:]).any():
        return False
    from scipy import ndimage

    return bool(ndimage.binary_fill_holes(drawn).sum() > 2 * drawn.sum())


def measure_pair(pair: Pair) -> Pair:
    """Read the files of a pair and return it with its Facts; raises CourseError as `read_pair` does."""
    image, mask, told = read_pair(pair.image, pair.mask)
    pixels, labels = image.pixels, mask.pixels
    greys = GreyRange.of(pixels)
    black, white, _ = greys.window()
    grey = pixels if pixels.dtype == np.uint8 else to_greys(pixels, black, white)
    thumbnail = Image.fromarray(grey).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
    border = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    facts = Facts(
        size=pixels.shape,
        channels=image.channels,
        image_plain=image.plain,
        mask_plain=mask.plain,
        deep=pixels.dtype != np.uint8,
        greys=greys,
        mask_values=_values(labels),
        border_values=frozenset(_values(border)),
        outline=_is_outline(labels != labels.min()),
        lossy=mask.lossy,
        image_hash=_hash(pixels),
        mask_hash=_hash(labels),
        thumbnail=np.asarray(thumbnail),
        palette=mask.palette,
        crowded=are_crowded(np.clip(pixels, black, white)),
        told=told,
    )
    return replace(pair, facts=facts)


def measure_pairs(pairs: list[Pair], progress: bool) -> list[Pair]:
    """Read every pair once and return all with their Facts.

    Raises CourseError for the first bad pair, and as `check_palettes` does.
    """
    pairs = parallel(measure_pair, pairs, "reading images and masks", progress)
    check_palettes([(pair.mask, pair.facts.palette) for pair in pairs])
    return pairs


def check_palettes(palettes: list[tuple[Path, dict]]) -> None:
    """Raise CourseError if two masks, given as (path, palette), give a colour two labels, or a label two colours.

    Their labels were then numbered file by file, and do not mean the same structure.
    """
    first, first_colour = {}, {}
    for path, palette in palettes:
        for colour, label in palette.items():
            other_label, other = first.setdefault(colour, (label, path))
            if other_label != label:
                raise CourseError(
                    f"The colour {colour} is label {other_label} in {end_of_path(other)} and {label} in "
                    f"{end_of_path(path)}: save the masks as grey pictures, or with the same palette."
                )
            other_colour, other = first_colour.setdefault(label, (colour, path))
            if label and other_colour != colour:
                raise CourseError(
                    f"Label {label} has the colour {other_colour} in {end_of_path(other)}, but {colour} in "
                    f"{end_of_path(path)}, so it may be two structures. Save the masks as grey pictures, with a grey "
                    "for each structure."
                )
