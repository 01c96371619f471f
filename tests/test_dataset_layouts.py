"""Small datasets in layouts that people use: which file is the mask, which patient it belongs to, which subset.

The pixels come out as they were put in; assumptions are reported; what is ambiguous is refused in one sentence.
"""

import re
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from course import layout
from course.importing import import_dataset
from course.matching import bare_names
from course.patients import PATIENT_PATTERN
from course.pictures import SUBSETS
from course.store import pair_paths
from course.workspace import CourseError

HEIGHT, WIDTH = 30, 40


def picture(seed):
    values = np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH)).astype(np.uint8)
    values[0, 0] = 255
    return values


def mask(seed):
    """An L of 0 and 255, in another place for each seed up to 100; every flip or rotation changes it."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    row, column = divmod(seed % 100, 10)
    values[3 + row : 15 + row, 3 + 2 * column : 6 + 2 * column] = 255
    values[12 + row : 15 + row, 3 + 2 * column : 13 + 2 * column] = 255
    return values


def put(folder, name, values):
    """Save a picture or, if the name is that of a volume, four such slices; bytes are written as they are."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(values, bytes):
        path.write_bytes(values)
    elif name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.stack([values] * 4, axis=-1), np.eye(4)), path)
    else:
        (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path)


def take(folder, work_dir, **options):
    """Import; return the description and {subset: {name: seed}}, each picture and mask known by its pixels."""
    description = import_dataset(folder, work_dir, progress=False, **options)
    pictures = {picture(seed).tobytes(): seed for seed in range(100)}
    masks = {(mask(seed) > 0).tobytes(): seed for seed in range(100)}
    found = {}
    for subset, pairs in description["subsets"].items():
        found[subset] = {}
        for pair in pairs:
            paths = pair_paths(description, work_dir, subset, pair["name"])
            image, drawn = (np.asarray(Image.open(path).convert("L")) for path in paths)
            seed = pictures[image.tobytes()]
            assert masks[(drawn == description["mask_values"][1]).tobytes()] == seed
            found[subset][pair["name"]] = seed
    return description, found


def together(found):
    return {name: seed for subset in SUBSETS for name, seed in found[subset].items()}


def said(seed):
    """The fields that a template of a path may name: the seed's number, half, last bit and the like."""
    return {
        "n": seed,
        "p": seed // 2,
        "t": seed % 2,
        "side": "LR"[seed % 2],
        "subset": ("train", "val", "test")[seed % 3],
        "kind": ("benign", "malignant", "normal")[seed % 3],
        "who": ("anna", "bert", "carla", "dora", "emil", "frida")[seed % 6],
    }


def lay_out(folder, templates, count=6):
    """For each seed save what the functions make of it; templates is {template of the path: function}."""
    for seed in range(count):
        for template, make in templates.items():
            put(folder, template.format(**said(seed)), make(seed))


# --- which folder is the mask ---------------------------------------------------------------------------


def part_of_mask(where):
    """Return a function that makes one part of the mask of a seed."""

    def make(seed):
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[where] = mask(seed)[where]
        return values

    return make


def all_white(seed):
    return np.full((HEIGHT, WIDTH), 255, np.uint8)


def of_another(seed):
    return mask(seed + 1)


UPPER, LOWER, LEFT, RIGHT = map(part_of_mask, (np.s_[:14], np.s_[14:], np.s_[:, :10], np.s_[:, 10:]))
CARS = {"train/car{n}_01.png": picture, "train_masks/car{n}_01_mask.png": mask, "test/bus{n}_01.png": picture}
SEVERAL = {
    "{kind}/benign ({n}).png": picture,
    "{kind}/benign ({n})_mask.png": LOWER,
    "{kind}/benign ({n})_mask_1.png": UPPER,
}
READ = {  # the files, the names of the pictures, and words of the notes
    "retina": (
        {
            "images/2{n}_training.tif": picture,
            "1st_manual/2{n}_manual1.png": mask,
            "2nd_manual/2{n}_manual2.png": of_another,
            "mask/2{n}_training_mask.png": all_white,
        },
        "2{n}_training",
        ["second annotator", "field of view"],
    ),
    "retina, FOV": (
        {"images/{n}_dr.png": picture, "manual1/{n}_dr.tif": mask, "FOV/{n}_dr.png": all_white},
        "{n}_dr",
        ["FOV/0_dr.png (and 5 more) was passed over"],
    ),
    "two annotators in one folder": (
        {"Image_0{p}{side}.png": picture, "Image_0{p}{side}_1stHO.png": mask, "Image_0{p}{side}_2ndHO.png": of_another},
        "Image_0{p}{side}",
        ["second annotator", "'Image_00L' and 'Image_00R' were taken as times or sides of one patient, who"],
    ),
    "cars": (CARS, "car{n}_01", ["test/bus0_01.png (and 5 more) was passed over"]),
    "number of a channel": (
        {"imagesTr/case_{n}_0000.png": picture, "labelsTr/case_{n}.png": mask, "imagesTs/c_{n}_0000.png": picture},
        "case_{n}",
        ["has no mask: no image of test has one"],
    ),
    "several masks of one": (SEVERAL, "benign ({n})", ["_mask_1.png (and 5 more) is one of several masks"]),
    "cells": (
        {
            "stage1_train/{n}ab/images/{n}ab.png": picture,
            "stage1_train/{n}ab/masks/9{n}c.png": LEFT,
            "stage1_train/{n}ab/masks/1{n}d.png": RIGHT,
        },
        "{n}ab",
        ["(and 5 more) is one of several masks of one image"],
    ),
    "folders of patients, names that are no numbers": (
        {"P{p}/images/acq{n}x.png": picture, "P{p}/masks/acq{n}x.png": mask},
        "acq{n}x",
        ["folders of P0/images/acq0x.png and the others were not taken as patients"],
    ),
    "folders of kinds": (
        {"{kind}/images/IM{n}.png": picture, "{kind}/masks/IM{n}.png": mask},
        "IM{n}",
        ["does not name its patient", "IM0.png and the others were not"],
    ),
    "masks in one folder": (
        {"p{p}/images/{n}.png": picture, "masks/{n}.png": mask},
        "{n}",
        ["does not name its patient"],
    ),
    "numbers in folders of patients with names": (
        {"{who}/images/{t}.png": picture, "{who}/masks/{t}.png": mask},
        "{who}_{t}",
        ["The folders (anna and 5 more) were taken as the patients, because the names in them differ only in"],
    ),
    "studies in folders of patients": (
        {"{who}/st1/images/{t}.png": picture, "{who}/st1/masks/{t}.png": mask},
        "{who}_st1_{t}",
        ["The folders (anna/st1 and 5 more) were taken as the patients, because the names in them differ only"],
    ),
    "archives of one folder, unpacked side by side": (
        {"data-2024-00{t}/data/images/{n}.png": picture, "data-2024-00{p}/data/masks/{n}.png": mask},
        "{n}",
        ["does not name its patient", "0.png and the others were not taken as patients"],
    ),
    "words before names in folders of patients": (
        {"images/P{p}/image_s{t}x.png": picture, "masks/P{p}/mask_s{t}x.png": mask},
        "P{p}_image_s{t}x",
        ["does not name its patient"],
    ),
    "a dataset called prediction": ({"prediction/p{n}.png": picture, "prediction/p{n}_mask.png": mask}, "p{n}", []),
    "masks whose names tell a time that images do not": (
        {"images/p{n}_axial.png": picture, "masks/p{n}_ED_drawn.png": mask},
        "p{n}_axial",
        ["p0_ED_drawn.png (and 5 more) was taken as the mask of source/images/p0_axial.png, whose name is only"],
    ),
    "names that only begin alike": (
        {"images/p{n}_axial.png": picture, "masks/p{n}_drawn.png": mask},
        "p{n}_axial",
        [
            "p0_drawn.png (and 5 more) was taken as the mask of source/images/p0_axial.png, whose name is only "
            "similar: check that"
        ],
    ),
    "masks in no subset": ({"{subset}/p{n}_0.png": picture, "masks/p{n}_0.png": mask}, "p{n}_0", []),
    "JPEGs of one image": (
        {"images/p{n}.png": picture, "masks/p{n}_mask_1.jpg": UPPER, "masks/p{n}_mask_2.jpg": LOWER},
        "p{n}",
        ["source/masks/p0_mask_1.jpg (and 5 more) is blurred"],
    ),
}


def hold(folder, names, words, work_dir):
    """Assert that a folder is read as {name: seed}, and that its notes are short and contain these words."""
    description, found = take(folder, work_dir)
    assert together(found) == names
    for word in words:
        assert word in " ".join(description["notes"])
    assert all(len(note) < 400 for note in description["notes"])


@pytest.mark.parametrize("case", READ)
def test_each_image_gets_its_own_mask_and_files_passed_over_are_reported(case, tmp_path):
    templates, name, words = READ[case]
    lay_out(tmp_path / "source", templates)
    hold(tmp_path / "source", {name.format(**said(seed)): seed for seed in range(6)}, words, tmp_path / "work")


def test_superpixels_beside_pictures_of_lesions_are_passed_over(tmp_path):
    for seed in range(6):
        part = f"source/ISBI_Part1_{'Training' if seed < 4 else 'Test'}"
        put(tmp_path, f"{part}_Data/ISIC_000000{seed}.png", picture(seed))
        put(tmp_path, f"{part}_Data/ISIC_000000{seed}_superpixels.png", picture(seed + 50))
        put(tmp_path, f"{part}_GroundTruth/ISIC_000000{seed}_segmentation.png", mask(seed))
    names = {f"ISIC_000000{seed}": seed for seed in range(6)}
    hold(tmp_path / "source", names, ["All names begin with ISIC_", "superpixels"], tmp_path / "work")


def test_a_patients_folder_without_masks_is_passed_over(tmp_path):
    templates = {"train/p{p}/images/{n}.png": picture, "train/p{p}/masks/{n}.png": mask}
    lay_out(tmp_path / "source", templates, 10)
    put(tmp_path, "source/test/p9/images/99.png", picture(99))
    told = ["The folders (p0 and 5 more) were taken as the patients", "p9/images/99.png has no mask: no image of test"]
    names = {f"p{seed // 2}_{seed}": seed for seed in range(10)}
    hold(tmp_path / "source", names, told, tmp_path / "work")


def test_the_first_mask_of_one_image_may_be_named_like_another_image(tmp_path):
    several = {"images/c{n}.png": picture, "masks/c{n}_mask_1.png": LOWER, "masks/c{n}_mask_2.png": UPPER}
    lay_out(tmp_path / "source", several, 3)
    for seed in range(3):
        put(tmp_path, f"source/images/c{seed}_1.png", picture(seed + 3))
        put(tmp_path, f"source/masks/c{seed}_1_mask.png", mask(seed + 3))
    names = {f"c{seed}": seed for seed in range(3)} | {f"c{seed}_1": seed + 3 for seed in range(3)}
    told = "masks/c0_mask_2.png (and 2 more) is one of several masks of one image"
    hold(tmp_path / "source", names, [told], tmp_path / "work")


@pytest.mark.parametrize(
    "kinds", ["benign, malignant, normal", "Grade_0, Grade_1, Grade_2", "normal, pneumonia, covid19"]
)
def test_kinds_of_pictures_taken_for_patients_are_reported(kinds, tmp_path):
    names = {f"{kinds.split(', ')[seed % 3]}_{seed}": seed for seed in range(9)}
    told = f"{kinds} were taken as patients. If they are kinds, times or parts of the data, give"
    hold(with_names(tmp_path / "source", names), names, [told], tmp_path / "work")


@pytest.mark.parametrize("folders", ["visit1, visit2, visit3", "2019, 2020, 2021", "Batch 0, Batch 1, Batch 2"])
def test_folders_of_times_or_parts_taken_for_patients_are_reported(folders, tmp_path):
    for seed in range(9):
        for kind, drawn in (("images", picture(seed)), ("masks", mask(seed))):
            put(tmp_path, f"source/{kind}/{folders.split(', ')[seed % 3]}/{seed // 3:03d}.png", drawn)
    description, _ = take(tmp_path / "source", tmp_path / "work")
    assert any(note.startswith(f"{folders} were taken as patients.") for note in description["notes"])


def test_numbers_that_begin_anew_in_each_subset_accuse_nobody(tmp_path):
    for seed in range(12):
        subset, number = ("train", seed) if seed < 6 else (("valid", "test")[seed % 2], seed // 2 - 3)
        put(tmp_path, f"source/{subset}/images/img_{number}.png", picture(seed))
        put(tmp_path, f"source/{subset}/masks/img_{number}.png", mask(seed))
    description, _ = take(tmp_path / "source", tmp_path / "work")
    assert not any("look alike" in note for note in description["notes"])


def test_predictions_and_overlays_are_passed_over(tmp_path):
    folder = tmp_path / "source"
    lay_out(folder, {"train/images/p{n}.png": picture, "train/masks/p{n}.png": mask}, 6)
    lay_out(folder, {"train/masks/p{n}_overlay.png": picture, "train/predicted_masks/p{n}.png": mask}, 5)
    lay_out(folder, {"test/images/q{n}.png": picture, "test/predicted_masks/q{n}.png": mask}, 4)
    told = [
        "q0.png (and 13 more) was passed over: its name says that it is not a mask drawn by a person",
        "no image of test",
    ]
    hold(folder, {f"p{seed}": seed for seed in range(6)}, told, tmp_path / "work")


def test_image_and_mask_names_may_differ_in_leading_zeros_or_case(tmp_path):
    images = "img_0", "IMG_01_a", "P02_01", "003", "Scan4 ED"
    for seed, drawn in enumerate(("mask_000", "img_1_a_Mask", "p2_1", "3", "scan4-ed")):
        put(tmp_path, f"source/images/{images[seed]}.png", picture(seed))
        put(tmp_path, f"source/masks/{drawn}.png", mask(seed))
    told = "masks/3.png (and 4 more) was taken as the mask of source/images/003.png, whose name is only similar"
    names = {name: seed for seed, name in enumerate(images)}
    hold(tmp_path / "source", names, [told], tmp_path / "work")


@pytest.mark.parametrize(
    ("image", "drawn", "name"),
    [
        ("image/{n}.png", "label/{n}_predict.png", "{n}"),
        ("images/cat{n}_1.png", "annotations/trimaps/cat{n}_1.png", "cat{n}_1"),
        ("p{p}/MRI/{n}.png", "p{p}/seg/{n}.png", "p{p}_{n}"),
        ("h{p}/p{p}/MRI/{n}.png", "h{p}/p{p}/seg/{n}.png", "h{p}_p{p}_{n}"),
        ("Original/{n}.png", "Ground Truth/{n}.png", "{n}"),
        ("part{p}/volume-{n}.png", "segmentations/segmentation-{n}.png", "volume-{n}"),
        ("gt{n}_07.png", "gt{n}_07_mask.png", "gt{n}_07"),
        ("p{n}_07.PNG", "p{n}_mask_07.PNG", "p{n}_07"),
        ("data/case{n}/image.png", "data/case{n}/segmentation.png", "case{n}"),
        ("p{p}/scan{n}/image.png", "p{p}/scan{n}/mask.png", "p{p}_{n}"),
        ("b{n}/image.png", "b{n}/gt_binary.png", "b{n}"),
        ("b{n}/image.png", "b{n}/mask_1.png", "b{n}"),
        ("P{p}/visit{n}/t1.png", "P{p}/visit{n}/mask.png", "P{p}_{n}"),
        ("all/scan{n}.png", "all/seg{n}.png", "scan{n}"),
        ("images/p{n}_0.png", "images/p{n}_0_seg.png", "p{n}_0"),
        ("images/p{p}/img{n:03d}.png", "masks/p{p}/mask{n:03d}.png", "p{p}_{n:03d}"),
        ("p{n}_image_0.png", "p{n}_mask_0.png", "p{n}_image_0"),
        ("p{p}/images/IM{n}.png", "p{p}/masks/IM{n}.png", "p{p}_{n}"),
        ("p{p}/IM-0001-{n:04d}.png", "p{p}/IM-0001-{n:04d}_mask.png", "p{p}_{n:04d}"),
        ("scans/p{p}/slice{n}.png", "GT/p{p}/slice{n}.png", "p{p}_{n}"),
        ("scans/p{p}/{n}a.png", "masks/p{p}/{n}a.png", "p{p}_{n}a"),
        ("x/scans/p{p}/img{n}.png", "x/masks/p{p}/mask{n}.png", "p{p}_{n}"),
        ("p{p}x/slice_{n}.png", "p{p}x/mask_{n}.png", "p{p}x_{n}"),
        ("images/image_{p}_{n:04d}.png", "masks/mask_{p}_{n:04d}.png", "image_{p}_{n:04d}"),
        ("images/p{p}/IM-0001-{n:04d}.png", "masks/p{p}/IM-0001-{n:04d}.png", "p{p}_{n:04d}"),
        ("p{p}/image_{n}.png", "p{p}/mask_{n}.png", "p{p}_{n}"),
        ("images/p{n}.jfif.png", "Ground/p{n}.jfif.png", "p{n}.jfif"),
        ("p{n}/scan/image.png", "p{n}/scan/mask.png", "p{n}-scan"),
        ("images/1st_{n}_2nd.png", "masks/1st_{n}_2nd_mask.png", "1st_{n}_2nd"),
        ("images_and_masks/p{n}_0.png", "images_and_masks/p{n}_0_mask.png", "p{n}_0"),
        ("{subset}/Seg data/p{n}_0.png", "{subset}/Seg data/p{n}_0_mask.png", "p{n}_0"),
        ("CT-Seg_20cases/case{n}.png", "Infection_Mask/case{n}.png", "case{n}"),
        ("3d_images/IMG_{p}_{n}.png", "3d_images/MASK_{p}_{n}.png", "IMG_{p}_{n}"),
        ("all/P{n}/ct.png", "all/P{n}/seg.png", "P{n}"),
        ("p{p}/{n}_img.png", "p{p}/{n}_msk.png", "{n}_img"),
        ("{subset}/p{n}_0.png", "{subset}annot/p{n}_0.png", "p{n}_0"),
        ("trainimages/p{n}_0.png", "trainmasks/p{n}_0.png", "p{n}_0"),
        ("images/p{n}_0.png", "Annotation/p{n}_0.png", "p{n}_0"),
        ("imagesVa/p{n}_0.png", "labelsVa/p{n}_0.png", "p{n}_0"),
        ("p{n}_0.png", "p{n}_0_anno.png", "p{n}_0"),
        ("1. Images/p{n}_0.png", "2. Segmentations/5. Disc/p{n}_0_OD.png", "p{n}_0"),
        ("ct_train_{n}_image.png", "ct_train_{n}_label.png", "ct_train_{n}_image"),
    ],
)
def test_masks_are_found_by_their_folder_or_name(image, drawn, name, tmp_path):
    lay_out(tmp_path / "source", {image: picture, drawn: mask})
    description, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {name.format(n=seed, p=seed // 2): seed for seed in range(6)}
    assert "only similar" not in " ".join(description["notes"])


@pytest.mark.parametrize(
    ("mask", "images"),
    [
        *[("mask_p1", ["p1"]), ("a_mask_07", ["a_07", "a"]), ("b_seg", ["b"]), ("p1", [])],
        *[("Mask of p1", ["p1"]), ("labeled_01", ["01"]), ("a-labelled", ["a"]), ("Label_1", ["1"])],
    ],
)
def test_an_images_name_is_its_masks_name_without_the_word_for_mask(mask, images):
    assert bare_names(mask) == images


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    lay_out(tmp_path / "source", {"images/{n}.png": picture, "masks/{n}.png": mask}, 3)
    put(tmp_path / "source", "thumbs.db/0.png", picture(0))  # a stray file
    monkeypatch.setattr(layout, "MAX_FILES", 6)
    assert len(together(take(tmp_path / "source", tmp_path / "work")[1])) == 3
    (tmp_path / "source" / "notes.txt").write_text("one more")
    with pytest.raises(CourseError, match="source holds more than 6 files: give the dataset's own folder"):
        take(tmp_path / "source", tmp_path / "work")


REFUSED = {  # the files, and the sentence
    "modalities": (
        {f"B_{{n:03d}}/B_{{n:03d}}_{kind}.png": picture for kind in ("t1", "t2", "pd", "dwi", "flair")}
        | {"B_{n:03d}/B_{n:03d}_seg.png": mask},
        r"B_000_seg.png is the mask of several images \(B_000_dwi, B_000_flair, B_000_pd, B_000_t1 ...\), such as",
    ),
    "channels": (
        {"imagesTr/case_{n}_0000.png": picture, "imagesTr/case_{n}_0001.png": picture, "labelsTr/case_{n}.png": mask},
        r"case_0.png is the mask of several images \(train/case_0_0000, train/case_0_0001\)",
    ),
    "two folders of labels": (
        {"images/{n}.png": picture, "labels-ah/{n}.png": mask, "labels-vk/{n}.png": mask},
        "labels-ah/0.png and .*labels-vk/0.png are masks of one image. Keep one or, if each",
    ),
    "a folder of an unknown word": (
        {"images/{n}.png": picture, "heart/{n}.png": mask},
        r"images/0.png has no mask, and no other image.*source/heart/0.png \(and 5 more\) was passed over",
    ),
    "folders of an unknown word below one for images": (
        {"My images/p{n}/p{n}_image/p{n}.png": picture, "My images/p{n}/p{n}_lesion/p{n}_lesion.png": mask},
        "p0_image/p0.png has no mask.* .*p0_lesion.png .* was passed over: neither its name nor its folder's",
    ),
    "vessels beside fields of view": (
        {
            "images/{n}.tif": picture,
            "vessels/{n}.png": mask,
            "mask/{n}_mask.png": lambda seed: all_white(seed) * (np.hypot(*np.mgrid[-15:15, -20:20]) < 15),
        },
        r"mask/0_mask.png \(and 5 more\) covers most .* field of view does: if source/vessels/0.png and",
    ),
    "two structures below a folder called after them": (
        {"CT-Seg/c{n}.png": picture, "Lung_Mask/c{n}.png": mask, "Infection_Mask/c{n}.png": mask},
        "Infection_Mask/c0.png and .*Lung_Mask/c0.png are masks of one image",
    ),
    "outlines in JSON": (
        {"{subset}/p{n}_0.png": picture, "train/_annotations.coco.json": lambda _: b"{}"},
        r"p2_0.png has no mask, and no other image has one\. Put the masks.* Outlines in JSON, .* not read\.",
    ),
    "predictions alone": (
        {"images/{n}.png": picture, "predicted_masks/{n}.png": mask},
        r"images/0.png has no mask, and no other image.*predicted_masks/0.png .* was passed over: its name",
    ),
    "folders of unknown words": (
        {"x_train/{n}.png": picture, "y_train/{n}.png": mask},
        "x_train/0.png and .*y_train/0.png are images with the same name: put images into a folder images/ and their",
    ),
    "slices called after scans of too few patients": (
        {"images/scan_{t}_slice_{p}.png": picture, "masks/scan_{t}_slice_{p}.png": mask},
        r"2 patients are too few to split .* \(scan_0, scan_1\):.*, else a pattern that tells the patients",
    ),
    "masks of a type that is not read": (
        {"images/{n}.png": picture, "masks/{n}.nrrd": lambda _: b"NRRD0004"},
        r"no other image.*masks/0.nrrd \(and 5 more\) was passed over: .* read .nrrd\. .* NIfTI \(SimpleITK can",
    ),
    "subsets in names": (
        {"images/{subset}_{n}.png": picture, "masks/{subset}_{n}.png": mask},
        "All names begin with test or train or val: put the files into folders train/, valid/ and test/",
    ),
    "subsets at the end of names": (
        {"images/p{n}_{subset}.png": picture, "masks/p{n}_{subset}.png": mask},
        "All names end with test or train or val: put the files into folders train/, valid/ and test/",
    ),
    "masks of no image, of one name in several folders": (
        {"images/p{n}.png": picture, "b{n}/masks/gt.png": mask},
        r"images/p0.png \(and 5 more\) has no mask: b0/masks/gt.png \(and 5 more\) is a mask without an image",
    ),
    "two masks of other names in the folder of an image": (
        {"b{n}/image.png": picture, "b{n}/la_mask.png": mask, "b{n}/lv_mask.png": mask},
        "b0/la_mask.png and .*b0/lv_mask.png are masks of one image. Keep one",
    ),
    "masks of another time": (
        {"images/p{n}_ED.png": picture, "masks/p{n}_ES.png": mask},
        r"images/p0_ED.png \(and 5 more\) has no mask: .*/p0_ES.png .* without an image: give both the same",
    ),
    "masks in no subset, images in several": (
        {"{subset}/p{p}_0.png": picture, "masks/p{p}_0.png": mask},
        r"masks/p0_0.png is the mask of several images \(train/p0_0, valid/p0_0\)",
    ),
    "masks in subsets, images in none": (
        {"images/p{n}_0.png": picture, "masks/{subset}/p{n}_0.png": mask},
        "images/p0_0.png .* has no mask: .* without an image: give both the same name and subset",
    ),
    "masks of another slice": (
        {"images/p{n}_1.png": picture, "masks/p{n}_mask_2.png": mask, "FOV/{n}.png": mask},
        r"0_1.png .* has no mask: .* subset. .*FOV/0.png \(and 5 more\) was passed over",
    ),
    "masks of a slice without image": (
        {"images/p{n}_1.png": picture, "masks/p{n}_1.png": mask, "masks/p{n}_2.png": mask, "FOV/{n}.png": mask},
        r"0_2.png .* is a mask without an image: add .* the mask. .*FOV/0.png \(and 5 more\) was passed over",
    ),
    "masks of two sizes for one image": (
        SEVERAL | {"malignant/benign (1)_mask_1.png": lambda _: mask(1)[:-1]},
        r"benign \(1\)_mask.png and .*benign \(1\)_mask_1.png are masks of one image but differ",
    ),
    "several masks that are inverted": (
        {
            "images/p{n}.png": picture,
            "masks/p{n}_mask_0.png": lambda seed: 255 - UPPER(seed),
            "masks/p{n}_mask_1.png": lambda seed: 255 - LOWER(seed),
        },
        "All masks are full: source/masks/p0_mask_0.png and the others hold only the value 255. Give .* smaller value",
    ),
    "several masks of two values each": (
        {"images/{n}.png": picture, "masks/{n}_mask_1.png": mask, "masks/{n}_mask_2.png": lambda n: mask(n + 9) // 5},
        r"source/masks/0_mask_1.png and other masks hold 3 values \(0, 51, 255\)",
    ),
    "a name too long for its slices": (
        {f"{{n}}{'x' * 100}/{'y' * 150}/{kind}/1.png": make for kind, make in (("images", picture), ("masks", mask))},
        "The name of .* is too long when joined with its folders: shorten it",
    ),
}


def refuse(folder, sentence, work_dir):
    """Assert that a folder is refused in one sentence of ordinary length, and that nothing is left."""
    with pytest.raises(CourseError, match=sentence) as caught:
        take(folder, work_dir)
    assert len(str(caught.value)) < 400
    assert not work_dir.exists()


@pytest.mark.parametrize("case", REFUSED)
def test_an_ambiguous_folder_is_refused_in_one_sentence_and_nothing_is_left(case, tmp_path):
    templates, sentence = REFUSED[case]
    lay_out(tmp_path / "source", templates)
    refuse(tmp_path / "source", sentence, tmp_path / "work")


def test_one_mask_missing_from_a_set_of_cars_is_reported(tmp_path):
    lay_out(tmp_path / "source", CARS)
    (tmp_path / "source/train_masks/car3_01_mask.png").unlink()
    refuse(tmp_path / "source", "train/car3_01.png has no mask: add a mask", tmp_path / "work")


def test_subset_names_in_front_of_patient_names_are_reported(tmp_path):
    with_names(tmp_path / "source", ("train_p0", "testA_1", "testB_2", "train_p3"))
    told = "All names begin with test or train: put the files into folders train/, valid/ and test/"
    refuse(tmp_path / "source", told, tmp_path / "work")


def test_two_time_points_of_a_patient_in_two_subsets_are_reported(tmp_path):
    for seed, (subset, name) in enumerate((("train", "p1_ED_0"), ("test", "p1_ES_0"), ("valid", "p2_ED_0"))):
        put(tmp_path, f"source/{subset}/images/{name}.png", picture(seed))
        put(tmp_path, f"source/{subset}/masks/{name}.png", mask(seed))
    told = "'p1_ES' and 'p1_ED' look like two times or sides of one patient, who is in two subsets"
    refuse(tmp_path / "source", told, tmp_path / "work")


@pytest.mark.parametrize(
    ("odd", "is_turned", "sentence"),
    [
        ("p2_mask_2", True, r"\(0, 0, 0, 255\) is label 0 in source/masks/p0_mask_1.png and 1 in {odd}: save"),
        ("p5", True, r"\(0, 0, 0, 255\) is label 0 in source/masks/p0_mask_1.png and 1 in {odd}: save"),
        (
            "p0_mask_2",
            False,
            r"Label 1 has the colour \(200, 0, 0, 255\) in source/masks/p0_mask_1.png, but \(0, 0,.* in {odd}",
        ),
    ],
)
def test_masks_with_conflicting_palettes_are_refused(odd, is_turned, sentence, tmp_path):
    """Two masks for each of five images and one for p5; all but the odd one have the same palette."""
    for seed in range(6):
        put(tmp_path, f"source/images/p{seed}.png", picture(seed))
        for name in [f"p{seed}_mask_1", f"p{seed}_mask_2"] if seed < 5 else ["p5"]:
            labels, colours = mask(seed) // 255, [0, 0, 0, 200, 0, 0]
            if name == odd:
                labels, colours = (1 - labels, [200, 0, 0, 0, 0, 0]) if is_turned else (labels, [0, 0, 0, 0, 0, 200])
            drawn = Image.frombytes("P", (WIDTH, HEIGHT), labels.tobytes())
            drawn.putpalette(colours)
            put(tmp_path, f"source/masks/{name}.png", drawn)
    refuse(tmp_path / "source", sentence.format(odd=f"source/masks/{odd}.png"), tmp_path / "work")


@pytest.mark.parametrize(
    "parts, options",
    [
        ([lambda seed: mask(seed) // 255, lambda seed: all_white(seed) // 255 * 2], {"foreground": 1}),
        ([lambda seed: np.float32(LEFT(seed) > 0), lambda seed: np.float32(mask(seed) > 0)], {}),
        ([lambda seed: 255 - mask(seed), all_white], {"foreground": 0}),
        ([lambda seed: np.int32(mask(seed)) * 300, lambda seed: np.int32(LEFT(seed)) * 300], {}),
    ],
)
def test_the_structure_is_the_union_of_an_images_masks(parts, options, tmp_path):
    """Also if a higher label lies over the chosen one, and with numbers that are too large for PNG."""
    masks = {f"masks/p{{n}}_mask_{number}.tif": part for number, part in enumerate(parts)}
    lay_out(tmp_path / "source", {"images/p{n}.png": picture, **masks})
    _, found = take(tmp_path / "source", tmp_path / "work", **options)
    assert together(found) == {f"p{seed}": seed for seed in range(6)}


def with_names(folder, names):
    for seed, name in enumerate(names):
        put(folder, f"images/{name}.png", picture(seed))
        put(folder, f"masks/{name}.png", mask(seed))
    return folder


@pytest.mark.parametrize("name", ["p{}$x^$_0", "-p{}_0", "p{} ;'\"&_0", "p{}_" + "0" * 246])
def test_unusual_names_are_kept(name, tmp_path):
    with_names(tmp_path / "source", [name.format(seed) for seed in range(3)])
    _, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {name.format(seed): seed for seed in range(3)}


# --- official splits ------------------------------------------------------------------------------------


def with_subsets(folder, **counts):
    """Patients of two slices each, numbered through all subsets."""
    subsets = [subset for subset, count in counts.items() for _ in range(2 * count)]
    for seed, subset in enumerate(subsets):
        put(folder, f"{subset}/images/p{seed // 2}_{seed % 2}.png", picture(seed))
        put(folder, f"{subset}/masks/p{seed // 2}_{seed % 2}.png", mask(seed))
    return folder


def patients(description):
    return {subset: {pair["patient"] for pair in pairs} for subset, pairs in description["subsets"].items()}


def test_test_is_drawn_from_train_if_it_is_missing_or_has_no_masks(tmp_path):
    folder = with_subsets(tmp_path / "source", train=6, valid=2, test=1)
    for path in (folder / "test/masks").iterdir():
        path.unlink()
    description, _ = take(folder, tmp_path / "work")
    who = patients(description)
    assert who["valid"] == {"p6", "p7"} and len(who["test"]) == 2 and len(who["train"]) == 4
    told = "test/images/p8_0.png (and 1 more) has no mask: no image of test has one, so all of test was left out."
    assert description["notes"][0] == told
    assert description["notes"][1].startswith(
        "The dataset has no test: it was drawn at random from the patients of train"
    )


def test_trainset_in_one_word_is_the_train_subset(tmp_path):
    for place in ("{subset}set", "{subset}Data", "{subset}data"):
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        lay_out(tmp_path / "source", {f"{place}/images/p{{n}}_0.png": picture, f"{place}/masks/p{{n}}_0.png": mask})
        _, found = take(tmp_path / "source", tmp_path / "work")
        assert [{*found[subset].values()} for subset in SUBSETS] == [{0, 3}, {1, 4}, {2, 5}]


def test_several_test_sets_beside_one_train_set_are_all_test(tmp_path):
    for seed in range(12):
        place = ("TrainDataset", "trainval", "TestDataset/Clinic", "TestDataset/Colon")[seed // 3]
        put(tmp_path / "source", f"{place}/images/{seed % 3 + 1 + (seed < 3) * 10}a.png", picture(seed))
        put(tmp_path / "source", f"{place}/masks/{seed % 3 + 1 + (seed < 3) * 10}a.png", mask(seed))
    _, found = take(tmp_path / "source", tmp_path / "work")
    names = [f"{place}-{number}a" for place in ("Clinic", "Colon") for number in (1, 2, 3)]
    assert found["test"] == dict(zip(names, range(6, 12)))
    assert len(found["train"]) + len(found["valid"]) == 6


# --- who is one patient ---------------------------------------------------------------------------------

TIMES = {
    "times in names": [f"patient{p}_{time}_{n}" for p in range(6) for time in ("ED", "ES") for n in range(2)],
    "sides in names": [f"P{p}_{side}" for p in range(6) for side in ("left", "right")],
    "sides as letters": [f"Image_{p:02d}{side}" for p in range(6) for side in "LR"],
    "sessions": [f"sub-{p:02d}_ses-{time:02d}_{n:03d}" for p in range(6) for time in (1, 2) for n in range(2)],
    "frames, not all of one number": [f"p{p:03d}_frame{p * time + 1:02d}" for p in range(1, 7) for time in (0, 9)],
    "a folder for each": [f"{time}/patient{p}_0" for p in range(6) for time in ("left", "right")],
}


@pytest.mark.parametrize("names", TIMES.values(), ids=TIMES)
def test_time_points_and_sides_of_a_patient_stay_in_one_subset_and_one_fold(names, tmp_path):
    for seed in range(3):
        description, found = take(with_names(tmp_path / f"source{seed}", names), tmp_path / "work", seed=seed)
        where, first = {}, set()
        for subset, pairs in description["subsets"].items():
            for pair in pairs:
                number = found[subset][pair["name"]] // (len(names) // 6)
                where.setdefault(number, set()).add(subset)
                first |= {pair["patient"]} if number == 0 else set()
        assert sorted(where) == list(range(6)) and all(len(subsets) == 1 for subsets in where.values())
        told = f"{' and '.join(map(repr, sorted(first)))} were taken as times or sides of one patient, "
        assert f"{told}who stays in one subset (there are 6 such patients)." in " ".join(description["notes"])
        folds = [{name.replace("left", "").replace("right", "") for name in fold} for fold in description["folds"]]
        assert all(not (one & other) for one in folds for other in folds if one is not other)


BUT_THE_LAST_WORD, AFTER_A_WORD = r"(?P<patient>.+)[ _.-][^ _.-]+", r"[^ _.-]*[ _.-](?P<patient>.+)"
P_AND_NUMBER = r"(?P<patient>P\\D*\\d+).*"
NUMBER = r"[ _.-]\\D*(?P<slice>\\d+)"


@pytest.mark.parametrize(
    "names, pattern, part",
    [
        ([f"site{s}_p{p}_{n}" for s in "ABC" for p in "01" for n in "01"], BUT_THE_LAST_WORD + NUMBER, 0),
        ([f"ann{p}_{c}" for p in "012345" for c in "abc"], r"(?P<patient>ann\\D*\\d+).*", 0),
        ([f"P{p}_z{n}k" for p in "012345" for n in "01"], P_AND_NUMBER, 0),
        ([f"P{p}_{c}1" for p in "012345" for c in "ab"], P_AND_NUMBER, 0),
        ([f"ann{p}_sl{n}" for p in "012345" for n in "01"], r"(?P<patient>ann\\D*\\d+)\\D+(?P<slice>\\d+)", 0),
        ([f"P{p}_{of}_T1_{n}" for p in "012" for of in ("2CH", "4CH") for n in "01"], P_AND_NUMBER + NUMBER, 0),
        ([f"P{p}_{time}_slice{n}" for p in "012" for time in ("BL", "FU") for n in "01"], P_AND_NUMBER + NUMBER, 0),
        ([f"{of}/p{p}_{n}" for of in ("axial", "coronal") for p in "0123" for n in "01"], AFTER_A_WORD + NUMBER, 1),
    ],
)
def test_similar_names_are_reported_with_the_pattern_that_joins_them(names, pattern, part, tmp_path):
    description, _ = take(with_names(tmp_path / "source", names), tmp_path / "work")
    [note] = [note for note in description["notes"] if "look alike" in note]
    assert f"If they are one patient, give patient_pattern='{pattern}'" in note
    joined, _ = take(tmp_path / "source", tmp_path / "joined", patient_pattern=pattern.replace(r"\\", "\\"))
    assert set().union(*patients(joined).values()) == {name.replace("/", "_").split("_")[part] for name in names}


def test_patient_names_that_differ_only_in_case_and_zeros_are_reported(tmp_path):
    names = [f"{patient}_{n}" for patient in ("P1", "p01", "P2", "P3", "P4") for n in "01"]
    description, _ = take(with_names(tmp_path / "source", names), tmp_path / "work")
    [note] = [note for note in description["notes"] if "look alike" in note]
    assert note.startswith("'P1' and 'p01' look alike") and note.endswith("one patient, spell their names alike.")


def test_a_name_common_to_all_files_is_a_patient_only_if_the_users_pattern_says_so(tmp_path):
    for number, subset in enumerate(("train", "valid", "test")):
        put(tmp_path, f"source/{subset}/images/heart_{number}.png", picture(number))
        put(tmp_path, f"source/{subset}/masks/heart_{number}.png", mask(number))
    description, _ = take(tmp_path / "source", tmp_path / "work")
    assert set().union(*patients(description).values()) == {"heart_0", "heart_1", "heart_2"}
    with pytest.raises(CourseError, match="^Patient 'heart' is in two subsets"):
        take(tmp_path / "source", tmp_path / "own", patient_pattern=r"(?P<patient>[a-z]+)_(?P<slice>\d+)")


@pytest.mark.parametrize("name", ["E{t}_p{p}-{n}", "{p}n_{t}L_slice_{n}"])
def test_no_pattern_is_suggested_that_would_not_join_the_similar_names(name, tmp_path):
    names = [name.format(p=p, t=t, n=n) for p in "ABC" for t in "DS" for n in range(2)]
    description, _ = take(with_names(tmp_path / "source", names), tmp_path / "work")
    [note] = [note for note in description["notes"] if "look alike" in note]
    assert note.endswith("If they are one patient, give a patient_pattern that joins them.")


@pytest.mark.parametrize(
    ("name", "drawn", "words"), [("image", "label", "image_"), ("{subset}", "{subset}", "test_ or train_ or val_")]
)
def test_words_in_front_of_all_numbers_are_not_patients(name, drawn, words, tmp_path):
    places = {f"{{subset}}/images/{name}_{{n}}.png": picture, f"{{subset}}/labels/{drawn}_{{n}}.png": mask}
    lay_out(tmp_path / "source", places)
    description, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {f"{name}_{{n}}".format(**said(seed)): seed for seed in range(6)}
    assert patients(description)["train"] == {f"{name}_{{n}}".format(**said(seed)) for seed in (0, 3)}
    assert description["notes"][0].startswith(f"All names begin with {words}, which was taken as the dataset's name")


@pytest.mark.parametrize("name", ["scan{}_slice{}", "scan_{:03d}_slice_{:02d}", "MRI_scan_{:02d}_{:03d}", "scan {} {}"])
def test_slices_of_one_scan_belong_to_one_patient(name, tmp_path):
    source = with_names(tmp_path / "source", [name.format(p, n) for p in range(6) for n in range(3)])
    description, found = take(source, tmp_path / "work")
    notes = " ".join(description["notes"])
    if "patient_pattern=" in notes:  # the slice is not a number after the last "_": the advised pattern is right
        pattern = notes.partition("patient_pattern='")[2].partition("'")[0].replace("\\\\", "\\")
        description, found = take(source, tmp_path / "joined", patient_pattern=pattern)
    assert len(set().union(*patients(description).values())) == 6
    for start in range(0, 18, 3):
        assert sum(bool({*range(start, start + 3)} & {*numbers.values()}) for numbers in found.values()) == 1
    assert "times or sides" not in notes


@pytest.mark.parametrize(
    "name",
    [
        *["slice_{n}_patient_{p}", "img_{n:03d}_pat_{p:02d}", "z{n:03d}_p{p}", "slice{n}_LIDC-IDRI-000{p}"],
        *["slice_{n}_p_{p}_ct", "{n:03d}_patient_{p}", "{n:03d}-case{p:02d}"],
    ],
)
def test_a_patient_number_after_the_slice_number_is_recognised(name, tmp_path):
    source = with_names(tmp_path / "source", [name.format(n=n, p=p) for p in range(4) for n in range(3)])
    description, found = take(source, tmp_path / "work")
    assert len(together(found)) == 12 and len(description["notes"]) == 1
    for subset, pairs in description["subsets"].items():
        assert {found[subset][pair["name"]] // 3 for pair in pairs} == {int(pair["patient"][-1]) for pair in pairs}
        assert all(pair["slice"] == found[subset][pair["name"]] % 3 for pair in pairs)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        *[("la_{p:03d}_{n:03d}", "la_{p:03d}"), ("p{p}_slice{n}", "p{p}"), ("scan_{p}_slice_{n:02d}", "scan_{p}")],
        ("Anonymous.Seq{p}.Ser2.Img{n}", "Anonymous.Seq{p}.Ser2"),
        ("{p:03d}_{n}_ct", "{p:03d}"),
    ],
)
def test_plain_patients_and_numbers_raise_no_doubt(name, patient, tmp_path):
    names = [name.format(p=p, n=n) for p in range(6) for n in range(2)]
    description, found = take(with_names(tmp_path / "source", names), tmp_path / "work")
    pairs = sum(description["subsets"].values(), [])
    assert {pair["name"]: (pair["patient"], pair["slice"]) for pair in pairs} == {
        one: (patient.format(p=seed // 2), seed % 2) for seed, one in enumerate(names)
    }
    assert len(description["notes"]) == 1


# --- volumes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "drawn", "first"),
    [
        ("P{p}/P{p}_frame{t}.nii.gz", "P{p}/P{p}_frame{t}_gt.nii.gz", "'P0_frame0' and 'P0_frame1'"),
        ("T{t}/images/P{p}.nii.gz", "T{t}/masks/P{p}.nii.gz", "'T0-P0' and 'T1-P0'"),
    ],
)
def test_volumes_of_two_time_points_of_a_patient_stay_together(image, drawn, first, tmp_path):
    lay_out(tmp_path / "source", {image: picture, drawn: mask}, 8)
    for seed in range(3):
        description = import_dataset(tmp_path / "source", tmp_path / "work", seed=seed, progress=False)
        who = patients(description)
        people = [{re.search(r"P\d", name)[0] for name in names} for names in who.values()]
        assert sum(map(len, who.values())) == 8 and sum(map(len, people)) == 4
        [note] = [note for note in description["notes"] if note.startswith(f"{first} were")]
        assert note.endswith("If they are not one patient, give patient_pattern=None.")  # another pattern is refused


def test_volumes_with_one_name_in_two_subsets_are_two_patients_only_if_the_user_says_so(tmp_path):
    lay_out(tmp_path / "source", {"{subset}/images/{p}.nii.gz": picture, "{subset}/masks/{p}.nii.gz": mask})
    with pytest.raises(CourseError, match="Patient '1' is in two subsets .* give patient_pattern=None"):
        import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    description = import_dataset(tmp_path / "source", tmp_path / "work", patient_pattern=None, progress=False)
    assert patients(description)["test"] == {"test/1", "test/2"} and len(description["geometry"]) == 6


@pytest.mark.parametrize(("name", "pattern"), [("CT_scan_0{n}", PATIENT_PATTERN), ("p1_day{n}", None)])
def test_volumes_that_look_like_time_points_of_a_patient_can_be_kept_separate(name, pattern, tmp_path):
    lay_out(tmp_path / "source", {f"images/{name}.nii.gz": picture, f"masks/{name}.nii.gz": mask})
    if pattern is None:
        with pytest.raises(CourseError, match="1 patient is too few .* give patient_pattern=None"):
            import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    description = import_dataset(tmp_path / "source", tmp_path / "work", patient_pattern=pattern, progress=False)
    assert len(set().union(*patients(description).values())) == 6


def test_volumes_with_similar_names_are_reported_with_advice_on_where_to_put_them(tmp_path):
    lay_out(tmp_path / "source", {"images/P{p}-{t}x.nii.gz": picture, "masks/P{p}-{t}x.nii.gz": mask})
    notes = import_dataset(tmp_path / "source", tmp_path / "work", progress=False)["notes"]
    told = "'P0-0x' and 'P0-1x' look alike, but were taken as two patients. If they are one patient, put both into the"
    assert [note for note in notes if note.startswith(told)]


def test_volumes_for_testing_are_used_with_labels_and_passed_over_without(tmp_path):
    for seed in range(5):
        place = "Tr" if seed < 3 else "Ts"
        put(tmp_path / "source", f"images{place}/c{seed}_0000.nii.gz", picture(seed))
        put(tmp_path / "source", f"labels{place}/c{seed}.nii.gz", mask(seed))
    packed = shutil.make_archive(tmp_path / "packed", "zip", tmp_path / "source")
    for dataset in (tmp_path / "source", packed):
        description = import_dataset(dataset, tmp_path / "work", progress=False)
        assert patients(description)["test"] == {"c3", "c4"} and len(patients(description)["train"]) == 2
    for path in (tmp_path / "source" / "labelsTs").iterdir():
        path.unlink()
    description = import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    assert set().union(*patients(description).values()) == {"c0", "c1", "c2"}
    assert description["notes"][0] == (
        "source/imagesTs/c3_0000.nii.gz (and 1 more) has no mask: "
        "no image of test has one, so all of test was left out."
    )


def test_volumes_of_several_channels_or_with_two_masks_are_refused(tmp_path):
    images = {f"imagesTr/c{{n}}_000{channel}.nii.gz": picture for channel in range(2)}
    lay_out(tmp_path / "source", {**images, "labelsTr/c{n}.nii.gz": mask}, 3)
    with pytest.raises(CourseError, match=r"c0.nii.gz is the mask of several images \(train/c0_0000, train/c0_0001\)"):
        import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    masks = {f"c{{n}}_{ending}.nii.gz": mask for ending in ("seg", "seg_2")}
    lay_out(tmp_path / "other", {"c{n}.nii.gz": picture, **masks}, 3)
    with pytest.raises(CourseError, match=r"c0_seg_2.nii.gz \(and 2 more\) is a second mask of one volume"):
        import_dataset(tmp_path / "other", tmp_path / "work", progress=False)


def test_files_with_one_name_in_two_subsets_are_two_patients(tmp_path):
    for number, file in enumerate(("train/{}/a", "train/{}/b", "valid/{}/b", "test/{}/c")):
        put(tmp_path, f"source/{file.format('images')}.png", picture(number))
        put(tmp_path, f"source/{file.format('masks')}.png", mask(number))
    description, _ = take(tmp_path / "source", tmp_path / "work")
    assert patients(description) == {"train": {"a", "train/b"}, "valid": {"valid/b"}, "test": {"c"}}


def test_one_patient_in_train_and_another_in_test_are_too_few_to_split(tmp_path):
    for number, file in enumerate(("train/{}/P1_0", "train/{}/P1_1", "test/{}/P2_0", "test/{}/P2_1")):
        put(tmp_path, f"source/{file.format('images')}.png", picture(number))
        put(tmp_path, f"source/{file.format('masks')}.png", mask(number))
    with pytest.raises(CourseError, match="^1 patient is too few to split into train and valid"):
        take(tmp_path / "source", tmp_path / "work")
