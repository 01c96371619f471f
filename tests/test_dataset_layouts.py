"""Small datasets laid out as people really have them: which file is the mask, whose the picture is, which subset.

What is read comes out as the very pixels that were put in; what is taken for granted is told; what cannot be known gets
one sentence.
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
    """An L of 0 and 255, elsewhere for each seed up to 100: no flip or turn leaves it as it is."""
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    row, column = divmod(seed % 100, 10)
    values[3 + row : 15 + row, 3 + 2 * column : 6 + 2 * column] = 255
    values[12 + row : 15 + row, 3 + 2 * column : 13 + 2 * column] = 255
    return values


ALL_WHITE = np.full((HEIGHT, WIDTH), 255, np.uint8)


def put(folder, name, values):
    """Save a picture or, where the name says so, a volume of four such slices."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.stack([values] * 4, axis=-1), np.eye(4)), path)
    else:
        Image.fromarray(values).save(path)


def take(folder, work_dir, **options):
    """Import; return the description and {subset: {name: seed}}, each picture and mask known by its pixels."""
    description = import_dataset(folder, work_dir, progress=False, **options)
    pictures = {picture(seed).tobytes(): seed for seed in range(100)}
    masks = {(mask(seed) > 0).tobytes(): seed for seed in range(100)}
    found = {}
    for subset, pairs in description["subsets"].items():
        found[subset] = {}
        for pair in pairs:
            image, drawn = (
                np.asarray(Image.open(path).convert("L"))
                for path in pair_paths(description, work_dir, subset, pair["name"])
            )
            seed = pictures[image.tobytes()]
            assert masks[(drawn == description["mask_values"][1]).tobytes()] == seed
            found[subset][pair["name"]] = seed
    return description, found


def together(found):
    return {name: seed for subset in SUBSETS for name, seed in found[subset].items()}


def lay_out(folder, templates, count=6):
    """For each seed put what the functions of it make, {template of the path: function}; p is the seed's half."""
    for seed in range(count):
        for template, make in templates.items():
            put(folder, template.format(n=seed, p=seed // 2, subset=("train", "val", "test")[seed % 3]), make(seed))


# --- which folder is the mask ---------------------------------------------------------------------------

READ, REFUSED = [], []


def read(make):
    """Register a function that makes a dataset and returns what is read, {name: seed}, and words of the notes."""
    READ.append(make)
    return make


def refused(make):
    """Register a function that makes a dataset and returns the sentence that refuses it."""
    REFUSED.append(make)
    return make


@read
def retina(folder):
    for seed in range(21, 27):
        put(folder, f"images/{seed}_training.tif", picture(seed))
        put(folder, f"1st_manual/{seed}_manual1.png", mask(seed))
        put(folder, f"2nd_manual/{seed}_manual2.png", mask(seed + 1))
        put(folder, f"mask/{seed}_training_mask.png", ALL_WHITE)
    return {f"{seed}_training": seed for seed in range(21, 27)}, ["second person", "field of view"]


@read
def retina_fov(folder):
    lay_out(folder, {"images/{n}_dr.png": picture, "manual1/{n}_dr.tif": mask, "FOV/{n}_dr.png": lambda _: ALL_WHITE})
    return {f"{seed}_dr": seed for seed in range(6)}, ["FOV/0_dr.png (and 5 more) was passed over"]


@read
def two_annotators_in_one_folder(folder):
    names = {f"Image_{seed // 2:02d}{'LR'[seed % 2]}": seed for seed in range(6)}
    for name, seed in names.items():
        put(folder, f"{name}.png", picture(seed))
        put(folder, f"{name}_1stHO.png", mask(seed))
        put(folder, f"{name}_2ndHO.png", mask(seed + 1))
    return names, ["second person", "'Image_00L' and 'Image_00R' are taken as times or sides of one patient (3 such"]


@read
def cars(folder):
    lay_out(
        folder, {"train/car{n}_01.png": picture, "train_masks/car{n}_01_mask.png": mask, "test/bus{n}_01.png": picture}
    )
    return {f"car{seed}_01": seed for seed in range(6)}, ["test/bus0_01.png (and 5 more) was passed over"]


@read
def lesions(folder):
    for seed in range(6):
        part = f"ISBI_Part1_{'Training' if seed < 4 else 'Test'}"
        put(folder, f"{part}_Data/ISIC_000000{seed}.png", picture(seed))
        put(folder, f"{part}_Data/ISIC_000000{seed}_superpixels.png", picture(seed + 50))
        put(folder, f"{part}_GroundTruth/ISIC_000000{seed}_segmentation.png", mask(seed))
    return {f"ISIC_000000{seed}": seed for seed in range(6)}, ["All names begin with ISIC_", "superpixels"]


@read
def channel_number(folder):
    lay_out(
        folder,
        {"imagesTr/case_{n}_0000.png": picture, "labelsTr/case_{n}.png": mask, "imagesTs/c_{n}_0000.png": picture},
    )
    return {f"case_{seed}": seed for seed in range(6)}, ["has no mask: nothing of test has one"]


def part_of_mask(where):
    """A function of the seed that makes its mask with nothing but a part of it."""

    def make(seed):
        values = np.zeros((HEIGHT, WIDTH), np.uint8)
        values[where] = mask(seed)[where]
        return values

    return make


@read
def several_masks_of_one(folder):
    for seed in range(6):
        name = f"{'benign' if seed % 2 else 'normal'}/benign ({seed})"
        put(folder, f"{name}.png", picture(seed))
        put(folder, f"{name}_mask.png", part_of_mask(np.s_[14:])(seed))
        put(folder, f"{name}_mask_1.png", part_of_mask(np.s_[:14])(seed))
    return {f"benign ({seed})": seed for seed in range(6)}, ["_mask_1.png (and 5 more) is one of several masks"]


@read
def cells(folder):
    place = "stage1_train/{n}ab"
    left, right = part_of_mask(np.s_[:, :8]), part_of_mask(np.s_[:, 8:])
    lay_out(
        folder,
        {
            f"{place}/images/{{n}}ab.png": picture,
            f"{place}/masks/9{{n}}c.png": left,
            f"{place}/masks/1{{n}}d.png": right,
        },
    )
    return {f"{seed}ab": seed for seed in range(6)}, ["(and 5 more) is one of several masks of one image"]


@read
def a_folder_of_a_patient_without_masks(folder):
    lay_out(folder, {"train/p{p}/images/{n}.png": picture, "train/p{p}/masks/{n}.png": mask}, 10)
    put(folder, "test/p9/images/99.png", picture(99))
    told = ["The folders are taken as the patients, p0 and 5 more", "p9/images/99.png has no mask: nothing of test has"]
    return {f"p{seed // 2}_{seed}": seed for seed in range(10)}, told


@read
def the_first_mask_of_one_image_is_called_as_that_of_another(folder):
    for seed in range(3):
        put(folder, f"images/c{seed}.png", picture(seed))
        put(folder, f"masks/c{seed}_mask_1.png", part_of_mask(np.s_[14:])(seed))
        put(folder, f"masks/c{seed}_mask_2.png", part_of_mask(np.s_[:14])(seed))
        put(folder, f"images/c{seed}_1.png", picture(seed + 3))
        put(folder, f"masks/c{seed}_1_mask.png", mask(seed + 3))
    names = {f"c{seed}": seed for seed in range(3)} | {f"c{seed}_1": seed + 3 for seed in range(3)}
    return names, ["masks/c0_mask_2.png (and 2 more) is one of several masks of one image"]


def three_of_each_kind(folder, kinds, named):
    """Lay out three pictures of each of three kinds; what is told of them names the kinds so."""
    names = {f"{kinds[seed % 3]}_{seed}": seed for seed in range(9)}
    for name, seed in names.items():
        put(folder, f"images/{name}.png", picture(seed))
        put(folder, f"masks/{name}.png", mask(seed))
    return names, [f"{named} are taken as patients; if they are kinds of pictures, give patient_pattern=None."]


@read
def kinds_of_tumours(folder):
    return three_of_each_kind(folder, ("benign", "malignant", "normal"), "benign, malignant, normal")


@read
def grades_of_tumours(folder):
    return three_of_each_kind(folder, ("Grade_0", "Grade_1", "Grade_2"), "Grade_0, Grade_1, Grade_2")


@read
def kinds_of_which_one_has_a_number(folder):
    return three_of_each_kind(folder, ("covid19", "normal", "pneumonia"), "normal, pneumonia, covid19")


@read
def folders_of_patients_with_names_that_are_no_numbers(folder):
    lay_out(folder, {"P{p}/images/acq{n}x.png": picture, "P{p}/masks/acq{n}x.png": mask})
    return {f"acq{seed}x": seed for seed in range(6)}, ["folders of P0/images/acq0x.png and the others were not used"]


@read
def folders_of_patients_with_several_scans(folder):
    who = ("Mueller", "Schmidt", "Maier")
    for seed in range(12):
        put(folder, f"{who[seed // 4]}/images/scan{seed // 2}_{seed % 2}.png", picture(seed))
        put(folder, f"{who[seed // 4]}/masks/scan{seed // 2}_{seed % 2}.png", mask(seed))
    told = "The folders of Maier/images/scan4_0.png and the others were not used: if they are patients, let the names"
    return {f"scan{seed // 2}_{seed % 2}": seed for seed in range(12)}, [told]


@read
def folders_of_kinds(folder):
    for seed in range(6):
        kind = ("benign", "malignant", "normal")[seed % 3]
        put(folder, f"{kind}/images/IM{seed}.png", picture(seed))
        put(folder, f"{kind}/masks/IM{seed}.png", mask(seed))
    return {f"IM{seed}": seed for seed in range(6)}, ["does not name its patient", "IM0.png and the others were not"]


@read
def images_by_patient_and_all_masks_in_one_folder(folder):
    for seed in range(6):
        put(folder, f"p{seed // 2}/images/{seed}.png", picture(seed))
        put(folder, f"masks/{seed}.png", mask(seed))
    return {f"{seed}": seed for seed in range(6)}, ["does not name its patient"]


@read
def numbers_in_folders_of_patients_with_names(folder):
    for seed, who in enumerate(("anna", "bert", "carla", "dora", "emil", "frida")):
        put(folder, f"{who}/images/{seed % 2}.png", picture(seed))
        put(folder, f"{who}/masks/{seed % 2}.png", mask(seed))
    names = {"anna_0": 0, "bert_1": 1, "carla_0": 2, "dora_1": 3, "emil_0": 4, "frida_1": 5}
    return names, [
        "The folders are taken as the patients, anna and 5 more, since the names in them differ in their numbers"
    ]


@read
def archives_of_one_folder_unpacked_side_by_side(folder):
    for seed in range(6):
        for kind, half, make in (("images", seed % 2, picture), ("masks", seed // 3, mask)):
            put(folder, f"data-2024-00{half + 1}/data/{kind}/{seed}.png", make(seed))
    return {f"{seed}": seed for seed in range(6)}, ["does not name its patient", "0.png and the others were not used"]


@read
def words_before_names_in_folders_of_patients(folder):
    for seed in range(6):
        put(folder, f"images/P{seed // 2}/image_s{seed % 2}x.png", picture(seed))
        put(folder, f"masks/P{seed // 2}/mask_s{seed % 2}x.png", mask(seed))
    return {f"P{seed // 2}_image_s{seed % 2}x": seed for seed in range(6)}, ["does not name its patient"]


@read
def archives_beside_the_pictures(folder):
    lay_out(folder, {"images/p{n}.png": picture, "masks/p{n}.png": mask})
    for name in ("more.rar", "more.7z", "more.tar"):
        (folder / name).write_bytes(b"x")
    return {f"p{seed}": seed for seed in range(6)}, ["more.7z (and 2 more) was passed over: .7z, .rar, .tar are not"]


@read
def predictions_and_overlays(folder):
    lay_out(folder, {"train/images/p{n}.png": picture, "train/masks/p{n}.png": mask}, 6)
    lay_out(folder, {"train/masks/p{n}_overlay.png": picture, "train/predicted_masks/p{n}.png": mask}, 5)
    lay_out(folder, {"test/images/q{n}.png": picture, "test/predicted_masks/q{n}.png": mask}, 4)
    told = ["q0.png (and 13 more) was passed over: by its name it is no mask that a person drew", "nothing of test has"]
    return {f"p{seed}": seed for seed in range(6)}, told


@read
def a_dataset_called_prediction(folder):
    lay_out(folder, {"prediction/p{n}.png": picture, "prediction/p{n}_mask.png": mask})
    return {f"p{seed}": seed for seed in range(6)}, []


@read
def names_that_only_begin_alike(folder):
    lay_out(folder, {"images/p{n}_axial.png": picture, "masks/p{n}_drawn.png": mask})
    told = "p0_drawn.png (and 5 more) is taken as the mask of an image whose name is only similar: the first is of "
    return {f"p{seed}_axial": seed for seed in range(6)}, [f"{told}source/images/p0_axial.png; see whether"]


@read
def names_that_differ_in_zeros_or_capitals(folder):
    images, masks = (
        ("img_{}", "IMG_{:02}_a", "P{:02}_01", "{:03}", "Scan4 ED"),
        ("mask_{:03}", "img_{}_a_Mask", "p{}_1", "{}", "scan4-ed"),
    )
    for seed in range(5):
        put(folder, f"images/{images[seed].format(seed)}.png", picture(seed))
        put(folder, f"masks/{masks[seed].format(seed)}.png", mask(seed))
    told = "masks/3.png (and 4 more) is taken as the mask of an image whose name is only similar: the first is of "
    return {"img_0": 0, "IMG_01_a": 1, "P02_01": 2, "003": 3, "Scan4 ED": 4}, [f"{told}source/images/003.png"]


@read
def masks_in_no_subset(folder):
    lay_out(folder, {"{subset}/p{n}_0.png": picture, "masks/p{n}_0.png": mask})
    return {f"p{seed}_0": seed for seed in range(6)}, []


@read
def jpegs_of_one_image(folder):
    parts = {"masks/p{n}_mask_1.jpg": part_of_mask(np.s_[:14]), "masks/p{n}_mask_2.jpg": part_of_mask(np.s_[14:])}
    lay_out(folder, {"images/p{n}.png": picture, **parts})
    return {f"p{seed}": seed for seed in range(6)}, ["source/masks/p0_mask_1.jpg (and 5 more) is blurred"]


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
        ("p{p}/images/IM{n}.png", "p{p}/masks/IM{n}.png", "p{p}_{n}"),
        ("p{p}/IM-0001-{n:04d}.png", "p{p}/IM-0001-{n:04d}_mask.png", "p{p}_{n:04d}"),
        ("scans/p{p}/slice{n}.png", "GT/p{p}/slice{n}.png", "p{p}_{n}"),
        ("scans/p{p}/{n}a.png", "masks/p{p}/{n}a.png", "p{p}_{n}a"),
        ("x/scans/p{p}/img{n}.png", "x/masks/p{p}/mask{n}.png", "p{p}_{n}"),
        ("p{p}x/slice_{n}.png", "p{p}x/mask_{n}.png", "p{p}x_{n}"),
        ("all/scan{n}.png", "all/seg{n}.png", "scan{n}"),
        ("images/image_{p}_{n:04d}.png", "masks/mask_{p}_{n:04d}.png", "image_{p}_{n:04d}"),
        ("images/p{p}/IM-0001-{n:04d}.png", "masks/p{p}/IM-0001-{n:04d}.png", "p{p}_{n:04d}"),
        ("images/p{p}/img{n:03d}.png", "masks/p{p}/mask{n:03d}.png", "p{p}_{n:03d}"),
        ("p{p}/IM{n}.png", "p{p}/IM{n}_mask.png", "p{p}_{n}"),
        ("p{p}/image_{n}.png", "p{p}/mask_{n}.png", "p{p}_{n}"),
        ("p{n}_image_0.png", "p{n}_mask_0.png", "p{n}_image_0"),
        ("images/p{n}.jfif.png", "Ground/p{n}.jfif.png", "p{n}.jfif"),
        ("p{n}/scan/image.png", "p{n}/scan/mask.png", "p{n}-scan"),
        ("images/p{n}_0.png", "images/p{n}_0_seg.png", "p{n}_0"),
        ("images/1st_{n}_2nd.png", "masks/1st_{n}_2nd_mask.png", "1st_{n}_2nd"),
        ("images_and_masks/p{n}_0.png", "images_and_masks/p{n}_0_mask.png", "p{n}_0"),
        ("{subset}/Seg data/p{n}_0.png", "{subset}/Seg data/p{n}_0_mask.png", "p{n}_0"),
        ("CT-Seg_20cases/case{n}.png", "Infection_Mask/case{n}.png", "case{n}"),
        ("3d_images/IMG_{p}_{n}.png", "3d_images/MASK_{p}_{n}.png", "IMG_{p}_{n}"),
        ("all/P{n}/ct.png", "all/P{n}/seg.png", "P{n}"),
        ("P{p}/visit{n}/t1.png", "P{p}/visit{n}/mask.png", "P{p}_{n}"),
        ("p{p}/{n}_img.png", "p{p}/{n}_msk.png", "{n}_img"),
        ("{subset}/p{n}_0.png", "{subset}annot/p{n}_0.png", "p{n}_0"),
        ("trainimages/p{n}_0.png", "trainmasks/p{n}_0.png", "p{n}_0"),
        ("images/p{n}_0.png", "Annotation/p{n}_0.png", "p{n}_0"),
        ("imagesVa/p{n}_0.png", "labelsVa/p{n}_0.png", "p{n}_0"),
        ("p{n}_0.png", "p{n}_0_anno.png", "p{n}_0"),
        ("1. Images/p{n}_0.png", "2. Segmentations/5. Disc/p{n}_0_OD.png", "p{n}_0"),
    ],
)
def test_masks_are_found_by_their_folder_or_name(image, drawn, name, tmp_path):
    lay_out(tmp_path / "source", {image: picture, drawn: mask})
    _, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {name.format(n=seed, p=seed // 2): seed for seed in range(6)}


def test_a_name_with_words_for_images_at_both_ends_leaves_no_doubt_whose_the_mask_is(tmp_path):
    lay_out(tmp_path / "source", {"ct_train_{n}_image.png": picture, "ct_train_{n}_label.png": mask})
    description, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {f"ct_train_{seed}_image": seed for seed in range(6)}
    assert "only similar" not in " ".join(description["notes"])


@pytest.mark.parametrize(
    ("mask", "images"),
    [
        *[("mask_p1", ["p1"]), ("a_mask_07", ["a_07", "a"]), ("b_seg", ["b"]), ("p1", [])],
        *[("Mask of p1", ["p1"]), ("labeled_01", ["01"]), ("a-labelled", ["a"]), ("Label_1", ["1"])],
    ],
)
def test_the_image_of_a_mask_is_called_as_the_mask_without_its_word(mask, images):
    assert bare_names(mask) == images


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    lay_out(tmp_path / "source", {"images/{n}.png": picture, "masks/{n}.png": mask}, 3)
    put(tmp_path / "source", "thumbs.db/0.png", picture(0))  # a stray
    monkeypatch.setattr(layout, "MAX_FILES", 6)
    assert len(together(take(tmp_path / "source", tmp_path / "work")[1])) == 3
    (tmp_path / "source" / "notes.txt").write_text("one more")
    with pytest.raises(CourseError, match="source holds more than 6 files: give the dataset's own folder"):
        take(tmp_path / "source", tmp_path / "work")


@pytest.mark.parametrize("make", READ, ids=lambda make: make.__name__)
def test_each_image_gets_its_own_mask_and_what_is_passed_over_is_told(make, tmp_path):
    expected, words = make(tmp_path / "source")
    description, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == expected
    for word in words:
        assert word in " ".join(description["notes"])
    assert all(len(note) < 400 for note in description["notes"])


@refused
def modalities(folder):
    case = "B_{n:03d}/B_{n:03d}"
    lay_out(folder, {f"{case}_{kind}.png": picture for kind in ("t1", "t2", "pd", "dwi", "flair")})
    lay_out(folder, {f"{case}_seg.png": mask})
    return r"B_000_seg.png has several images \(B_000_dwi, B_000_flair, B_000_pd, B_000_t1 ...\), as channels or modal"


@refused
def channels(folder):
    images = {f"imagesTr/case_{{n}}_000{channel}.png": picture for channel in range(2)}
    lay_out(folder, {**images, "labelsTr/case_{n}.png": mask})
    return r"case_0.png has several images \(train/case_0_0000, train/case_0_0001\)"


@refused
def two_label_folders(folder):
    lay_out(folder, {"images/{n}.png": picture, "labels-ah/{n}.png": mask, "labels-vk/{n}.png": mask})
    return "labels-ah/0.png and .*labels-vk/0.png are masks of one image: keep one, or, if each"


@refused
def a_folder_of_an_unknown_word(folder):
    lay_out(folder, {"images/{n}.png": picture, "heart/{n}.png": mask})
    return r"images/0.png has no mask, and no other image.*: .*source/heart/0.png \(and 5 more\) was passed over"


@refused
def masks_in_folders_of_an_unknown_word_below_one_for_images(folder):
    lay_out(folder, {"My images/p{n}/p{n}_image/p{n}.png": picture, "My images/p{n}/p{n}_lesion/p{n}_lesion.png": mask})
    return (
        "p0_image/p0.png has no mask.* .*p0_lesion/p0_lesion.png .* was passed over: neither its name nor its folder's"
    )


@refused
def vessels_beside_fields_of_view(folder):
    view = ALL_WHITE * (np.hypot(*np.mgrid[-15:15, -20:20]) < 15)
    lay_out(folder, {"images/{n}.tif": picture, "vessels/{n}.png": mask, "mask/{n}_mask.png": lambda _: view})
    return (
        r"mask/0_mask.png \(and 5 more\) covers most .* field of view does: if source/vessels/0.png and the like show"
    )


@refused
def masks_of_two_structures_below_a_folder_called_after_them(folder):
    lay_out(folder, {"CT-Seg/c{n}.png": picture, "Lung_Mask/c{n}.png": mask, "Infection_Mask/c{n}.png": mask})
    return "Infection_Mask/c0.png and .*Lung_Mask/c0.png are masks of one image"


@refused
def outlines_in_json(folder):
    lay_out(folder, {"{subset}/p{n}_0.png": picture})
    (folder / "train/_annotations.coco.json").write_text("{}")
    return r"p2_0.png has no mask, and no other image has one \(outlines in JSON, .* are not read\): put the masks"


@refused
def predictions_alone(folder):
    lay_out(folder, {"images/{n}.png": picture, "predicted_masks/{n}.png": mask})
    return r"images/0.png has no mask, and no other image.*: .*predicted_masks/0.png .* was passed over: by its name"


@refused
def folders_of_unknown_words(folder):
    lay_out(folder, {"x_train/{n}.png": picture, "y_train/{n}.png": mask})
    return "x_train/0.png and .*y_train/0.png are images of the same name: put images into a folder images/ and their"


@refused
def slices_called_after_scans_of_too_few_patients(folder):
    for seed in range(6):
        put(folder, f"images/scan_{seed // 3}_slice_{seed % 3}.png", picture(seed))
        put(folder, f"masks/scan_{seed // 3}_slice_{seed % 3}.png", mask(seed))
    return r"2 patients are too few to split .* \(scan_0, scan_1;.*, else a pattern that tells the patients"


@refused
def masks_of_a_type_that_is_not_read(folder):
    lay_out(folder, {"images/{n}.png": picture})
    (folder / "masks").mkdir()
    for seed in range(6):
        (folder / "masks" / f"{seed}.nrrd").write_bytes(b"NRRD0004")
    return r"no other image.*masks/0.nrrd \(and 5 more\) was passed over: .nrrd are not.* NIfTI \(SimpleITK can"


@refused
def subsets_in_names(folder):
    lay_out(folder, {"images/{subset}_{n}.png": picture, "masks/{subset}_{n}.png": mask})
    return "All names begin with test_ or train_ or val_: put the files into folders train/, valid/ and test/"


@refused
def subsets_in_names_before_those_of_patients(folder):
    for seed, name in enumerate(("train_p{}", "testA_{}", "testB_{}", "train_p{}")):
        put(folder, f"{name.format(seed)}.png", picture(seed))
        put(folder, f"{name.format(seed)}_anno.png", mask(seed))
    return "All names begin with test_ or train_: put the files into folders train/, valid/ and test/"


@refused
def masks_of_another_time(folder):
    lay_out(folder, {"images/p{n}_ED.png": picture, "masks/p{n}_ES.png": mask})
    return (
        r"images/p0_ED.png \(and 5 more\) has no mask: .*/p0_ES.png .* is a mask without an image: give both the same"
    )


@refused
def masks_in_no_subset_of_images_in_several(folder):
    lay_out(folder, {"{subset}/p{p}_0.png": picture, "masks/p{p}_0.png": mask}, 6)
    return r"masks/p0_0.png has several images \(train/p0_0, valid/p0_0\)"


@refused
def masks_in_subsets_of_images_in_none(folder):
    lay_out(folder, {"images/p{n}_0.png": picture, "masks/{subset}/p{n}_0.png": mask})
    return "images/p0_0.png .* has no mask: .* without an image: give both the same name and subset"


@refused
def masks_of_another_side(folder):
    lay_out(folder, {"images/p{n}_left.png": picture, "masks/p{n}_right_mask.png": mask})
    return "images/p0_left.png .* has no mask"


@refused
def masks_of_another_slice(folder):
    lay_out(folder, {"images/p{n}_01.png": picture, "masks/p{n}_mask_2.png": mask})
    return "images/p0_01.png .* has no mask"


@refused
def one_mask_forgotten_in_a_set_of_cars(folder):
    cars(folder)
    (folder / "train_masks/car3_01_mask.png").unlink()
    return "train/car3_01.png has no mask: add a mask"


@refused
def masks_of_two_sizes_for_one_image(folder):
    several_masks_of_one(folder)
    put(folder, "benign/benign (1)_mask_1.png", mask(1)[:-1])
    return r"benign \(1\)_mask.png and .*benign \(1\)_mask_1.png differ in size"


def with_colours(folder, odd, labels, colours):
    """Two masks for each of five images and one for p5, of one palette; and a file of other labels and colours."""
    masks = {f"masks/p{seed}_mask_{part}.png": mask(seed) // 255 for seed in range(5) for part in (1, 2)}
    masks["masks/p5.png"] = mask(5) // 255
    for seed in range(6):
        put(folder, f"images/p{seed}.png", picture(seed))
    for path in masks:
        put(folder, path, masks[path])
        drawn = Image.frombytes("P", (WIDTH, HEIGHT), (labels if path == odd else masks[path]).tobytes())
        drawn.putpalette(colours if path == odd else [0, 0, 0, 200, 0, 0])
        drawn.save(folder / path)


@refused
def one_of_several_masks_with_its_palette_turned_round(folder):
    with_colours(folder, "masks/p2_mask_2.png", 1 - mask(2) // 255, [200, 0, 0, 0, 0, 0])
    return r"\(0, 0, 0, 255\) is label 0 in source/masks/p0_mask_1.png and 1 in source/masks/p2_mask_2.png: save"


@refused
def a_single_mask_beside_several_with_its_palette_turned_round(folder):
    with_colours(folder, "masks/p5.png", 1 - mask(5) // 255, [200, 0, 0, 0, 0, 0])
    return r"\(0, 0, 0, 255\) is label 0 in source/masks/p0_mask_1.png and 1 in source/masks/p5.png: save"


@refused
def two_colours_for_the_masks_of_one_image(folder):
    with_colours(folder, "masks/p0_mask_2.png", mask(0) // 255, [0, 0, 0, 0, 0, 200])
    return r"source/masks/p0_mask_1.png has 1 in the colour \(200, 0, 0, 255\), source/masks/p0_mask_2.png in \(0, 0,"


@refused
def several_masks_that_are_inverted(folder):
    parts = [part_of_mask(np.s_[:14]), part_of_mask(np.s_[14:])]
    inverted = {f"masks/p{{n}}_mask_{part}.png": lambda seed, part=part: 255 - parts[part](seed) for part in (0, 1)}
    lay_out(folder, {"images/p{n}.png": picture, **inverted})
    return "All masks are full: source/masks/p0_mask_0.png and the others hold the value 255 alone; .* lesser value"


@refused
def several_masks_of_two_values_each(folder):
    parts = {"masks/p{n}_mask_1.png": mask, "masks/p{n}_mask_2.png": lambda seed: mask(seed + 9) // 5}
    lay_out(folder, {"images/p{n}.png": picture, **parts})
    return r"source/masks/p0_mask_1.png and other masks hold 3 values \(0, 51, 255\)"


@refused
def a_patient_in_two_times_in_two_subsets(folder):
    for number, place in enumerate(("train/{}/p1_ED_0", "test/{}/p1_ES_0", "valid/{}/p2_ED_0")):
        put(folder, f"{place.format('images')}.png", picture(number))
        put(folder, f"{place.format('masks')}.png", mask(number))
    return "'p1_ES' and 'p1_ED' look like two times or sides of one patient, who is in two subsets"


@refused
def a_name_too_long_for_its_slices(folder):
    place = f"{{n}}{'x' * 100}/{'y' * 150}"
    lay_out(folder, {f"{place}/images/1.png": picture, f"{place}/masks/1.png": mask})
    return "The name of .* is too long to be kept with its folders: shorten it"


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_what_cannot_be_known_gets_one_sentence_and_nothing_is_left(make, tmp_path):
    sentence = make(tmp_path / "source")
    with pytest.raises(CourseError, match=sentence) as caught:
        take(tmp_path / "source", tmp_path / "work")
    assert len(str(caught.value)) < 400
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "parts, options",
    [
        ([lambda seed: mask(seed) // 255, lambda seed: ALL_WHITE // 255 * 2], {"foreground": 1}),
        (
            [
                lambda seed: np.float32(mask(seed) * (np.arange(WIDTH) < 15) > 0),
                lambda seed: np.float32(mask(seed) > 0),
            ],
            {},
        ),
        ([lambda seed: 255 - mask(seed), lambda _: ALL_WHITE], {"foreground": 0}),
        (
            [
                lambda seed: np.int32(mask(seed)) * 300,
                lambda seed: np.int32(mask(seed)) * 300 * (np.arange(WIDTH) < 15),
            ],
            {},
        ),
    ],
)
def test_the_structure_is_all_that_one_of_several_masks_holds(parts, options, tmp_path):
    """The label that was chosen, though a greater one lies over it; and numbers that PNG does not hold."""
    masks = {f"masks/p{{n}}_mask_{number}.tif": part for number, part in enumerate(parts)}
    lay_out(tmp_path / "source", {"images/p{n}.png": picture, **masks})
    _, found = take(tmp_path / "source", tmp_path / "work", **options)
    assert together(found) == {f"p{seed}": seed for seed in range(6)}


def with_names(folder, names):
    for seed, name in enumerate(names):
        put(folder, f"images/{name}.png", picture(seed))
        put(folder, f"masks/{name}.png", mask(seed))
    return folder


# --- names ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["p{}$x^$_0", "-p{}_0", "p{} ;'\"&_0", "p{}_" + "0" * 246])
def test_strange_names_are_kept(name, tmp_path):
    with_names(tmp_path / "source", [name.format(seed) for seed in range(3)])
    _, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {name.format(seed): seed for seed in range(3)}


# --- official splits ------------------------------------------------------------------------------------


def with_subsets(folder, **counts):
    """Patients of two slices each, numbered through all subsets."""
    seed = 0
    for subset, count in counts.items():
        for _ in range(count):
            for number in range(2):
                put(folder, f"{subset}/images/p{seed // 2}_{number}.png", picture(seed))
                put(folder, f"{subset}/masks/p{seed // 2}_{number}.png", mask(seed))
                seed += 1
    return folder


def patients(description):
    return {subset: {pair["patient"] for pair in pairs} for subset, pairs in description["subsets"].items()}


def test_valid_is_drawn_from_train_by_patient_and_test_stays(tmp_path):
    description, found = take(with_subsets(tmp_path / "source", train=6, test=3), tmp_path / "work")
    who = patients(description)
    assert who["test"] == {"p6", "p7", "p8"}
    assert len(who["valid"]) == 2 and who["train"] | who["valid"] == {f"p{number}" for number in range(6)}
    assert len(together(found)) == 18 and len(found["valid"]) == 4
    [note] = description["notes"]
    assert note == (
        "The dataset has no valid: it was drawn from the patients of train, by chance (seed 0); "
        "4 train, 2 valid, 3 test."
    )


def test_test_is_drawn_from_train_where_it_is_missing_or_has_no_masks(tmp_path):
    folder = with_subsets(tmp_path / "source", train=6, valid=2, test=1)
    for path in (folder / "test/masks").iterdir():
        path.unlink()
    description, _ = take(folder, tmp_path / "work")
    who = patients(description)
    assert who["valid"] == {"p6", "p7"} and len(who["test"]) == 2 and len(who["train"]) == 4
    assert description["notes"][0] == (
        "test/images/p8_0.png (and 1 more) has no mask: nothing of test has one, so all of it is passed over."
    )
    assert description["notes"][1].startswith("The dataset has no test: it was drawn from the patients of train")


def test_a_set_for_training_is_called_so_in_one_word_too(tmp_path):
    for place in ("{subset}set", "{subset}Data", "{subset}data"):
        shutil.rmtree(tmp_path / "source", ignore_errors=True)
        lay_out(tmp_path / "source", {f"{place}/images/p{{n}}_0.png": picture, f"{place}/masks/p{{n}}_0.png": mask})
        _, found = take(tmp_path / "source", tmp_path / "work")
        assert [{*found[subset].values()} for subset in SUBSETS] == [{0, 3}, {1, 4}, {2, 5}]


def test_several_test_sets_beside_one_train_set_are_all_test(tmp_path):
    for seed in range(12):
        place = "TrainDataset" if seed < 6 else f"TestDataset/{'Clinic' if seed < 9 else 'Colon'}"
        put(tmp_path / "source", f"{place}/images/{seed % 3 + 1 + (seed < 3) * 10}a.png", picture(seed))
        put(tmp_path / "source", f"{place}/masks/{seed % 3 + 1 + (seed < 3) * 10}a.png", mask(seed))
    _, found = take(tmp_path / "source", tmp_path / "work")
    assert found["test"] == {
        f"{place}-{n + 1}a": 6 + 3 * k + n for k, place in enumerate(("Clinic", "Colon")) for n in range(3)
    }
    assert len(found["train"]) + len(found["valid"]) == 6


# --- who is one patient ---------------------------------------------------------------------------------

TIMES = {
    "times in names": [f"patient{p}_{time}_{n}" for p in range(6) for time in ("ED", "ES") for n in range(2)],
    "sides in names": [f"P{p}_{side}" for p in range(6) for side in ("left", "right")],
    "sides as letters": [f"Image_{p:02d}{side}" for p in range(6) for side in "LR"],
    "sessions": [f"sub-{p:02d}_ses-{time:02d}_{n:03d}" for p in range(6) for time in (1, 2) for n in range(2)],
    "frames, not all of one number": [
        f"patient{p:03d}_frame{p * time + 1:02d}" for p in range(1, 7) for time in (0, 9)
    ],
    "a folder for each": [f"{time}/patient{p}_0" for p in range(6) for time in ("left", "right")],
}


@pytest.mark.parametrize("names", TIMES.values(), ids=TIMES)
def test_times_and_sides_of_one_patient_stay_in_one_subset_and_one_fold(names, tmp_path):
    for seed in range(3):
        description, found = take(with_names(tmp_path / f"source{seed}", names), tmp_path / "work", seed=seed)
        where, first = {}, set()
        for subset, pairs in description["subsets"].items():
            for pair in pairs:
                number = found[subset][pair["name"]] // (len(names) // 6)
                where.setdefault(number, set()).add(subset)
                first |= {pair["patient"]} if number == 0 else set()
        assert sorted(where) == list(range(6)) and all(len(subsets) == 1 for subsets in where.values())
        told = f"{' and '.join(map(repr, sorted(first)))} are taken as times or sides of one patient (6 such patients)"
        assert told in " ".join(description["notes"])
        folds = [{name.replace("left", "").replace("right", "") for name in fold} for fold in description["folds"]]
        assert all(not (one & other) for one in folds for other in folds if one is not other)


def test_a_pattern_of_the_users_own_is_followed(tmp_path):
    names = TIMES["times in names"]
    pattern = r"(?P<patient>patient\d)_.*_(?P<slice>\d+)"
    description, _ = take(with_names(tmp_path / "source", names), tmp_path / "work", patient_pattern=pattern)
    assert set().union(*patients(description).values()) == {f"patient{number}" for number in range(6)}
    assert len(description["notes"]) == 1  # the split


@pytest.mark.parametrize(
    "names, pattern, part",
    [
        (
            [f"site{s}_p{p}_{n}" for s in "ABC" for p in range(2) for n in range(2)],
            r"(?P<patient>.+)_[^_]+_(?P<slice>\\d+)",
            0,
        ),
        ([f"ann{p}_{c}" for p in range(6) for c in "abc"], r"(?P<patient>ann\\D*\\d+).*", 0),
        (
            [f"P{p}_{view}_T1_{n}" for p in range(3) for view in ("2CH", "4CH") for n in range(2)],
            r"(?P<patient>P\\D*\\d+).*_(?P<slice>\\d+)",
            0,
        ),
        (
            [f"{plane}/p{p}_{n}" for plane in ("axial", "coronal") for p in range(4) for n in range(2)],
            r"[^ _.-]*[ _.-](?P<patient>.+)_(?P<slice>\\d+)",
            1,
        ),
    ],
)
def test_names_that_look_alike_are_told_with_the_pattern_that_joins_them(names, pattern, part, tmp_path):
    description, _ = take(with_names(tmp_path / "source", names), tmp_path / "work")
    [note] = [note for note in description["notes"] if "look alike" in note]
    assert f"if they are one patient, give patient_pattern='{pattern}'" in note
    joined, _ = take(tmp_path / "source", tmp_path / "joined", patient_pattern=pattern.replace(r"\\", "\\"))
    assert set().union(*patients(joined).values()) == {name.replace("/", "_").split("_")[part] for name in names}


def test_one_word_before_all_numbers_of_several_subsets_is_nobody(tmp_path):
    lay_out(tmp_path / "source", {"{subset}/images/image_{n}.png": picture, "{subset}/labels/label_{n}.png": mask})
    description, found = take(tmp_path / "source", tmp_path / "work")
    assert together(found) == {f"image_{seed}": seed for seed in range(6)}
    assert patients(description)["train"] == {"image_0", "image_3"}
    assert description["notes"][0].startswith("All names begin with image_, which is taken for the dataset's name")


def test_names_of_subsets_before_all_numbers_are_nobody(tmp_path):
    lay_out(tmp_path / "source", {"{subset}/images/{subset}_{n}.png": picture, "{subset}/masks/{subset}_{n}.png": mask})
    description, _ = take(tmp_path / "source", tmp_path / "work")
    assert patients(description)["train"] == {"train_0", "train_3"}
    assert description["notes"][0].startswith(
        "All names begin with test_ or train_ or val_, which is taken for the dat"
    )


@pytest.mark.parametrize("name", ["scan{}_slice{}", "scan_{:03d}_slice_{:02d}", "MRI_scan_{:02d}_{:03d}", "scan {} {}"])
def test_slices_of_one_scan_stay_together_and_those_of_several_apart(name, tmp_path):
    source = with_names(tmp_path / "source", [name.format(p, n) for p in range(6) for n in range(3)])
    description, found = take(source, tmp_path / "work")
    notes = " ".join(description["notes"])
    if "patient_pattern=" in notes:  # the slices are no numbers after a last "_": what is advised is right
        pattern = notes.partition("patient_pattern='")[2].partition("'")[0].replace("\\\\", "\\")
        description, found = take(source, tmp_path / "joined", patient_pattern=pattern)
    assert len(set().union(*patients(description).values())) == 6
    for start in range(0, 18, 3):
        assert sum(bool({*range(start, start + 3)} & {*numbers.values()}) for numbers in found.values()) == 1
    assert "times or sides" not in notes


@pytest.mark.parametrize(
    "name",
    [
        "slice_{n}_patient_{p}",
        "img_{n:03d}_pat_{p:02d}",
        "z{n:03d}_p{p}",
        "slice{n}_LIDC-IDRI-000{p}",
        "slice_{n}_p_{p}_ct",
        "{n:03d}_patient_{p}",
        "{n:03d}-case{p:02d}",
    ],
)
def test_a_number_of_a_patient_after_that_of_a_slice_is_the_patients(name, tmp_path):
    source = with_names(tmp_path / "source", [name.format(n=n, p=p) for p in range(4) for n in range(3)])
    description, found = take(source, tmp_path / "work")
    assert len(together(found)) == 12 and len(description["notes"]) == 1
    for subset, pairs in description["subsets"].items():
        assert {found[subset][pair["name"]] // 3 for pair in pairs} == {int(pair["patient"][-1]) for pair in pairs}
        assert all(pair["slice"] == found[subset][pair["name"]] % 3 for pair in pairs)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("la_{p:03d}_{n:03d}", "la_{p:03d}"),
        ("p{p}_slice{n}", "p{p}"),
        ("scan_{p}_slice_{n:02d}", "scan_{p}"),
        ("Anonymous.Seq{p}.Ser2.Img{n}", "Anonymous.Seq{p}.Ser2"),
        ("{p:03d}_{n}_ct", "{p:03d}"),
    ],
)
def test_plain_patients_and_numbers_raise_no_doubt(name, patient, tmp_path):
    names = [name.format(p=p, n=n) for p in range(6) for n in range(2)]
    description, found = take(with_names(tmp_path / "source", names), tmp_path / "work")
    of_pairs = {
        pair["name"]: (pair["patient"], pair["slice"]) for pairs in description["subsets"].values() for pair in pairs
    }
    assert of_pairs == {one: (patient.format(p=seed // 2), seed % 2) for seed, one in enumerate(names)}
    assert len(description["notes"]) == 1


# --- volumes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "drawn", "first"),
    [
        ("{p}/{p}_frame{t:02d}.nii.gz", "{p}/{p}_frame{t:02d}_gt.nii.gz", "'patient0_frame01' and 'patient0_frame02'"),
        ("T{t}/images/{p}.nii.gz", "T{t}/masks/{p}.nii.gz", "'T1-patient0' and 'T2-patient0'"),
    ],
)
def test_volumes_of_two_times_of_one_patient_stay_together(image, drawn, first, tmp_path):
    for seed in range(8):
        names = {"p": f"patient{seed // 2}", "t": seed % 2 + 1}
        put(tmp_path / "source", image.format(**names), picture(seed))
        put(tmp_path / "source", drawn.format(**names), mask(seed))
    for seed in range(3):
        description = import_dataset(tmp_path / "source", tmp_path / "work", seed=seed, progress=False)
        who = patients(description)
        people = [{re.search(r"patient\d", name)[0] for name in names} for names in who.values()]
        assert sum(map(len, who.values())) == 8 and sum(map(len, people)) == 4
        [note] = [note for note in description["notes"] if note.startswith(f"{first} are")]
        assert note.endswith("if they are not, give patient_pattern=None.")  # another pattern is refused


def test_volumes_of_one_name_in_two_subsets_are_of_two_patients_only_if_the_user_says_so(tmp_path):
    lay_out(tmp_path / "source", {"{subset}/images/{p}.nii.gz": picture, "{subset}/masks/{p}.nii.gz": mask})
    with pytest.raises(CourseError, match="Patient '1' is in two subsets .* give patient_pattern=None"):
        import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    description = import_dataset(tmp_path / "source", tmp_path / "work", patient_pattern=None, progress=False)
    assert patients(description)["test"] == {"test/1", "test/2"} and len(description["geometry"]) == 6


@pytest.mark.parametrize(("name", "pattern"), [("CT_scan_0{}", PATIENT_PATTERN), ("p1_day{}", None)])
def test_volumes_that_look_like_times_of_one_patient_can_be_taken_apart(name, pattern, tmp_path):
    for seed in range(6):
        put(tmp_path / "source", f"images/{name.format(seed)}.nii.gz", picture(seed))
        put(tmp_path / "source", f"masks/{name.format(seed)}.nii.gz", mask(seed))
    if pattern is None:
        with pytest.raises(CourseError, match="1 patient is too few .* give patient_pattern=None"):
            import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    description = import_dataset(tmp_path / "source", tmp_path / "work", patient_pattern=pattern, progress=False)
    assert len(set().union(*patients(description).values())) == 6


def test_volumes_for_test_with_labels_are_test_and_without_are_passed_over(tmp_path):
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
        "source/imagesTs/c3_0000.nii.gz (and 1 more) has no mask: nothing of test has one, so all of it is passed over."
    )


def test_volumes_of_several_channels_or_with_two_masks_are_refused(tmp_path):
    images = {f"imagesTr/c{{n}}_000{channel}.nii.gz": picture for channel in range(2)}
    lay_out(tmp_path / "source", {**images, "labelsTr/c{n}.nii.gz": mask}, 3)
    with pytest.raises(CourseError, match=r"c0.nii.gz has several images \(train/c0_0000, train/c0_0001\)"):
        import_dataset(tmp_path / "source", tmp_path / "work", progress=False)
    masks = {f"c{{n}}_{ending}.nii.gz": mask for ending in ("seg", "seg_2")}
    lay_out(tmp_path / "other", {"c{n}.nii.gz": picture, **masks}, 3)
    with pytest.raises(CourseError, match=r"c0_seg_2.nii.gz \(and 2 more\) is a second mask of one volume"):
        import_dataset(tmp_path / "other", tmp_path / "work", progress=False)
