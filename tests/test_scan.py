"""A scan is read from any format, turned to the axes of the training, and its mask lies where the scan lies."""

import itertools
import re
import sys
import tarfile
import zipfile

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image

from course import scan as scans
from course.workspace import CourseError

SHAPE, SPACING = (6, 9, 13), (0.7, 1.1, 2.5)  # right, front, head: no two alike
HEART = ("P", "R", "S")


@pytest.fixture(scope="module")
def body():
    """A volume with the axes R, A, S in which every voxel has a value of its own."""
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def affine(spacing=SPACING, origin=(-3.0, 5.0, 7.0)):
    """An affine of axes to the right, front and head."""
    result = np.diag([*spacing, 1.0])
    result[:3, 3] = origin
    return result


def as_imported(values):
    """The pictures that the import makes of a volume with the axes R, A, S."""
    return np.stack([np.rot90(values[..., number]) for number in range(values.shape[2])])


def turned(values, space, order, flips):
    """A volume with its axes exchanged and flipped, and the affine that keeps every voxel in place."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips)):
        matrix[old, new] = -1 if flip else 1
        if flip:
            matrix[old, 3] = values.shape[old] - 1
    moved = values.transpose(order)
    for axis, flip in enumerate(flips):
        moved = np.flip(moved, axis) if flip else moved
    return np.ascontiguousarray(moved), space @ matrix


def save(path, values, space, sform=1, qform=1):
    volume = nibabel.Nifti1Image(values, space)
    volume.set_sform(space, code=sform)
    volume.set_qform(space, code=qform)
    nibabel.save(volume, path)
    return path


def save_series(folder, values, space, **changes):
    """Write a volume as a DICOM series with its files in shuffled order; the tags are derived from the affine here."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1, -1, 1, 1]) @ space
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    series = pydicom.uid.generate_uid()
    for number in range(values.shape[2]):
        entry = pydicom.Dataset()
        entry.file_meta = pydicom.dataset.FileMetaDataset()
        entry.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        entry.SOPClassUID = entry.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        entry.SOPInstanceUID = entry.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        entry.SeriesInstanceUID, entry.Modality, entry.InstanceNumber = series, "MR", 1
        entry.Rows, entry.Columns = values.shape[1], values.shape[0]
        entry.PixelSpacing = [float(steps[1]), float(steps[0])]  # between rows, between columns
        entry.ImageOrientationPatient = [*(lps[:3, 0] / steps[0]), *(lps[:3, 1] / steps[1])]
        entry.ImagePositionPatient = [float(x) for x in lps[:3] @ [0, 0, number, 1]]
        entry.SamplesPerPixel, entry.PhotometricInterpretation = 1, "MONOCHROME2"
        entry.BitsAllocated = entry.BitsStored = 16
        entry.HighBit, entry.PixelRepresentation = 15, 1
        entry.PixelData = np.ascontiguousarray(values[:, :, number].T.astype("<i2")).tobytes()
        for tag, value in changes.items():
            if value is None:
                delattr(entry, tag)
            else:
                setattr(entry, tag, value(number) if callable(value) else value)
        entry.save_as(folder / f"{(7 * number) % 100:03d}.dcm", enforce_file_format=True)
    return folder


# --- turning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_scan_in_any_of_48_orientations_gives_the_same_pictures_and_its_mask_comes_back(tmp_path, body, order):
    expected = as_imported(body)
    for flips in itertools.product((False, True), repeat=3):
        values, space = turned(body, affine(), order, flips)
        scan = scans.read_scan(save(tmp_path / "scan.nii.gz", values, space))
        pictures, spacing = scans.to_pictures(scan, HEART)
        assert np.array_equal(pictures, expected)
        assert spacing == pytest.approx([SPACING[1], SPACING[0], SPACING[2]])
        mask = scans.from_pictures((pictures > 300).astype(np.uint8), scan, HEART)
        assert np.array_equal(mask, values > 300)


def test_a_scan_is_turned_to_the_axes_of_the_training_and_a_guess_is_reported(tmp_path, body):
    placed = scans.read_scan(save(tmp_path / "placed.nii", body, affine()))
    assert scans.scan_axes(placed, ["I", "A", "R"]) == (("I", "A", "R"), [])
    axes, guesses = scans.scan_axes(placed, None)
    assert axes == HEART and "is a guess" in guesses[0]
    of_itk = np.diag([-0.7, -1.1, 2.5, 1])  # as SimpleITK writes an array with a spacing
    for space, codes in ((np.abs(of_itk), (1, 1)), (of_itk, (1, 1)), (affine(), (0, 0))):  # nothing about the patient
        unplaced = scans.read_scan(save(tmp_path / "unplaced.nii", body, space, *codes))
        assert not unplaced.is_placed and "does not give its orientation" in unplaced.notes[0]
        assert unplaced.knows_space
        pictures, _ = scans.to_pictures(unplaced, scans.scan_axes(unplaced, ["I", "A", "R"])[0])
        assert np.array_equal(pictures, as_imported(body))
    for space in (np.eye(4), np.diag([-1, -1, 1, 1])):  # written by nibabel or SimpleITK if nothing is said
        assert not scans.read_scan(save(tmp_path / "nothing.nii", body, space, 1, 1)).knows_space


def test_a_scan_whose_header_gives_no_orientation_is_used_as_stored(tmp_path, body):
    header = nibabel.Nifti1Header()
    header["sform_code"], header["srow_x"], header["srow_y"] = 1, (2, 0, 0, 5), (0, 3, 0, 5)  # and srow_z is all 0
    nibabel.save(nibabel.Nifti1Image(body, None, header), tmp_path / "scan.nii")
    scan = scans.read_scan(tmp_path / "scan.nii")
    assert not scan.is_placed and not scan.knows_space and "does not give its voxel spacing" in scan.notes[0]
    with pytest.raises(CourseError, match="a volume has its spacing in its header"):
        scans.read_scan(tmp_path / "scan.nii", spacing=[1, 1, 3])
    pictures, spacing = scans.to_pictures(scan, scans.scan_axes(scan, ["I", "A", "R"])[0])
    assert np.array_equal(pictures, as_imported(body)) and spacing == [1, 1, 1]


@pytest.mark.parametrize("size", [(9, 6), (12, 3), (5, 7), (4, 4)])
def test_cutting_or_padding_to_another_size_is_centred_and_can_be_undone(size):
    pictures = np.arange(1, 2 * 9 * 6 + 1).reshape(2, 9, 6)
    other = scans.centred(pictures, *size)
    assert other.shape == (2, *size)
    back = scans.centred(other, 9, 6)
    assert np.array_equal(back[back > 0], pictures[back > 0])
    assert (back > 0).sum() == 2 * min(9, size[0]) * min(6, size[1])
    middle = np.argwhere(back[0] > 0)
    assert abs(middle.mean(axis=0) - [4, 2.5]).max() <= 0.5


@pytest.mark.parametrize("axes", [("I", "A", "R"), ("P", "R", "S"), ("A", "S", "L"), ("R", "P", "I"), None])
def test_a_patient_of_the_dataset_is_a_scan_that_gives_its_own_pictures(tmp_path, axes):
    rng = np.random.default_rng(0)
    pictures, masks = rng.integers(0, 255, (3, 5, 7), np.uint8), rng.random((3, 5, 7)) > 0.5
    for kind, stack in (("images", pictures), ("masks", 255 * masks.astype(np.uint8))):
        (tmp_path / "valid" / kind).mkdir(parents=True)
        for number, picture in enumerate(stack):
            Image.fromarray(picture).save(tmp_path / "valid" / kind / f"p_{number}.png")
    description = {
        "root": str(tmp_path),
        "mask_values": [0, 255],
        "spacing": None,
        "geometry": {"p": {"spacing": [1.0, 2.0, 5.0], "axes": axes}},
        "subsets": {"valid": [{"name": f"p_{number}", "patient": "p", "slice": number} for number in range(3)]},
    }
    scan, truth = scans.patient_scan(description, tmp_path, "valid", "p")
    assert scan.is_placed is (axes is not None) and scan.voxel_millilitres == pytest.approx(0.01)
    turned_to, _ = scans.scan_axes(scan, axes)
    own, spacing = scans.to_pictures(scan, turned_to)
    assert np.array_equal(own, pictures) and spacing == pytest.approx([1, 2, 5])
    assert np.array_equal(scans.from_pictures(masks, scan, turned_to), truth > 0)


def test_a_patient_whose_pictures_differ_in_size_is_not_a_scan(tmp_path):
    for name, size in (("p_1", (4, 6)), ("p_2", (4, 7))):
        for kind in ("images", "masks"):
            (tmp_path / "valid" / kind).mkdir(parents=True, exist_ok=True)
            Image.new("L", size).save(tmp_path / "valid" / kind / f"{name}.png")
    pairs = [{"name": name, "patient": "p"} for name in ("p_1", "p_2")]
    description = {"root": str(tmp_path), "mask_values": [0, 255], "subsets": {"valid": pairs}}
    with pytest.raises(CourseError, match=r"pictures of p differ in size .*\(6, 4\).* \(7, 4\).*: give a scan whose"):
        scans.patient_scan(description, tmp_path, "valid", "p")


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (4, 0), (0, 2), (2, 1)])
def test_a_mask_has_the_scans_shape_affine_and_codes(tmp_path, body, sform, qform):
    space = affine() @ np.diag([1, -1, 1, 1])
    scan = scans.read_scan(save(tmp_path / "one.nii", body, space, sform, qform))
    scans.save_volume((body > 99).astype(np.uint8), scan, tmp_path / "mask.nii.gz")
    mask, source = nibabel.load(tmp_path / "mask.nii.gz"), nibabel.load(tmp_path / "one.nii")
    assert mask.shape == SHAPE and np.array_equal(mask.affine, source.affine) and mask.get_data_dtype() == np.uint8
    assert [int(mask.header[code]) for code in ("sform_code", "qform_code")] == [sform, qform]
    assert np.array_equal(np.asarray(mask.dataobj), body > 99)
    assert scan.voxel_millilitres == pytest.approx(0.7 * 1.1 * 2.5 / 1000) and scan.name == "one"


@pytest.mark.parametrize(("shape", "unit"), [(SHAPE, "meter"), ((*SHAPE, 1), "mm"), (SHAPE[:2], "mm")])
def test_a_mask_is_read_in_the_place_of_its_scan_whatever_its_unit_and_axes(tmp_path, body, shape, unit):
    volume = nibabel.Nifti1Image(body[:, :, : np.prod(shape) // 54].reshape(shape), affine())
    volume.header.set_xyzt_units(unit)
    nibabel.save(volume, tmp_path / "scan.nii")
    scan = scans.read_scan(tmp_path / "scan.nii")
    scans.save_volume(np.uint8(scan.values > 9), scan, tmp_path / "mask.nii.gz")
    mask = scans.read_scan(tmp_path / "mask.nii.gz")
    assert nibabel.load(tmp_path / "mask.nii.gz").shape == shape
    assert np.array_equal(mask.values, scan.values > 9) and np.array_equal(mask.affine, scan.affine)


@pytest.mark.parametrize("content", ["a mask", "no volume"])
def test_a_mask_drawn_by_a_person_is_not_overwritten(tmp_path, body, content):
    scan = scans.read_scan(save(tmp_path / "p1.nii.gz", body, affine()))
    for _ in range(2):
        scans.save_volume(np.uint8(scan.values > 9), scan, tmp_path / "out" / "p1_mask.nii.gz")  # its own, replaced
    theirs = tmp_path / "p1_mask.nii.gz"
    save(theirs, body, affine()) if content == "a mask" else theirs.write_text(content)
    before = theirs.read_bytes()
    told = r"p1_mask\.nii\.gz in .* (was not saved by this course|cannot be read \().*: move"
    with pytest.raises(CourseError, match=told):
        scans.save_volume(np.uint8(scan.values > 9), scan, theirs)
    assert theirs.read_bytes() == before


def test_a_mask_of_another_shape_is_refused(tmp_path, body):
    with pytest.raises(ValueError, match="shape"):
        scans.save_volume(body[1:], scans.Scan("scan", body, affine(), True), tmp_path / "mask.nii.gz")
    assert not list(tmp_path.iterdir())


def test_a_dicom_series_is_read_as_the_volume_that_simpleitk_reads(tmp_path, body):
    for number, (order, flips) in enumerate([((0, 1, 2), (0, 0, 0)), ((1, 2, 0), (1, 0, 1)), ((2, 0, 1), (0, 1, 1))]):
        values, space = turned(body, affine(), order, flips)
        folder = save_series(tmp_path / str(number), values, space)
        scan = scans.read_scan(folder)
        names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
        other = SimpleITK.ReadImage(names)
        lps = np.eye(4)
        lps[:3, :3] = np.reshape(other.GetDirection(), (3, 3)) * other.GetSpacing()
        lps[:3, 3] = other.GetOrigin()
        assert scan.affine == pytest.approx(np.diag([-1, -1, 1, 1]) @ lps, abs=1e-4)
        assert np.array_equal(scan.values, SimpleITK.GetArrayFromImage(other).transpose(2, 1, 0))
        pictures, _ = scans.to_pictures(scan, HEART)
        assert np.array_equal(pictures, as_imported(body))
        scans.save_volume(np.uint8(scan.values > 9), scan, tmp_path / "mask.nii.gz")
        assert nibabel.load(tmp_path / "mask.nii.gz").affine == pytest.approx(scan.affine, abs=1e-5)


@pytest.mark.parametrize("save_it", [lambda path, *volume: save(path.with_suffix(".nii"), *volume), save_series])
def test_a_scan_whose_axes_are_not_at_right_angles_is_reported(tmp_path, body, save_it):
    tilted = affine()
    tilted[1, 2] = 0.2 * SPACING[2]  # each slice lies further to the front
    [note] = scans.read_scan(save_it(tmp_path / "tilted", body, tilted)).notes
    assert re.match(r"(.*/)?tilted(\.nii)? has axes that are not at right angles, as with a tilted gantry: they", note)
    assert scans.read_scan(save_it(tmp_path / "upright", body, affine())).notes == ()


def test_dicom_values_are_rescaled_and_inverted_as_their_tags_say(tmp_path, body):
    scan = scans.read_scan(save_series(tmp_path / "a", body, affine(), RescaleSlope=2, RescaleIntercept=-100))
    assert np.array_equal(scan.values, 2 * body.astype(float) - 100)
    scan = scans.read_scan(save_series(tmp_path / "b", body, affine(), PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(scan.values, body.max() - body)  # the lowest is 0


@pytest.mark.parametrize(
    ("tags", "thickness", "note"),
    [
        ({"SpacingBetweenSlices": 9, "SliceThickness": 8}, 9, "SpacingBetweenSlices says that it is 9 mm thick"),
        ({"SpacingBetweenSlices": "", "SliceThickness": 0.8}, 0.8, "SliceThickness says that it is 0.8 mm thick"),
        ({"SliceThickness": 0}, None, "does not give its thickness, so its volume is unknown"),
    ],
)
def test_a_single_dicom_file_is_as_thick_as_its_tags_say(tmp_path, body, tags, thickness, note):
    scan = scans.read_scan(save_series(tmp_path / "one", body[:, :, :1], affine(), **tags))
    assert np.array_equal(scan.values, body[:, :, :1]) and scan.knows_space is (thickness is not None)
    assert scan.voxel_millilitres == pytest.approx(0.7 * 1.1 * (thickness or 1) / 1000) and note in scan.notes[0]


def test_rounded_slice_positions_count_as_even_and_are_reported(tmp_path, body):
    def position(number):
        return [0, 0, round(1.25 * number, 1)]

    scan = scans.read_scan(save_series(tmp_path / "one", body, affine(), ImagePositionPatient=position))
    assert scan.affine[2, 2] == pytest.approx(1.25) and scan.knows_space
    assert "lie 1.20 to 1.30 mm apart, up to 0.05 mm away from evenly spaced places" in scan.notes[0]


def test_a_truth_is_1_at_every_label_and_in_the_place_of_its_scan(tmp_path, body):
    scan = scans.read_scan(save(tmp_path / "scan.nii", body, affine()))
    labels = (7 * (body % 3 > 0)).astype(np.uint8)
    soft = np.array([0.3, 0.5, 1], np.float32)[body % 3]
    for values, note in ((labels, ""), (soft, "a.nii holds a soft label")):
        truth, told = scans.read_truth(save(tmp_path / "a.nii", values, affine()), scan)
        assert truth.dtype == np.uint8 and np.array_equal(truth, body % 3 > 0) and note in " ".join(told)
    with pytest.raises(CourseError, match=r"The truth b holds several labels \(1, 2\)"):
        scans.read_truth(save(tmp_path / "b.nii", (body % 3).astype(np.uint8), affine()), scan)
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        packed.write(save(tmp_path / "c.nii", labels, affine()), "c.nii")
    with pytest.raises(CourseError, match=r"The truth c\.zip is not a NIfTI file: save the mask as"):
        scans.read_truth(tmp_path / "c.zip", scan)
    for other in ((labels[1:], affine()), (labels, affine(origin=(-3.0, 5.0, 7.1)))):
        with pytest.raises(CourseError, match="The truth b differs from the scan scan in shape or affine"):
            scans.read_truth(save(tmp_path / "b.nii", *other), scan)


def test_pictures_and_a_zip_of_them_are_stacked_by_number(tmp_path, body):
    (tmp_path / "slices").mkdir()
    for number in range(11):
        Image.fromarray(np.full((4, 5), 10 * number, np.uint8)).save(tmp_path / "slices" / f"p_{number}.png")
    scan = scans.read_scan(tmp_path / "slices", spacing=[1.5, 2, 3])
    pictures, spacing = scans.to_pictures(scan, scans.scan_axes(scan, HEART)[0])
    assert pictures.shape == (11, 4, 5) and pictures[:, 0, 0].tolist() == list(range(0, 110, 10))  # 2 before 10
    assert spacing == [1.5, 2, 3] and not scan.notes
    with zipfile.ZipFile(tmp_path / "slices.zip", "w") as packed:
        for file in (tmp_path / "slices").iterdir():
            packed.write(file, f"slices/{file.name}")
    zipped = scans.read_scan(tmp_path / "slices.zip")
    assert np.array_equal(zipped.values, scan.values) and not zipped.knows_space and "SPACING" in zipped.notes[0]
    assert np.array_equal(zipped.affine, np.eye(4))
    (tmp_path / "slices" / "geometry.json").write_text('{"spacing": [1.5, 2, 3], "axes": ["I", "A", "R"]}')
    placed = scans.read_scan(tmp_path / "slices")
    pictures, spacing = scans.to_pictures(placed, ("I", "A", "R"))
    assert np.array_equal(pictures[:, 0, 0], range(0, 110, 10)) and spacing == [1.5, 2, 3] and placed.is_placed
    with pytest.raises(CourseError, match="both give a spacing"):
        scans.read_scan(tmp_path / "slices", spacing=[1.5, 2, 3])


@pytest.mark.parametrize("name", ["{}", "p-{}", "2024-01-03_-_{:03d}", "IM ({})", "p_-3_{} left", "-1-{}"])
def test_a_slices_number_is_the_last_number_in_its_name(tmp_path, name):
    for number in range(9, 12):
        Image.new("L", (4, 4), number).save(tmp_path / f"{name.format(number)}.png")
    assert scans.read_scan(tmp_path).values[0, 0].tolist() == [9, 10, 11]


def test_a_scan_is_named_after_the_given_path_and_has_its_spacing(tmp_path, body, monkeypatch):
    (tmp_path / "b.2").mkdir()
    series = save_series(tmp_path / "d.4", body, affine())
    (series / "DICOMDIR").write_bytes(bytes(128) + b"DICM")  # the index of a CD
    with zipfile.ZipFile(tmp_path / "c.3.zip", "w") as packed:
        for file in series.iterdir():
            packed.write(file, f"export/{file.stem}")  # hospitals export without file extensions
    given = save(tmp_path / "a.1.nii.gz", body, affine()), save(tmp_path / "b.2" / "image.nii", body, affine()).parent
    for path, name in zip((*given, tmp_path / "c.3.zip", series), ("a.1", "b.2", "c.3", "d.4")):
        scan = scans.read_scan(path)
        assert scan.name == scans.scan_name(path) == name and np.array_equal(scan.values, body)
        if path.is_dir():
            monkeypatch.chdir(path)
            assert scans.read_scan(".").name == name
        with pytest.raises(CourseError, match=f"spacing= is for pictures, and {name} holds none"):
            scans.read_scan(path, spacing=[1, 1, 1])


# --- what cannot be read ------------------------------------------------------------------------------------


SERIES = {  # what is changed in a valid series
    "two series": (
        {"SeriesInstanceUID": lambda n: f"1.2.{n // 8}", "SeriesDescription": "cine"},
        r"holds 2 series: cine \(8 files, .*scan/000\.dcm\), cine \(5 files, .*scan/056\.dcm\)",
    ),
    "missing slice": ({"ImagePositionPatient": lambda n: [0, 0, n + (n > 5)]}, "1.00 to 2.00 mm apart, .* are missing"),
    "growing steps": ({"ImagePositionPatient": lambda n: [0, 0, n + n * n / 60]}, "1.02 to 1.38 mm apart, .* missing"),
    "askew": ({"ImagePositionPatient": lambda n: [0, 5 * np.sin(n), 3 * n]}, r"up to 6\.74 mm away from evenly"),
    "two times": ({"ImagePositionPatient": lambda n: [0, 0, n - (n > 3)]}, r"same place \(\S+21\.dcm and \S+28\.dcm"),
    "no position": (
        {"PixelSpacing": None, "ImagePositionPatient": None},
        "not give ImagePositionPatient as 3 .* place",
    ),
    "position NaN": ({"ImagePositionPatient": lambda n: ["nan", 0, n]}, "not give ImagePositionPatient as 3 finite"),
    "direction of five": ({"ImageOrientationPatient": [1, 0, 0, 0, 1]}, "not give ImageOrientationPatient as 6 finite"),
    "direction of length 2": ({"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]}, "000.dcm .* two directions of length 1"),
    "directions alike": ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "two directions of length 1 at right angles"),
    "spacing of one": ({"PixelSpacing": [1.0]}, "does not give PixelSpacing as 2 finite numbers"),
    "spacing 0": ({"PixelSpacing": [0, 1]}, "has a PixelSpacing of 0"),
    "frames empty, slope empty": ({"NumberOfFrames": "", "RescaleSlope": "", "RescaleIntercept": ""}, "read as DICOM"),
    "slope NaN": ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "not finite"),
    "numbers of colours": ({"PhotometricInterpretation": "PALETTE COLOR"}, "000.dcm is not a single slice of grey"),
    "lowest and highest white": ({"PhotometricInterpretation": lambda n: f"MONOCHROME{1 + n % 2}"}, "tion: give one"),
    "several frames": ({"NumberOfFrames": 4}, "not a single slice of grey values"),
    "colours": ({"SamplesPerPixel": 3}, "not a single slice of grey values"),
    "pixels cut short": ({"PixelData": b"\0\0"}, r"\d\.dcm cannot be read as DICOM .*dcm2niix"),
    "sizes": ({"PixelSpacing": lambda n: [1, 1 + (n > 3)]}, "differ in size, spacing, direction"),
    "directions": ({"ImageOrientationPatient": lambda n: [1, 0, 0, 0, int(n > 0), int(n < 1)]}, "differ in size, sp"),
}


@pytest.mark.parametrize("case", SERIES)
def test_a_series_that_is_not_a_single_volume_is_refused_in_one_sentence(tmp_path, body, case):
    changes, sentence = SERIES[case]
    folder = save_series(tmp_path / "scan", body, affine(), **changes)
    with pytest.raises(CourseError, match=sentence) as raised:
        scans.read_scan(folder)
    assert len(str(raised.value)) < 400


FILES = {  # the path that is given, the files in the folder, and the sentence
    "nothing": ("x", [], "There is no scan at"),
    "empty": ("", [], "holds no volume, no picture and no DICOM file"),
    "a pair of files": ("a.img", ["a.img", "a.hdr"], r"a\.img is of a type that is not read: save volumes as NIf"),
    "folder of MetaImage": ("", ["a.mhd", "a.raw"], r"a\.mhd is of a type that is not read: save volumes as NIfTI"),
    "folder of WebP": ("", ["0.webp", "1.webp"], r"0\.webp is of a type .* and pictures as PNG"),
    "mixed": ("", ["0.png", "a.dcm", "b.dcm"], r"holds 1 files such as 0\.png and 2 files such as a\.dcm: .*one kind"),
    "two volumes": ("", ["a.nii", "b.nii.gz"], r"holds 2 volumes \(a\.nii and others\): give one of them"),
    "no DICOM": ("", ["a.dcm"], r"scan/a\.dcm cannot be read as DICOM .*dcm2niix"),
    "one file": ("a.dcm", ["a.dcm"], r"a\.dcm is a single slice: give the folder"),
    "pictures in one file": ("stack.tif", ["stack.tif"], r"stack\.tif holds 2 pictures, .* save each in a file of its"),
    "one picture": ("3.png", ["3.png"], r"3\.png is a single slice: give the folder"),
    "gap in numbers": ("", ["0.png", "1.png", "3.png", "5.png"], r"has no slice 2 \(2 missing\)"),
    "dates": ("", ["20261127101500.png", "20271127101500.png"], r"\(9,999,999,999 missing\)"),
    "two types": ("", ["0.png", "1.tif"], r"differ in size or type \(\(4, 4\) int32, \(4, 4\) uint8\)"),
    "two sizes": ("", ["0.png", "1.bmp"], r"differ in size or type \(\(4, 4\) uint8, \(8, 4\) uint8\)"),
    "flat affine": ("", ["flat.nii"], "The affine of flat.nii puts all voxels into one plane"),
    "wrong geometry": ("", ["0.png", "geometry.json"], "geometry.json is not readable as JSON"),
    "a number twice": ("", ["a1.png", "a01.png"], "Not every picture of .* has a number of its own"),
    "minus": ("", ["p_-12.png", "p_-11.png"], "Not every picture of .* has a number of its own, without a minus"),
    "two patients": ("", ["p1_0.png", "p1_1.png", "p2_2.png"], r"last number \(p1_1\.png, p2_2\.png\), .* two scans"),
    "two folders": ("", ["a/0.png", "b/1.png"], r"last number \(a/0\.png, b/1\.png\), so .*: give the folder of one"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_not_a_single_volume_are_refused_in_one_sentence(tmp_path, case):
    given, names, sentence = FILES[case]
    (tmp_path / "scan").mkdir()
    for name in names:
        path = tmp_path / "scan" / name
        path.parent.mkdir(exist_ok=True)
        picture = {".png": ("L", (4, 4)), ".tif": ("I", (4, 4)), ".bmp": ("L", (4, 8))}.get(path.suffix)
        Image.new(*picture).save(path) if picture else path.write_text("nothing")
        if name == "stack.tif":
            Image.new("L", (4, 4)).save(path, save_all=True, append_images=[Image.new("L", (4, 4), 9)])
        if name == "flat.nii":
            space = np.array([[1, 1, 0, 5], [0, 0, 0, 5], [0, 0, 1, 5], [0, 0, 0, 1]])
            save(path, np.zeros(SHAPE, np.int16), space, qform=0)
    with pytest.raises(CourseError, match=sentence) as raised:
        scans.read_scan(tmp_path / "scan" / given)
    assert len(str(raised.value)) < 400


def test_without_pydicom_the_sentence_names_it(tmp_path, body, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(CourseError, match="pip install pydicom"):
        scans.read_scan(save_series(tmp_path / "series", body, affine()))


def test_scans_in_a_folder_are_found_in_order(tmp_path, body):
    save(tmp_path / "b.nii.gz", body, affine())
    save_series(tmp_path / "a", body, affine())
    (tmp_path / "notes.txt").touch()
    assert scans.find_scans(tmp_path) == ([tmp_path / "a", tmp_path / "b.nii.gz"], [])
    assert scans.find_scans(tmp_path / "a") == ([tmp_path / "a"], [])
    assert scans.find_scans(tmp_path / "b.nii.gz") == ([tmp_path / "b.nii.gz"], [])
    with pytest.raises(CourseError, match="There is no scan"):
        scans.find_scans(tmp_path / "nothing")
    save(tmp_path / "b.nii", body, affine())
    with pytest.raises(CourseError, match=r"b\.nii and b\.nii\.gz would get the same output name"):
        scans.find_scans(tmp_path)
    (tmp_path / "b.nii").rename(tmp_path / "a" / "old.nii")
    with pytest.raises(CourseError, match=r"holds slices such as 000\.dcm beside scans such as old\.nii"):
        scans.find_scans(tmp_path / "a")


@pytest.mark.parametrize(
    ("names", "found", "told"),
    [
        (
            "a.nii b.nrrd c.hdr d.csv",
            "a.nii",
            r"b\.nrrd \(and 1 more\) was passed over: files of its type are not read; save",
        ),
        ("b.nrrd d.csv", ".", None),
        ("a.zip b.tar c.TGZ d.tar.gz e.tar.xz f.gz", "a.zip b.tar c.TGZ d.tar.gz e.tar.xz", None),
        ("images/0.png masks/0.png", "images", r"/masks was passed over: its name says that it is a mask"),
        ("P1.nii p1_seg.nii.gz mask_P1.nii p2_seg.nii", "P1.nii p2_seg.nii", r"/mask_P1\.nii \(and 1 more\) was "),
        ("mask.nii", "mask.nii", None),
        (
            "a.nii.gz out/a_mask.nii.gz out/a_probability.nii.gz out/a.json b/b.nii.gz b/b_mask.nii.gz",
            "a.nii.gz b",
            r"/out was passed over: its volumes are masks that were found in other scans",
        ),
    ],
)
def test_other_files_among_scans_are_passed_over_and_reported(tmp_path, names, found, told):
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths, notes = scans.find_scans(tmp_path)
    assert paths == [tmp_path / name for name in found.split()]
    assert len(notes) == bool(told) and re.search(told or "", "".join(notes))


def test_a_tar_is_read_like_a_zip(tmp_path, body):
    with tarfile.open(tmp_path / "one.tar.gz", "w:gz") as packed:
        packed.add(save(tmp_path / "scan.nii", body, affine()), "deep/scan.nii")
    scan = scans.read_scan(tmp_path / "one.tar.gz")
    assert scan.name == "one" and np.array_equal(scan.values, body)
