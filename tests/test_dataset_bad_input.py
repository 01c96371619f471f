"""Each kind of bad input gets one sentence, and the work folder stays unchanged."""

import gzip
import io
import json
import os
import shutil
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from functools import partial
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from course import sources
from course.importing import import_dataset
from course.workspace import CourseError

SIZE = 24
NOISE = np.random.default_rng(0).bytes(50_000)
DICOM = bytes(128) + b"DICM" + bytes(200)
CASES = {}


def case(name, sentence, make, *arguments, **options):
    """Register a bad input: make(folder, *arguments) builds it and returns the dataset; `options` go to the import."""
    assert name not in CASES
    CASES[name] = (lambda folder: make(folder, *arguments)), sentence, options


# --- what they are made of ------------------------------------------------------------------------------


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE)).astype(np.uint8))


def mask(value=255, size=SIZE):
    pixels = np.zeros((size, size), np.uint8)
    pixels[5:9, 6:12] = value
    return Image.fromarray(pixels)


def png(width, height, depth=8, colour=0, rows=b"\0" * 1000):
    """The bytes of a PNG that claims a size and holds these rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def png_bytes(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * 0.6)])


def alter(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


def changed(folder, change, make, *arguments):
    """What `make` makes, with its file changed by a function."""
    path = make(folder, *arguments)
    change(path)
    return path


def given(folder, dataset):
    return dataset


def files(folder, name, contents):
    """A folder of files with these contents: {path: bytes}."""
    (folder / name).mkdir(exist_ok=True)
    for path, content in contents.items():
        (folder / name / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / name / path).write_bytes(content)
    return folder / name


def file(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


def make_dataset(folder, patients=("train/p1", "train/p2", "valid/p3", "test/p4"), slices=2):
    """A small valid dataset; a patient without a subset goes into images/ and masks/ of the folder itself."""
    for number, place in enumerate(patients):
        *subset, patient = place.split("/")
        for index in range(slices):
            for kind, drawn in (("images", picture(10 * number + index)), ("masks", mask())):
                target = folder.joinpath(*subset, kind)
                target.mkdir(parents=True, exist_ok=True)
                drawn.save(target / f"{patient}_{index:03d}.png")
    return folder


def with_copies(folder, copies, *patients):
    """A dataset in which files are copied: {path: path of the copy}."""
    make_dataset(folder, *patients)
    for one, other in copies.items():
        shutil.copy(folder / one, folder / other)
    return folder


def with_image(folder, content, name="p1_000.png"):
    """A dataset with an image of these bytes, or one written by a function. An image of p1_000 replaces that PNG."""
    images = make_dataset(folder) / "train" / "images"
    if name.startswith("p1_000.") and name != "p1_000.png":
        (images / "p1_000.png").unlink()
    images.joinpath(name).write_bytes(content) if isinstance(content, bytes) else content(images / name)
    return folder


def with_masks(folder, drawn, which="train/masks/p1_000.png"):
    for path in list(make_dataset(folder).glob(which)):
        drawn.save(path)
    return folder


def make_task(folder, image=None, label=None):
    """A small valid decathlon task; the first patient gets `image` and `label` if they are given."""
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 900, (8, 6, 4)).astype(np.int16)
        drawn = np.zeros((8, 6, 4), np.uint8)
        drawn[2:4, 2:4, 1:3] = 1
        if number == 0:
            values = values if image is None else image
            drawn = drawn if label is None else label
        for kind, content in (("imagesTr", values), ("labelsTr", drawn)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(content, np.eye(4)), folder / kind / f"case_{number}.nii.gz")
    labels = {"0": "background", "1": "cavity", "2": "wall"}
    (folder / "dataset.json").write_text(json.dumps({"name": "Organ", "labels": labels}))
    return folder


def without(folder, name, make=make_dataset):
    """A dataset, or a task, in which a file or folder is missing."""
    place = make(folder) / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    return folder


def with_volume(folder, content, name="imagesTr/case_0.nii.gz"):
    """A task in which one file holds other bytes, or has been changed by a function."""
    path = make_task(folder) / name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    return folder


def zip_with(folder, entries=(), name="heart.zip", compression=zipfile.ZIP_DEFLATED):
    """A zip of a valid dataset and of `entries`: (name or ZipInfo, content)."""
    make_dataset(folder / "good")
    with zipfile.ZipFile(folder / name, "w", compression) as packed:
        for path in sorted((folder / "good").rglob("*.png")):
            packed.write(path, path.relative_to(folder / "good").as_posix())
        for entry, content in entries:
            packed.writestr(entry, content)
    return folder / name


def tar_with(folder, name, *members):
    """A tar, compressed if its name says so, with one member for each (name, type or content)."""
    with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as packed:
        for path, content in members:
            member = tarfile.TarInfo(path)
            if content not in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, "/etc/passwd"
                packed.addfile(member)
    return folder / name


# --- no dataset at all ----------------------------------------------------------------------------------


DRIVE = "/content/drive/MyDrive/heart.zip"
ADDRESS = "https://example.org/heart.zip"
TEXT = {"a.txt": b"text"}
STRAYS = {".DS_Store": b"", "__MACOSX/a.png": b""}

case("no such path", r"nowhere does not exist: check its spelling", lambda folder: folder / "nowhere")
case("drive that is not mounted", r"MyDrive/heart\.zip does not exist: mount Drive first", given, DRIVE)
case("empty text", r"dataset='' names no dataset", given, "")
case("nothing", r"dataset=None names no dataset", given, None)
case("a number", r"dataset=7 names no dataset", given, 7)
case("a web address", r"https://example\.org/heart\.zip is a web address: download the file", given, ADDRESS)
case("an empty folder", r"empty is not a dataset: it holds no picture and no volume", files, "empty", {})
case("texts", r"notes is not a dataset: it holds only .*a\.txt and the like", files, "notes", TEXT)
case("strays", r"strays is not a dataset: it holds no picture and no volume", files, "strays", STRAYS)
case("photos", r"photos/a\.png has no mask, and no other", files, "photos", {"a.png": png_bytes(picture())})
case("a sample of a negative seed", r"The sample cannot be made: seed must be at least 0", given, "sample", seed=-1)


def as_heart(folder, make):
    make(folder)
    return "heart"


OF_PICTURES = r"holds pictures, not the volumes of the heart data: give this folder as dataset"
OF_OTHERS = r"The heart data have no patient called case_0, case_1, case_2: take"
case("a heart source of pictures", OF_PICTURES, as_heart, make_dataset, heart_source="FOLDER")
case("other volumes as heart", OF_OTHERS, as_heart, make_task, heart_source="FOLDER")


# --- archives -------------------------------------------------------------------------------------------


def link_entry(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


def lock(path):
    """Mark the files of a zip as encrypted in its headers."""
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 4)
    path.write_bytes(content)


def zip_of(folder, name, contents):
    with zipfile.ZipFile(folder / name, "w") as packed:
        for path, content in contents.items():
            packed.writestr(path, content)
    return folder / name


NO_ARCHIVE = r"is neither a zip nor a tar archive, or it is damaged"
ONE = "train/images/a.png"
BOMB = b"\0" * (65 * 2**20)
BELOW = [("train/images/p1_000.png/p1_001.png", b"")]
TWICE = [("train/images/p1_000.png", b"")]
TWICE_BUT_FOR_CASE = [("TRAIN/images/P1_000.png", b"")]
LINK = [(link_entry("train/images/p5_000.png"), "/etc/passwd"), ("train/masks/p5_000.png", png_bytes(mask()))]
OUTER = "outer.zip", {"heart.zip": b"whatever it holds"}
SCANS = "scans.zip", {"scans/images/0.dcm": DICOM, "scans/masks/0.png": png_bytes(mask())}
STORED = [], "heart.zip", zipfile.ZIP_STORED

case("a text called zip", rf"heart\.zip {NO_ARCHIVE}", file, "heart.zip", b"This is not a zip.")
case("a single picture", r"one\.png is a single file: give the folder", file, "one.png", png_bytes(picture()))
case("a single volume", r"one\.nii\.gz is a single file: give the folder", file, "one.nii.gz", gzip.compress(NOISE))
case("a single DICOM file", r"one is DICOM, which cannot be imported", file, "one", DICOM)
case("a zip that was cut", rf"heart\.zip {NO_ARCHIVE}", changed, cut, zip_with)
wrong_byte = partial(alter, place=100)
case("a zip with a wrong byte", r"heart\.zip is damaged \(Bad CRC-32", changed, wrong_byte, zip_with, *STORED)
case("a zip with a password", r"heart\.zip is locked with a password", changed, lock, zip_with)
case("a zip with a name twice", r"holds 'train/images/p1_000\.png' twice", zip_with, TWICE)
case("names that differ in case", r"holds 'TRAIN/images/P1_000\.png' twice", zip_with, TWICE_BUT_FOR_CASE)
case("a file below a file", r"heart\.zip uses one name, at .*/p1_000\.png.*, for a file and a folder", zip_with, BELOW)
case("a zip with a link", r"train/images/p5_000\.png cannot be read as a picture", zip_with, LINK)
case("a zip in a zip", r"outer\.zip is not a dataset: .* only .*heart\.zip and the like .*; unpack", zip_of, *OUTER)
case("a zip of texts", r"^texts\.zip is not a dataset: it holds no picture and no vol", zip_of, "texts.zip", TEXT)
case("DICOM in a zip", r"images/0\.dcm is DICOM, which cannot be imported", zip_of, *SCANS)
case("a file of DICOM", r"0\.dcm is DICOM, which cannot be imported", file, "0.dcm", DICOM)
for path, told in {
    "../../evil.png": r"'\.\./\.\./evil\.png', which leads out of its folder",
    "/tmp/evil.png": r"'/tmp/evil\.png', which leads out of its folder",
    "C:\\evil.png": r"'C:/evil\.png', which leads out of its folder",
    "train/C:/evil.png": r"'train/C:/evil\.png', which leads out of its folder, at least on Windows",
    "..\\..\\evil.png": r"'\.\./\.\./evil\.png', which leads out of its folder",
}.items():
    case(f"a zip that holds {path}", rf"heart\.zip holds the path {told}", zip_with, [(path, b"")])
case("a tar that climbs out", r"holds the path '\.\./evil\.png'", tar_with, "heart.tar", ("../evil.png", b"x"))
for name, kind in {"soft link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}.items():
    case(f"a tar with a {name}", f"the link '{ONE}', and links are refused", tar_with, "heart.tar", (ONE, kind))
case("a tar with a name twice", f"holds '{ONE}' twice", tar_with, "heart.tar", (ONE, b"x"), (ONE, b"y"))
for name in ("heart.tar", "heart.tar.gz"):
    case(f"a {name} that was cut", f"{name} is damaged", changed, cut, tar_with, name, (ONE, NOISE))
wrong_byte = partial(alter, place=30_000)
case("a tar with a wrong byte", "heart.tar.gz is damaged", changed, wrong_byte, tar_with, "heart.tar.gz", (ONE, NOISE))
case("a zip bomb", r"heart\.zip unpacks to more than 0\.0625 GB: if that is right", zip_with, [(ONE, BOMB)])
for name in (ONE, "notes.txt"):  # the second is not read
    case(f"a tar bomb {name}", r"unpacks to more than 0\.0625 GB", tar_with, "heart.tar.gz", (name, BOMB))
case("a bomb in a name", rf"heart\.tar\.gz {NO_ARCHIVE}", tar_with, "heart.tar.gz", ("a" * 2**21, b""))

# --- folders --------------------------------------------------------------------------------------------


def images_of_dicom(folder):
    for path in list(make_dataset(folder).glob("*/images/*.png")):
        path.unlink()
        path.with_suffix(".dcm").write_bytes(b"by its name")
    return folder


TWO_SUFFIXES = {"train/images/p1_000.png": "train/images/p1_000.jpg"}
NO_TEXT = r"holds characters that cannot be shown"
IN_TWO = {f"train/{kind}/p1_000.png": f"test/{kind}/p1_004.png" for kind in ("images", "masks")}
OUTSIDE = "train/p1", "valid/p2", "test/p3", "p5"
EVERYBODY = ["p1", "p2", "p3", "p4"]
STRANGER = r"exclude names 'p9', which is neither a patient nor a file"
NO_PATTERN = r"patient_pattern='\(' is not a regular expression"
NO_GROUP = r"patient_pattern='\(\.\*\)_\.\*' has no group named patient"

case("a missing mask", r"train/images/p1_001\.png has no mask: add a mask", without, "train/masks/p1_001.png")
case("missing masks", r"train/images/p1_000\.png \(and 3 more\) has no mask", without, "train/masks")
case("a missing image", r"test/masks/p4_000\.png is a mask without an image", without, "test/images/p4_000.png")
case(
    "two suffixes", r"p1_000\.jpg and train/images/p1_000\.png are images with the same name", with_copies, TWO_SUFFIXES
)
case("outside the subsets", r"/p5_000\.png \(and 1 more\) lies outside train, valid and test", make_dataset, OUTSIDE)
if sys.platform != "darwin":  # macOS disks allow no such names
    case("a name that is no text", rf"The name 'p1_0\\udce9\.png' {NO_TEXT}", with_image, b"", "p1_0\udce9.png")
    case("a folder that is no text", rf"The name 'd\\udce9' {NO_TEXT}", files, ".", {"d\udce9/images/p1_000.png": b""})
case("a name of two lines", rf"The name 'p1\\n0\.png' {NO_TEXT}", with_image, b"", "p1\n0.png")
NO_VALID = "train/p1", "train/p2", "train/p3", "test/p4"
TRAIN_FIRST = r"Patient 'p1' is in two subsets \(test/p1_004 and train/p1_000\)"
case("patient in train and test, valid to be drawn", TRAIN_FIRST, with_copies, IN_TWO, NO_VALID)
case("exclusion of a stranger", STRANGER, make_dataset, exclude=["p9"])
case("exclusion of everybody", r"exclude leaves nothing of the dataset", make_dataset, exclude=EVERYBODY)
case("exclusion of a subset", r"exclude leaves nothing of test: name fewer", make_dataset, exclude="p4")
case("a pattern that is none", NO_PATTERN, make_dataset, patient_pattern="(")
case("a pattern without a patient", NO_GROUP, make_dataset, patient_pattern="(.*)_.*")
case("DICOM beside masks", r"/images/p\d_000\.dcm is DICOM.* with dcm2niix", images_of_dicom)
case("DICOM without an ending", r"scans/a/IM_1 is DICOM, which", files, "scans", {"a/IM_1": DICOM})
NO_DESCRIPTION = r"dataset\.json was not written by 01_dataset_upload: give the folder .* instead"
THEIRS = b'{"name": "LeftAtrium", "numTraining": 20}'
NO_NAME = r"exclude=.*: give the name of a patient or file, or a list of names"
for exclude in (Path("p1"), 5, [["p1"]], b"p1"):
    case(f"exclusion of {exclude!r}", NO_NAME, make_dataset, exclude=exclude)
BYTES = {"patient_pattern": rb"(?P<patient>.+)_(?P<slice>\d+)"}
case("a pattern of bytes", r"is not a regular expression \(.*must be str, not bytes", make_dataset, **BYTES)
case("a seed that is no number", r"seed=\[1\] is not a whole number", make_dataset, seed=[1])
case("the home of a stranger", r"~nobody7/x does not exist: check its spelling", given, "~nobody7/x")
case("a folder called as a description", "There is no file .*dataset.json: run 01", files, "dataset.json", TEXT)
NO_ROOT = b'{"root": 5, "folds": [], "subsets": {}}'
case("a description without a root", NO_DESCRIPTION, file, "dataset.json", NO_ROOT)
case("a damaged description", NO_DESCRIPTION, file, "dataset.json", b'{"root": ')
case("the decathlon's own description", NO_DESCRIPTION, file, "dataset.json", THEIRS)

# --- pictures -------------------------------------------------------------------------------------------


def link_to_nothing(path):
    path.unlink()
    path.symlink_to(path.parent / "gone.png")


def pages(count):
    return lambda path: picture().save(path, save_all=True, append_images=[picture(n) for n in range(1, count)])


def with_corner(mode, structure, corner):
    """A mask that holds a second structure, in a corner."""
    drawn = Image.new(mode, (SIZE, SIZE))
    drawn.paste(structure, (4, 4, 9, 9))
    drawn.paste(corner, (12, 12, 20, 20))
    return drawn


def masks_of_two_colours(folder, mode, *palettes):
    """A dataset whose first two masks have these colours for background and structure, in a palette or as RGB."""
    make_dataset(folder)
    for name, colours in zip(("p1_000", "p1_001"), palettes):
        drawn = Image.frombytes("P", (SIZE, SIZE), mask(1).tobytes())
        drawn.putpalette(colours)
        drawn.convert(mode).save(folder / "train" / "masks" / f"{name}.png")
    return folder


UNREADABLE = r"train/images/p1_000\.png cannot be read as a picture"
NO_FORMAT = rf"{UNREADABLE} \(it is none of PNG, JPEG, TIFF, BMP, GIF, or has too many bits or channels\)"
ONLY_FIRST = r"of which only the first would be read: save each in a file"
IMAGE = r"train/images/p1_000\."
SIXTEEN_BITS = png(SIZE, SIZE, 16, 2, (b"\0" + np.random.default_rng(0).bytes(6 * SIZE)) * SIZE)

case("a text called png", NO_FORMAT, with_image, b"not a picture")
case("a format that is not read", NO_FORMAT, with_image, lambda path: picture().save(path, "PPM"))
case("an empty file", UNREADABLE, with_image, b"")
case("DICOM with another ending", r"p1_000\.png is DICOM, .* with dcm2niix", with_image, DICOM)
case("a picture that was cut", UNREADABLE, with_image, cut)
case("a picture with a wrong byte", UNREADABLE, with_image, partial(alter, place=20))
case("a link to nothing", UNREADABLE, with_image, link_to_nothing)
case("a large bomb", rf"{IMAGE}png claims 9000 x 9000 pixels, but at most 50,000,000", with_image, png(9000, 9000))
case("a picture of one row", rf"{IMAGE}png has 9 x 1 pixels, which is only a line", with_image, png(9, 1))
case("a huge bomb", rf"{UNREADABLE} \(Image size \(4000000000 pixels\) exceeds limit", with_image, png(100_000, 40_000))
case("three pages", rf"{IMAGE}tif holds 3 pictures, {ONLY_FIRST}", with_image, pages(3), "p1_000.tif")
case("colours of sixteen bits", rf"{IMAGE}png has several channels of 16 bits, and 8", with_image, SIXTEEN_BITS)
MASK = r"train/masks/p1_000\.png"
MANY = rf"{MASK} holds more than two values, unlike most masks \(all together hold"
NO_FOREGROUND = r"foreground=\[7\] does not divide the masks' values into structure and background: .* 0, 255"
NO_NAMES = r"foreground='wall' is not a label of this dataset: choose from its numbers"
case("a mask of another size", rf"{IMAGE}png has 24 x 24 pixels but its mask 20 x 20", with_masks, mask(size=20))
case("three values", rf"{MANY} 0, 128, 255\): correct or exclude it", with_masks, with_corner("L", 255, 128))
case("masks in two conventions", r"and other masks hold 3 values \(0, 1, 255\)", with_masks, mask(1))
case("a photo as mask", rf"{MANY} 0, 1, .*, 255\): correct or exclude it", with_masks, picture())
ALL_EMPTY = r"All masks are empty: .*p\d_000\.png and the others hold only the value 0"
case("no masks", ALL_EMPTY, with_masks, mask(0), "*/masks/*")
RED, GREEN = [0, 0, 0, 255, 0, 0], [0, 0, 0, 0, 130, 0]
TWO_COLOURS = (
    r"^Label {} has the colour \(255, 0, 0, 255\) in .*, but \(0, 130, 0, 255\) in .*p1_001\.png, so it may be two"
)
case("a label of two colours", TWO_COLOURS.format(1), masks_of_two_colours, "P", RED, GREEN)
case("two colours of one grey", TWO_COLOURS.format(76), masks_of_two_colours, "RGB", RED, GREEN)
RED_AND_GREEN = with_corner("RGB", "#f00", "#008200")
case("red and green", rf"{MASK} has different colours that become the same grey", with_masks, RED_AND_GREEN)
for foreground in ([[255]], [], [None]):
    case(f"foreground {foreground}", r"foreground=.* names no label: give a", make_dataset, foreground=foreground)
case("foreground that is not there", NO_FOREGROUND, make_dataset, foreground=7)
case("foreground by name in pictures", NO_NAMES, make_dataset, foreground="wall")

# --- volumes --------------------------------------------------------------------------------------------


def with_grids(folder, image, label, size=(8, 6, 4), name="case_0"):
    """A task in which one image and its labels have these affines."""
    if not folder.joinpath("imagesTr").exists():
        make_task(folder)
    values = np.arange(np.prod(size), dtype=np.int16).reshape(size) % 2
    for kind, affine in (("imagesTr", image), ("labelsTr", label)):
        nibabel.save(nibabel.Nifti1Image(values, np.array(affine, float)), folder / kind / f"{name}.nii.gz")
    return folder


def volumes_of_two_planes(folder):
    with_grids(folder, np.diag([5, 1, 1, 1]), np.diag([5, 1, 1, 1]))
    return with_grids(folder, np.diag([1, 1, 5, 1]), np.diag([1, 1, 5, 1]), name="case_1")


def axes_that_are_no_numbers():
    volume = nibabel.Nifti1Image(np.ones((8, 6, 4), np.int16), np.eye(4))
    volume.header["srow_x"], volume.header["sform_code"] = np.nan, 1
    return gzip.compress(bytes(volume.header.binaryblock) + bytes(4) + np.ones(192, np.int16).tobytes())


def header_of_a_huge_volume():
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    return gzip.compress(header.binaryblock + b"\0" * 100)


def unpack_and_cut(path):
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes())[:400])
    path.unlink()


def spoil_checksum(path):
    content = path.read_bytes()
    path.write_bytes(content[:-8] + bytes(4) + content[-4:])


def a_picture_among_volumes(folder):
    without(folder, "labelsTr/case_0.nii.gz", make_task)
    mask().save(folder / "labelsTr" / "case_0.png")
    return folder


def a_thousand_labels(folder):
    make_task(folder, label=labels(range(192)))
    values = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    for kind in ("imagesTr", "labelsTr"):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / kind / "case_1.nii.gz")
    (folder / "dataset.json").unlink()
    return folder


def labels(values, dtype=np.int16):
    """A label volume in which these values are repeated."""
    return np.resize(np.array(values, dtype), 192).reshape(8, 6, 4)


DAMAGED = r"case_0\.nii\.gz is damaged or not NIfTI"
ELSEWHERE = r"The labels of .*/imagesTr/case_0\.nii\.gz lie up to"
TURNED = [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]  # axes that run to P, R, S
ASIDE = [[2, 0, 0, 1.2], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]]
TWO_MM = np.diag([2, 2, 2, 1])
TWO_PLANES = (
    r"thickest \(the last if none is\): in .*case_0\.nii\.gz axis 1, but in .*case_1\.nii\.gz axis 3\. Their pict"
)
SEVERAL = r"labels hold more than one structure \(1, 2(?:55)?; the names are 0 'background', 1 'cavity', 2 'wall'\)"
NO_LABEL = r"foreground='valve' is not a label of this dataset: .*'cavity' \(1\), 'wall' \(2\)"
RUN_TOGETHER = r"case_0\.nii\.gz holds 192 values from 0 to 2, not only whole numbers.*choose the label with fore"
PATTERN = {"patient_pattern": r"(?P<patient>case)_\d"}

case("a pattern for volumes", r"patient_pattern is for pictures, and each volume is taken as", make_task, **PATTERN)
by_the_header = rf"{ELSEWHERE} 7 voxels away from it, by the spacing, origin and direction"
case("labels turned elsewhere", by_the_header, with_grids, np.diag([1, 1, 1.01, 1]), TURNED, (8, 8, 4))
by_the_voxel = rf"{ELSEWHERE} 0\.6 voxels away.* or, if they fit it voxel by voxel, give"
TURNED_AWAY = r"the shape \(8, 6, 4\) but its labels \(8, 6, 4\) \(\(6, 8, 4\) once turned to its orientation"
case("labels turned away", TURNED_AWAY, with_grids, TWO_MM, TURNED)
case("labels at another origin", by_the_voxel, with_grids, TWO_MM, ASIDE)
case("volumes of two planes", TWO_PLANES, volumes_of_two_planes)
for shape in ((4, 6, 8), (8, 6, 3)):
    told = rf"case_0\.nii\.gz has the shape \(8, 6, 4\) but its labels \({', '.join(map(str, shape))}\)"
    case(f"labels of the shape {shape}", told, make_task, None, np.ones(shape, np.uint8))
for name, values, told in [
    ("four axes", np.ones((8, 6, 4, 2), np.int16), r"has 4 axes \(8, 6, 4, 2\), but this course reads 3-D volumes"),
    ("nan", np.full((8, 6, 4), np.nan, np.float32), "holds values that are not finite"),
    ("complex numbers", np.ones((8, 6, 4), np.complex64), "holds complex64 values"),
]:
    case(f"a volume of {name}", rf"imagesTr/case_0\.nii\.gz {told}", make_task, values)
    case(f"labels of {name}", rf"labelsTr/case_0\.nii\.gz {told}", make_task, None, values)
case("axes that are no numbers", DAMAGED, with_volume, axes_that_are_no_numbers())
case("a volume that was cut", DAMAGED, with_volume, cut)
case("a volume with a wrong byte", rf"{DAMAGED} \(CRC check failed", with_volume, spoil_checksum)
case("a plain volume that was cut", r"case_0\.nii is damaged or not NIfTI", with_volume, unpack_and_cut)
case("a text called volume", DAMAGED, with_volume, b"not a volume")
HUGE = r"case_0\.nii\.gz claims the size \(30000, 30000, 30000\)"
case("a huge volume", HUGE, with_volume, header_of_a_huge_volume())
MASKS_ALONE = r"labelsTr/case_0\.nii\.gz \(and 2 more\) is a mask without an image"
case("no volumes", MASKS_ALONE, without, "imagesTr", make_task)
case("a volume without labels", r"imagesTr/case_1\.nii\.gz has no mask", without, "labelsTr/case_1.nii.gz", make_task)
case("labels that ran together", RUN_TOGETHER, make_task, None, labels(np.linspace(0, 2, 192), float))
TO_IGNORE = labels([0, 0, 0, 1, 255])
case("a label to ignore", rf"{SEVERAL}\. .*\. 255 often means 'do not score'", make_task, None, TO_IGNORE)
WITH_TWO = rf"{SEVERAL}\. .*\. .*case_0\.nii\.gz holds 0, 1, 2\."
case("labels of two structures", WITH_TWO, make_task, None, labels([0, 0, 1, 2]))
EITHER = rf"{SEVERAL}\. .*\. No volume holds two of them, so they may all be one structure"
case("one structure with two numbers", EITHER, make_task, None, labels([0, 0, 0, 2]))
THOUSAND = r"more than one structure \(1, 2, 3, 4, 5, 6, \.\.\., 999\)\. Choose .* blurred"
case("a thousand labels", THOUSAND, a_thousand_labels)
case("a label name that is not there", NO_LABEL, make_task, foreground="valve")
NOBODY_HAS = r"foreground='wall': no label volume holds 2\. Choose from 0, 1"
case("a label that nobody has", NOBODY_HAS, make_task, foreground="wall")
ALONE = r"The label volumes hold only {} .*, so the structure would be all of their voxels or none"
case("all labels chosen", ALONE.format("0, 1"), make_task, foreground=[0, 1])
case("a picture among volumes", r"labelsTr/case_0\.png is a picture among NIfTI volumes", a_picture_among_volumes)
case("a broken description", r"dataset\.json is not readable as JSON", with_volume, b"{", "dataset.json")

# --- the geometry of pictures ---------------------------------------------------------------------------


def with_geometry(folder, described):
    text = described if isinstance(described, str) else json.dumps(described)
    (make_dataset(folder) / "geometry.json").write_text(text)
    return folder


ZERO = {"patients": {"p1": {"spacing": [1, 1, 1]}, "p2": {"spacing": [1, 0, 1]}}}
for described, told in [
    ("spacing: 1", r"geometry\.json is not readable as JSON"),
    ([1, 1, 1], r"geometry\.json must hold \{\"spacing\": \[row, column, slice\], \"axes\""),
    (ZERO, r"geometry\.json, p2: a spacing is three numbers above 0"),
    ({"spacings": [1, 1, 1]}, r"geometry\.json: only spacing and axes are expected there"),
    ({"patients": {"q1": {}, "p9": {}}}, r"geometry\.json describes 'p9', who is not a patient of this"),
]:
    case(f"geometry {described}", told, with_geometry, described)
BOTH = r"geometry\.json and spacing=\[1, 1, 1\] both give a spacing: leave one out"
NO_PICTURES = r"spacing is for pictures of your own\. Leave it out: volumes and the sample"
case("geometry and spacing", BOTH, with_geometry, {"spacing": [1, 1, 1]}, spacing=[1, 1, 1])
case("a spacing of volumes", NO_PICTURES, make_task, spacing=[1, 1, 1])
case("a spacing of the sample", NO_PICTURES, given, "sample", spacing=[1, 1, 1])

# --- the test -------------------------------------------------------------------------------------------


def everything_below(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A work folder that holds the result of an earlier import, converted, and another file."""
    folder = tmp_path_factory.mktemp("earlier")
    import_dataset(zip_with(folder), folder / "data", progress=False)
    (folder / "data" / "history.csv").write_text("epoch,loss\n")
    return folder / "data"


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_one_sentence_and_changes_nothing(name, earlier, tmp_path, monkeypatch):
    make, sentence, options = CASES[name]
    work_dir = Path(shutil.copytree(earlier, tmp_path / "data"))
    folder = tmp_path / "Daten für Übung"
    folder.mkdir()
    monkeypatch.setattr(sources, "MAX_UNPACKED", 2**26)
    if options.get("heart_source") == "FOLDER":
        options = {**options, "heart_source": folder}
    dataset = make(folder)
    before = everything_below(tmp_path)
    with pytest.raises(CourseError, match=sentence) as caught:
        import_dataset(dataset, work_dir, progress=False, **options)
    assert everything_below(tmp_path) == before
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400 + len(str(tmp_path))
    assert str(work_dir / "dataset.importing") not in str(caught.value)
    assert caught.value._render_traceback_() == [f"CourseError: {caught.value}"]


def test_bad_input_does_not_create_a_work_folder(tmp_path):
    with pytest.raises(CourseError):
        import_dataset(tmp_path / "nowhere", tmp_path / "data", progress=False)
    assert os.listdir(tmp_path) == []


def test_a_file_given_as_work_folder_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(CourseError, match="data cannot be made or written to"):
        import_dataset(make_dataset(tmp_path / "good"), tmp_path / "data", progress=False)
