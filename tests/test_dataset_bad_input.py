"""Every bad input that was thought of, and the sentence it gets; after each the work folder is what it was."""

import gzip
import io
import json
import os
import pickle
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from course import sources
from course.importing import import_dataset
from course.workspace import CourseError

SIZE = 24


def picture(seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE)).astype(np.uint8))


def mask(value=255, size=SIZE):
    pixels = np.zeros((size, size), np.uint8)
    pixels[5:9, 6:12] = value
    return Image.fromarray(pixels)


def make_dataset(folder, patients=("train/p1", "train/p2", "valid/p3", "test/p4"), slices=2):
    """A small good dataset; a patient without a subset goes into images/ and masks/ of the folder itself."""
    for number, place in enumerate(patients):
        *subset, patient = place.split("/")
        for index in range(slices):
            for kind, drawn in (("images", picture(10 * number + index)), ("masks", mask())):
                target = folder.joinpath(*subset, kind)
                target.mkdir(parents=True, exist_ok=True)
                drawn.save(target / f"{patient}_{index:03d}.png")
    return folder


def make_task(folder, image=None, label=None, patients=3):
    """A small good decathlon task; the first patient gets `image` and `label` where they are given."""
    for number in range(patients):
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


def zip_with(path, entries, compression=zipfile.ZIP_DEFLATED):
    """A zip of a good dataset and of `entries`: (name or ZipInfo, content)."""
    make_dataset(path.parent / "good")
    with zipfile.ZipFile(path, "w", compression) as packed:
        for file in sorted((path.parent / "good").rglob("*.png")):
            packed.write(file, file.relative_to(path.parent / "good").as_posix())
        for name, content in entries:
            packed.writestr(name, content)
    return path


def tar_with(path, *members, mode="w"):
    """A tar of one member for each (name, type or content)."""
    with tarfile.open(path, mode) as packed:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content not in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, "/etc/passwd"
                packed.addfile(member)
    return path


def link_entry():
    entry = zipfile.ZipInfo("train/images/p5_000.png")
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


def locked_zip(path):
    content = bytearray(zip_with(path, []).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(signature, place + 4)
    path.write_bytes(content)
    return path


def cut(path, keep=0.6):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    return path


def alter(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    return path


def png_header(width, height):
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def png_bytes(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


class Grenade:
    """Goes off when it is unpickled."""

    def __reduce__(self):
        return os.abort, ()


CASES = {}


def case(sentence, **options):
    """Register a function that makes a bad input below a folder and returns it; `options` go to the import."""

    def register(function):
        CASES[function.__name__] = (function, sentence, options)
        return function

    return register


# --- no dataset at all ----------------------------------------------------------------------------------


@case(r"nowhere does not exist: check its spelling")
def path_that_does_not_exist(folder):
    return folder / "nowhere"


@case(r"/content/drive/MyDrive/heart\.zip does not exist: mount Drive first")
def drive_that_is_not_mounted(folder):
    return "/content/drive/MyDrive/heart.zip"


@case(r"dataset='' is nothing to read")
def empty_text(folder):
    return ""


@case(r"dataset=None is nothing to read")
def nothing(folder):
    return None


@case(r"dataset=7 is nothing to read")
def number(folder):
    return 7


@case(r"https://example\.org/heart\.zip is an address: download it")
def web_address(folder):
    return "https://example.org/heart.zip"


@case(r"empty is not a dataset: it holds nothing")
def empty_folder(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


@case(r"notes is not a dataset: it holds only .*a\.txt and the like")
def folder_of_texts(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("a")
    return folder / "notes"


@case(r"strays is not a dataset: it holds nothing")
def folder_of_strays(folder):
    (folder / "strays" / "__MACOSX").mkdir(parents=True)
    (folder / "strays" / ".DS_Store").write_text("")
    (folder / "strays" / "__MACOSX" / "a.png").write_text("")
    return folder / "strays"


@case(r"arrays is not a dataset: it holds only arrays/(images|masks)/a\.npy")
def pickled_arrays_are_not_opened(folder):
    for kind in ("images", "masks"):
        (folder / "arrays" / kind).mkdir(parents=True)
        (folder / "arrays" / kind / "a.npy").write_bytes(pickle.dumps(Grenade()))
    return folder / "arrays"


@case(r"photos/a\.png has no mask, and no other image has one")
def folder_of_photos(folder):
    (folder / "photos").mkdir()
    picture().save(folder / "photos" / "a.png")
    return folder / "photos"


@case(r"holds pictures, no volumes of the heart data: give this folder as dataset", heart_source="FOLDER")
def heart_source_of_pictures(folder):
    make_dataset(folder)
    return "heart"


@case(r"gone\.tar does not exist", heart_source="gone.tar")
def heart_source_that_does_not_exist(folder):
    return "heart"


@case(r"The sample cannot be made: seed must be at least 0", seed=-1)
def sample_of_a_negative_seed(folder):
    return "sample"


# --- archives -------------------------------------------------------------------------------------------


@case(r"heart\.zip is neither a zip nor a tar archive")
def text_called_zip(folder):
    (folder / "heart.zip").write_text("This is not a zip.")
    return folder / "heart.zip"


@case(r"one\.png is neither a zip nor a tar archive")
def single_picture(folder):
    picture().save(folder / "one.png")
    return folder / "one.png"


@case(r"heart\.zip is neither a zip nor a tar archive, or it is damaged")
def zip_that_was_cut(folder):
    return cut(zip_with(folder / "heart.zip", []))


@case(r"heart\.zip is damaged \(Bad CRC-32")
def zip_with_a_wrong_byte(folder):
    return alter(zip_with(folder / "heart.zip", [], zipfile.ZIP_STORED), 100)


@case(r"heart\.zip is locked with a password")
def zip_with_a_password(folder):
    return locked_zip(folder / "heart.zip")


@case(r"holds the path '\.\./\.\./evil\.png', which leads out of its folder")
def zip_that_climbs_out(folder):
    return zip_with(folder / "heart.zip", [("../../evil.png", b"")])


@case(r"holds the path '/tmp/evil\.png', which leads out of its folder")
def zip_with_an_absolute_path(folder):
    return zip_with(folder / "heart.zip", [("/tmp/evil.png", b"")])


@case(r"holds the path 'C:/evil\.png', which leads out of its folder")
def zip_with_a_drive(folder):
    return zip_with(folder / "heart.zip", [("C:\\evil.png", b"")])


@case(r"holds the path 'train/C:/evil\.png', which leads out of its folder, or does so on Windows")
def zip_with_a_drive_further_on(folder):
    return zip_with(folder / "heart.zip", [("train/C:/evil.png", b"")])


@case(r"which leads out of its folder")
def zip_that_climbs_out_backwards(folder):
    return zip_with(folder / "heart.zip", [("..\\..\\evil.png", b"")])


@case(r"train/images/p5_000\.png cannot be read as a picture")
def zip_with_a_link(folder):
    return zip_with(
        folder / "heart.zip", [(link_entry(), "/etc/passwd"), ("train/masks/p5_000.png", png_bytes(mask()))]
    )


@case(r"holds 'train/images/p1_000\.png' twice")
@pytest.mark.filterwarnings("ignore:Duplicate name")
def zip_with_a_name_twice(folder):
    return zip_with(folder / "heart.zip", [("train/images/p1_000.png", png_bytes(picture(9)))])


@case(r"holds 'TRAIN/images/P1_000\.png' twice")
def zip_with_names_that_differ_in_case(folder):
    return zip_with(folder / "heart.zip", [("TRAIN/images/P1_000.png", png_bytes(picture(9)))])


@case(r"heart\.zip unpacks to more than 0\.0625 GB: if that is no mistake")
def zip_bomb(folder):
    return zip_with(folder / "heart.zip", [("train/images/bomb.png", b"\0" * (65 * 2**20))])


@case(r"outer\.zip holds no picture and no volume, only heart\.zip and the like: unpack what it holds")
def zip_in_a_zip(folder):
    with zipfile.ZipFile(folder / "outer.zip", "w") as packed:
        packed.write(zip_with(folder / "heart.zip", []), "heart.zip")
    return folder / "outer.zip"


@case(r"holds the path '\.\./evil\.png', which leads out of its folder")
def tar_that_climbs_out(folder):
    return tar_with(folder / "heart.tar", ("../evil.png", b"x"))


@case(r"holds the link 'train/images/a\.png': links are refused")
def tar_with_a_soft_link(folder):
    return tar_with(folder / "heart.tar", ("train/images/a.png", tarfile.SYMTYPE))


@case(r"holds the link 'train/images/a\.png': links are refused")
def tar_with_a_hard_link(folder):
    return tar_with(folder / "heart.tar", ("train/images/a.png", tarfile.LNKTYPE))


@case(r"holds the link 'train/images/a\.png': links are refused")
def tar_with_a_device(folder):
    return tar_with(folder / "heart.tar", ("train/images/a.png", tarfile.CHRTYPE))


@case(r"holds 'train/images/a\.png' twice")
def tar_with_a_name_twice(folder):
    return tar_with(folder / "heart.tar", ("train/images/a.png", b"x"), ("train/images/a.png", b"y"))


@case(r"heart\.tar is damaged")
def tar_that_was_cut(folder):
    return cut(tar_with(folder / "heart.tar", ("train/images/a.png", b"x" * 50_000)))


@case(r"heart\.tar\.gz is damaged")
def compressed_tar_that_was_cut(folder):
    content = np.random.default_rng(0).bytes(50_000)
    return cut(tar_with(folder / "heart.tar.gz", ("train/images/a.png", content), mode="w:gz"))


@case(r"heart\.tar\.gz unpacks to more than 0\.0625 GB")
def compressed_tar_bomb(folder):
    return tar_with(folder / "heart.tar.gz", ("train/images/a.png", b"\0" * (65 * 2**20)), mode="w:gz")


@case(r"heart\.tar\.gz unpacks to more than 0\.0625 GB")
def compressed_tar_bomb_in_a_file_that_is_not_read(folder):
    return tar_with(folder / "heart.tar.gz", ("notes.txt", b"\0" * (65 * 2**20)), mode="w:gz")


@case(r"heart\.tar\.gz is neither a zip nor a tar archive, or it is damaged")
def compressed_tar_bomb_in_a_name(folder):
    return tar_with(folder / "heart.tar.gz", ("a" * (2 * 2**20), b""), mode="w:gz")


@case(r"heart\.tar\.gz is damaged")
def compressed_tar_with_a_wrong_byte(folder):
    content = np.random.default_rng(0).bytes(50_000)
    return alter(tar_with(folder / "heart.tar.gz", ("train/images/a.png", content), mode="w:gz"), 30_000)


@case(r"A file cannot be read or written: Not a directory \(p1_001\.png\)")
def zip_with_a_file_below_a_file(folder):
    return zip_with(folder / "heart.zip", [("train/images/p1_000.png/p1_001.png", b"")])


# --- folders --------------------------------------------------------------------------------------------


@case(r"train/images/p1_001\.png has no mask: add a mask of the same name")
def missing_mask(folder):
    (make_dataset(folder) / "train" / "masks" / "p1_001.png").unlink()
    return folder


@case(r"train/images/p1_000\.png \(and 3 more\) has no mask")
def missing_masks(folder):
    shutil.rmtree(make_dataset(folder) / "train" / "masks")
    return folder


@case(r"test/masks/p4_000\.png is a mask without an image")
def missing_image(folder):
    (make_dataset(folder) / "test" / "images" / "p4_000.png").unlink()
    return folder


@case(r"train/images/p1_000\.jpg and train/images/p1_000\.png are images of the same name")
def same_name_with_two_suffixes(folder):
    picture().save(make_dataset(folder) / "train" / "images" / "p1_000.jpg")
    return folder


@case(r"1 patient is too few to split into train and valid \(p1;")
def empty_subset(folder):
    make_dataset(folder, ("train/p1", "test/p2"))
    for kind in ("images", "masks"):
        (folder / "valid" / kind).mkdir(parents=True)
    return folder


@case(r"1 patient is too few to split into train and test \(p1;")
def missing_subset(folder):
    return make_dataset(folder, ("train/p1", "valid/p2"))


@case(r"/images/p5_000\.png \(and 1 more\) lies outside train, valid and test")
def images_outside_the_subsets(folder):
    make_dataset(folder, ("train/p1", "valid/p2", "test/p3", "p5"))
    return folder


@case(r"The name 'p1_0\\udce9\.png' holds letters that no system can show")
def name_that_is_no_text(folder):
    picture().save(make_dataset(folder) / "train" / "images" / "p1_0\udce9.png")
    return folder


@case(r"The name 'p1\\n0\.png' holds letters that no system can show")
def name_of_two_lines(folder):
    picture().save(make_dataset(folder) / "train" / "images" / "p1\n0.png")
    return folder


@case(r"The name 'd\\udce9' holds letters that no system can show")
def folder_that_is_no_text(folder):
    make_dataset(folder / "d\udce9")
    return folder


@case(r"Patient 'p1' is in two subsets \(test/p1_004 and train/p1_000\)")
def patient_in_two_subsets(folder):
    make_dataset(folder)
    for kind in ("images", "masks"):
        shutil.copy(folder / "train" / kind / "p1_000.png", folder / "test" / kind / "p1_004.png")
    return folder


@case(r"2 patients are too few to split into train, valid and test \(p1, p2;")
def two_patients_without_subsets(folder):
    return make_dataset(folder, ("p1", "p2"))


@case(r"1 patient is too few .* give patient_pattern=None")
def names_that_only_look_like_patients(folder):
    return make_dataset(folder, ("slice",), slices=9)


@case(r"2 patients are too few .* one scan, or one patient, under two names counts once")
def three_patients_two_of_whom_are_one(folder):
    make_dataset(folder, ("p1", "p2", "p3"))
    for index in range(2):
        shutil.copy(folder / "images" / f"p1_00{index}.png", folder / "images" / f"p3_00{index}.png")
    return folder


@case(r"exclude names 'p9', which is neither a patient nor a file", exclude=["p9"])
def exclusion_of_a_stranger(folder):
    return make_dataset(folder)


@case(r"exclude leaves nothing of the dataset", exclude=["p1", "p2", "p3", "p4"])
def exclusion_of_everybody(folder):
    return make_dataset(folder)


@case(r"The subset test holds no image once exclude is followed", exclude="p4")
def exclusion_of_a_whole_subset(folder):
    return make_dataset(folder)


@case(r"patient_pattern='\(' is not a regular expression", patient_pattern="(")
def pattern_that_is_none(folder):
    return make_dataset(folder)


@case(r"patient_pattern='\(\.\*\)_\.\*' has no group named patient", patient_pattern="(.*)_.*")
def pattern_without_a_patient(folder):
    return make_dataset(folder)


# --- pictures -------------------------------------------------------------------------------------------


def with_image(folder, write, name="p1_000.png"):
    write(make_dataset(folder) / "train" / "images" / name)
    return folder


def with_mask(folder, drawn):
    drawn.save(make_dataset(folder) / "train" / "masks" / "p1_000.png")
    return folder


@case(r"train/images/p1_000\.png cannot be read as a picture \(it is no PNG, JPEG, TIFF, BMP, GIF\)")
def text_called_png(folder):
    return with_image(folder, lambda path: path.write_text("not a picture"))


@case(r"train/images/p1_000\.png cannot be read as a picture")
def empty_picture_file(folder):
    return with_image(folder, lambda path: path.write_bytes(b""))


@case(r"train/images/p1_000\.png cannot be read as a picture")
def picture_that_was_cut(folder):
    return with_image(folder, cut)


@case(r"train/images/p1_000\.png cannot be read as a picture")
def picture_with_a_wrong_byte(folder):
    return with_image(folder, lambda path: alter(path, 20))


@case(r"train/images/p1_000\.png cannot be read as a picture")
def link_to_nothing(folder):
    def write(path):
        path.unlink()
        path.symlink_to(path.parent / "gone.png")

    return with_image(folder, write)


@case(r"train/images/p1_000\.png cannot be read as a picture \(it is no PNG, JPEG, TIFF, BMP, GIF\)")
def format_that_is_not_read(folder):
    return with_image(folder, lambda path: picture().save(path, "PPM"))


@case(r"train/images/p1_000\.png claims 9000 x 9000 pixels: more than 50,000,000 are refused")
def large_decompression_bomb(folder):
    return with_image(folder, lambda path: path.write_bytes(png_header(9000, 9000)))


@case(r"train/images/p1_000\.png cannot be read as a picture \(Image size \(4000000000 pixels\) exceeds limit")
def huge_decompression_bomb(folder):
    return with_image(folder, lambda path: path.write_bytes(png_header(100_000, 40_000)))


@case(r"train/images/p1_000\.tif holds 3 pictures, of which only the first would be read: save each in a file")
def picture_of_several_pages(folder):
    def write(path):
        path.with_suffix(".png").unlink()
        picture().save(path, save_all=True, append_images=[picture(1), picture(2)])

    return with_image(folder, write, "p1_000.tif")


def float_picture(value):
    def write(path):
        path.with_suffix(".png").unlink()
        pixels = np.zeros((SIZE, SIZE), np.float32)
        pixels[0, 0] = value
        Image.fromarray(pixels).save(path)

    return write


@case(r"train/images/p1_000\.tif holds values that are not finite")
def picture_with_nan(folder):
    return with_image(folder, float_picture(np.nan), "p1_000.tif")


@case(r"train/images/p1_000\.gif holds 2 pictures, of which only the first would be read")
def picture_that_moves(folder):
    def write(path):
        path.with_suffix(".png").unlink()
        picture().save(path, save_all=True, append_images=[picture(1)])

    return with_image(folder, write, "p1_000.gif")


@case(r"train/images/p1_000\.png has 24 x 24 pixels but its mask 20 x 20")
def mask_of_another_size(folder):
    return with_mask(folder, mask(size=20))


@case(r"train/masks/p1_000\.png and other masks hold 3 values \(0, 128, 255\) where two are expected")
def mask_of_three_values(folder):
    drawn = np.array(mask())
    drawn[20:, 20:] = 128
    return with_mask(folder, Image.fromarray(drawn))


@case(r"masks hold 3 values \(0, 1, 255\)")
def masks_in_two_conventions(folder):
    return with_mask(folder, mask(1))


@case(r"train/masks/p1_000\.png and other masks hold \d+ values .* where two are expected")
def photo_as_mask(folder):
    return with_mask(folder, picture())


@case(r"All masks are empty: .*masks/p\d_000\.png and the others hold the value 0 alone")
def empty_masks(folder):
    for path in make_dataset(folder).glob("*/masks/*.png"):
        mask(0).save(path)
    return folder


@case(r"All masks of valid are empty, p3_000 and the others")
def empty_masks_in_one_subset(folder):
    for path in make_dataset(folder).glob("valid/masks/*.png"):
        mask(0).save(path)
    return folder


@case(r"train/images/p1_000\.png has 16 bits for each of several channels")
def colours_of_sixteen_bits(folder):
    rows = np.random.default_rng(0).integers(0, 4096, (SIZE, SIZE * 3), np.uint16).astype(">u2")
    header = struct.pack(">IIBBBBB", SIZE, SIZE, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = (b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    (make_dataset(folder) / "train" / "images" / "p1_000.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return folder


@case(r"The colour \(0, 0, 0, 255\) is label 0 in .*p1_000\.png and 1 in .*p1_001\.png: save the masks as grey pict")
def palettes_in_different_orders(folder):
    make_dataset(folder)
    for name, colours in (("p1_000", [0, 0, 0, 200, 0, 0]), ("p1_001", [200, 0, 0, 0, 0, 0])):
        drawn = Image.frombytes("P", (SIZE, SIZE), mask(1).tobytes())
        drawn.putpalette(colours)
        drawn.save(folder / "train" / "masks" / f"{name}.png")
    return folder


@case(r"train/masks/p1_000\.png has colours that are the same in grey")
def colours_that_are_alike_in_grey(folder):
    drawn = Image.new("RGB", (SIZE, SIZE))
    drawn.paste((255, 0, 0), (4, 4, 9, 9))
    drawn.paste((0, 130, 0), (12, 12, 20, 20))
    return with_mask(folder, drawn)


@case(
    r"patient_pattern is for pictures: each volume is taken as a patient of its own",
    patient_pattern=r"(?P<patient>case)_\d",
)
def pattern_for_volumes(folder):
    return make_task(folder)


def with_grids(folder, image, label, size=(8, 6, 4), name="case_0"):
    """A task in which one image and its labels lie where these affines say."""
    if not folder.joinpath("imagesTr").exists():
        make_task(folder)
    for kind, affine in (("imagesTr", image), ("labelsTr", label)):
        volume = nibabel.Nifti1Image(
            np.arange(np.prod(size), dtype=np.int16).reshape(size) % 2, np.array(affine, float)
        )
        nibabel.save(volume, folder / kind / f"{name}.nii.gz")
    return folder


@case(r"The labels of .*/imagesTr/case_0\.nii\.gz lie elsewhere, up to 7 voxels away, by the spacing, origin and dir")
def labels_in_another_orientation_around_another_place(folder):
    turned = [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]  # axes that run to P, R, S
    return with_grids(folder, np.diag([1, 1, 1.01, 1]), turned, (8, 8, 4))


@case(r"The labels of .*/imagesTr/case_0\.nii\.gz lie elsewhere, up to 0\.6 voxels away")
def labels_at_another_origin(folder):
    return with_grids(folder, np.diag([2, 2, 2, 1]), [[2, 0, 0, 1.2], [0, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])


@case(r"The labels of .*/imagesTr/case_0\.nii\.gz lie elsewhere, up to 3 voxels away")
def labels_of_another_spacing(folder):
    return with_grids(folder, np.diag([2, 2, 2, 1]), np.diag([2, 2, 4, 1]))


@case(r"has the shape \(8, 6, 4\) but its labels \(4, 6, 8\)")
def labels_whose_axes_are_swapped(folder):
    make_task(folder)
    path = folder / "labelsTr" / "case_0.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 6, 8), np.uint8), np.eye(4)), path)
    return folder


@case(
    r"The slices of .*case_0\.nii\.gz follow axis 1, those of .*case_1\.nii\.gz axis 3, by their thickness: such pict"
)
def volumes_of_two_planes(folder):
    with_grids(folder, np.diag([5, 1, 1, 1]), np.diag([5, 1, 1, 1]))
    return with_grids(folder, np.diag([1, 1, 5, 1]), np.diag([1, 1, 5, 1]), name="case_1")


@case(r"case_0\.nii\.gz is damaged or no NIfTI file")
def axes_that_are_no_numbers(folder):
    path = make_task(folder, np.ones((8, 8, 4), np.int16), np.zeros((8, 8, 4), np.uint8)) / "imagesTr" / "case_0.nii.gz"
    volume = nibabel.Nifti1Image(np.ones((8, 8, 4), np.int16), np.eye(4))
    volume.header["srow_x"], volume.header["sform_code"] = np.nan, 1
    values = volume.get_fdata().astype(np.int16).tobytes()
    path.write_bytes(gzip.compress(bytes(volume.header.binaryblock) + bytes(4) + values))
    return folder


@case(r"dataset\.json was not written by 01_dataset_upload")
def damaged_description(folder):
    (folder / "dataset.json").write_text('{"root": ')
    return folder / "dataset.json"


@case(r"dataset\.json was not written by 01_dataset_upload: give the folder .* as the dataset")
def the_decathlons_own_description(folder):
    (folder / "dataset.json").write_text(json.dumps({"name": "LeftAtrium", "numTraining": 20}))
    return folder / "dataset.json"


@case(r"foreground=\[7\] does not divide the masks' values in two: they hold 0, 255", foreground=7)
def foreground_that_is_not_there(folder):
    return make_dataset(folder)


@case(r"foreground='wall' is not a label of this dataset: it knows only numbers", foreground="wall")
def foreground_by_name_in_pictures(folder):
    return make_dataset(folder)


# --- volumes --------------------------------------------------------------------------------------------


@case(r"case_0\.nii\.gz has 4 axes \(8, 6, 4, 2\); this course reads 3-D volumes")
def volume_of_four_axes(folder):
    return make_task(folder, image=np.ones((8, 6, 4, 2), np.int16))


@case(r"case_0\.nii\.gz has the shape \(8, 6, 4\) but its labels \(8, 6, 3\)")
def labels_on_another_grid(folder):
    return make_task(folder, label=np.ones((8, 6, 3), np.uint8))


@case(r"case_0\.nii\.gz holds values that are not finite")
def volume_with_nan(folder):
    return make_task(folder, image=np.full((8, 6, 4), np.nan, np.float32))


@case(r"case_0\.nii\.gz holds complex64 values")
def volume_of_complex_numbers(folder):
    return make_task(folder, image=np.ones((8, 6, 4), np.complex64))


@case(r"case_0\.nii\.gz is damaged or no NIfTI file")
def volume_that_was_cut(folder):
    cut(make_task(folder) / "imagesTr" / "case_0.nii.gz")
    return folder


@case(r"case_0\.nii\.gz is damaged or no NIfTI file")
def text_called_volume(folder):
    (make_task(folder) / "imagesTr" / "case_0.nii.gz").write_text("not a volume")
    return folder


@case(r"case_0\.nii\.gz claims the size \(30000, 30000, 30000\)")
def volume_that_claims_to_be_huge(folder):
    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (make_task(folder) / "imagesTr" / "case_0.nii.gz").write_bytes(gzip.compress(header.binaryblock + b"\0" * 100))
    return folder


@case(r"labelsTr/case_0\.nii\.gz \(and 2 more\) is a mask without an image")
def labels_without_volumes(folder):
    shutil.rmtree(make_task(folder) / "imagesTr")
    return folder


@case(r"imagesTr/case_1\.nii\.gz has no mask")
def volume_without_labels(folder):
    (make_task(folder) / "labelsTr" / "case_1.nii.gz").unlink()
    return folder


def with_labels(folder, values):
    """A task in which these are the values of the first label volume."""
    return make_task(folder, label=np.resize(np.array(values), 192).reshape(8, 6, 4))


@case(r"case_0\.nii\.gz holds 192 values from 0 to 2 that are no whole numbers.*choose the label with foreground")
def labels_that_ran_into_one_another(folder):
    return with_labels(folder, np.linspace(0, 2, 192))


@case(r"labels hold more than one structure \(0 'background', 1 'cavity', 2 'wall'\): choose with foreground")
def labels_with_a_value_to_ignore(folder):
    return with_labels(folder, np.array([0, 0, 0, 1, 255], np.uint8))


@case(r"labels hold more than one structure \(1, 2, 3, 4, 5, 6 and 993 more\): choose with foreground")
def labels_of_a_thousand_structures(folder):
    with_labels(folder, np.tile(np.arange(1000), 2)[:192].astype(np.int16))
    path = folder / "labelsTr" / "case_1.nii.gz"
    for kind in ("imagesTr", "labelsTr"):
        nibabel.save(
            nibabel.Nifti1Image(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), np.eye(4)),
            path.parent.parent / kind / path.name,
        )
    (folder / "dataset.json").unlink()
    return folder


@case(r"The labels hold more than one structure \(0 'background', 1 'cavity', 2 'wall'\): choose with foreground")
def labels_of_two_structures(folder):
    label = np.zeros((8, 6, 4), np.uint8)
    label[2:4], label[5:7] = 1, 2
    return make_task(folder, label=label)


@case(r"foreground='valve' is not a label of this dataset: .*'cavity' \(1\), 'wall' \(2\)", foreground="valve")
def label_name_that_is_not_there(folder):
    return make_task(folder)


@case(r"foreground='wall' is in no label volume: they hold 1", foreground="wall")
def label_that_nobody_has(folder):
    return make_task(folder)


@case(r"labelsTr/case_0\.png is a picture among NIfTI volumes")
def volumes_and_pictures_together(folder):
    (make_task(folder) / "labelsTr" / "case_0.nii.gz").unlink()
    mask().save(folder / "labelsTr" / "case_0.png")
    return folder


@case(r"dataset\.json is not readable as JSON")
def broken_description_of_volumes(folder):
    (make_task(folder) / "dataset.json").write_text("{")
    return folder


@case(r"2 patients are too few")
def two_volumes(folder):
    return make_task(folder, patients=2)


@case(r"case_0, case_1, case_2 is not among the patients of the heart data", heart_source="FOLDER")
def other_volumes_as_heart(folder):
    make_task(folder)
    return "heart"


# --- DICOM, and the geometry of pictures ----------------------------------------------------------------

DICOM = bytes(128) + b"DICM" + bytes(200)


@case(r"/images/p\d_000\.dcm is DICOM, which this course does not read: convert each series to NIfTI with dcm2niix")
def dicom_images_beside_masks(folder):
    for path in make_dataset(folder).glob("*/images/*.png"):
        path.rename(path.with_suffix(".dcm"))
        path.with_suffix(".dcm").write_bytes(b"by its name")
    return folder


@case(r"scans/a/IM_1 is DICOM, which this course does not read")
def dicom_without_an_ending(folder):
    (folder / "scans" / "a").mkdir(parents=True)
    (folder / "scans" / "a" / "IM_1").write_bytes(DICOM)
    return folder / "scans"


@case(r"images/0\.dcm is DICOM, which this course does not read")
def dicom_in_a_zip(folder):
    with zipfile.ZipFile(folder / "scans.zip", "w") as packed:
        packed.writestr("scans/images/0.dcm", DICOM)
        packed.writestr("scans/masks/0.png", png_bytes(mask()))
    return folder / "scans.zip"


def with_geometry(folder, described):
    text = described if isinstance(described, str) else json.dumps(described)
    (make_dataset(folder) / "geometry.json").write_text(text)
    return folder


@case(r"geometry\.json is not readable as JSON")
def geometry_that_is_no_json(folder):
    return with_geometry(folder, "spacing: 1")


@case(r"geometry\.json must hold \{\"spacing\": \[row, column, slice\], \"axes\"")
def geometry_that_is_a_list(folder):
    return with_geometry(folder, [1, 1, 1])


@case(r"geometry\.json: a spacing is three numbers above 0, the mm between rows, columns and slices")
def geometry_with_a_spacing_of_two(folder):
    return with_geometry(folder, {"spacing": [1, 1]})


@case(r"geometry\.json, p2: a spacing is three numbers above 0")
def geometry_with_a_spacing_of_zero(folder):
    return with_geometry(folder, {"patients": {"p1": {"spacing": [1, 1, 1]}, "p2": {"spacing": [1, 0, 1]}}})


@case(r"geometry\.json: axes are three letters, one of R and L, one of A and P, one of S and I")
def geometry_with_one_side_twice(folder):
    return with_geometry(folder, {"axes": ["I", "A", "S"]})


@case(r"geometry\.json: spacing and axes are expected there, and nothing else")
def geometry_with_a_word_misspelled(folder):
    return with_geometry(folder, {"spacings": [1, 1, 1]})


@case(r"geometry\.json describes 'p9', who is no patient of this dataset")
def geometry_of_a_stranger(folder):
    return with_geometry(folder, {"patients": {"q1": {}, "p9": {"spacing": [1, 1, 1]}}})


@case(r"geometry\.json and spacing=\[1, 1, 1\] both give a spacing: leave one out", spacing=[1, 1, 1])
def geometry_and_spacing(folder):
    return with_geometry(folder, {"spacing": [1, 1, 1]})


@case(r"spacing=\[1, 1, nan\]: a spacing is three numbers above 0", spacing=[1, 1, float("nan")])
def spacing_that_is_no_number(folder):
    return make_dataset(folder)


@case(r"spacing is for pictures of your own: volumes and the sample bring theirs", spacing=[1, 1, 1])
def spacing_of_volumes(folder):
    return make_task(folder)


@case(r"spacing is for pictures of your own: volumes and the sample bring theirs", spacing=[1, 1, 1])
def spacing_of_the_sample(folder):
    return "sample"


# --- the test -------------------------------------------------------------------------------------------


def everything_below(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A work folder that holds the result of an earlier import, converted, and another file."""
    folder = tmp_path_factory.mktemp("earlier")
    import_dataset(zip_with(folder / "earlier.zip", []), folder / "data", progress=False)
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


def test_a_work_folder_that_did_not_exist_does_not_appear(tmp_path):
    with pytest.raises(CourseError):
        import_dataset(tmp_path / "nowhere", tmp_path / "data", progress=False)
    assert os.listdir(tmp_path) == []


def test_a_file_as_work_folder_gets_a_sentence(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(CourseError, match="cannot be read or written"):
        import_dataset(make_dataset(tmp_path / "good"), tmp_path / "data", progress=False)
