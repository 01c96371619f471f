"""Import any dataset and describe it in one file.

`import_dataset` takes the made-up sample, the official heart data, or what a user has (a folder, an archive,
NIfTI volumes), checks every file, and writes `dataset.json` in the work folder. Pictures already laid out as
`{train,valid,test}/{images,masks}/NAME.png` are used where they are; all others are converted into the work
folder. The old data stay until the new ones are complete: `dataset.json` is replaced last, in one step.

The description in `dataset.json` holds `name`, `source`, `root` (see `dataset_root`), `spacing` ([row,
column, slice] in mm, or None if it is unknown or differs), `geometry` (for each patient {"spacing", "axes"}, see
`course.geometry.geometry_of`), `mask_values` ([background, foreground] as `Image.convert("L")` reads them), `subsets`
(subset to list of {"name", "patient", "slice", "size": [height, width]}), `twins` (for each scan under two names its
two "patients" as [subset, name], the number of identical "slices", the "dice" between its two annotations, and an
"example", the names of two pictures), `folds` (the patients of each), `excluded`, `notes`, `audit` (see `audit`) and
`fingerprint` (SHA-256 over names and pixels). If files are used where they are, it also holds `state` (see
`course.store.state_of`); if another work folder imported the dataset, `taken_from` (that folder); with a fold, `fold`,
`stored_in` (the subset in whose folder each picture lies) and `as_imported` (the values before the fold).
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import numpy as np
from PIL import Image

from course.audit import audit
from course.folds import apply_fold, check_masks, check_subsets, draw_folds, fill_subsets, undo_fold
from course.geometry import SAGITTAL, common_spacing, picture_geometry, uneven_sentences, unused_sentences
from course.greys import crowded_sentences, faint_sentences, grey_windows, to_greys
from course.labels import choose_foreground, refuse_views, unite_masks
from course.layout import find_files
from course.nifti import foreground_values
from course.notes import told_sentences
from course.patients import PATIENT_PATTERN, excluded_names, pairs_of_pictures
from course.pictures import SUBSETS, measure_pair, measure_pairs, read_pair, reading_order, refuse_dicom
from course.sample import make_sample
from course.sources import fetch_heart, is_data, unpack
from course.store import (
    building_folder,
    check_unchanged,
    dataset_root,
    find_place,
    forget_earlier,
    put_in_place,
    read_description,
    state_of,
)
from course.volumes import pairs_of_volumes
from course.workspace import CourseError, parallel, progress_bar, whole_file, write_json


def import_dataset(
    dataset: str | os.PathLike,
    work_dir: str | os.PathLike,
    *,
    seed: int = 0,
    patient_pattern: str | None = PATIENT_PATTERN,
    exclude=(),
    foreground=None,
    allow_incomplete: bool = False,
    heart_source=None,
    sample: dict | None = None,
    fold: int | None = None,
    spacing: list | None = None,
    progress: bool = True,
) -> dict:
    """Check a dataset, convert it if needed, write `work_dir/dataset.json`, and return what that file holds.

    dataset: "sample" (generated), "heart" (the official archive, downloaded if it is not yet in `work_dir`), or the
        path of a folder or a zip or tar archive with pictures (PNG, JPEG, TIFF, BMP, GIF) or 3-D NIfTI volumes and
        their masks, in subsets or not. The path of another work folder's `dataset.json` takes the dataset as it was
        imported there.
    seed: of the sample, and of the split by patient if the dataset has no subsets.
    patient_pattern: regular expression with the group `patient` and perhaps `slice` that a whole file name (without
        suffix) must match; None if each file is a patient of its own, as each volume is.
        If file names are numbers, the folders above them name the patients: p1/images/000.png is p1_000.
    exclude: names of patients or files to leave out.
    foreground: label or labels, by number or (NIfTI) by name, if masks hold more than two values.
    allow_incomplete: accept the heart data even if patients are missing.
    heart_source: for "heart", the path of `Task02_Heart.tar` or of the unpacked folder; None: downloaded.
    sample: dictionary of arguments for `course.sample.make_sample`.
    fold: the fold (0 to 4) of the train and valid patients that becomes valid; the others become train. None keeps the
        subsets, and gives the work folder's own dataset.json back the subsets with which it was imported.
    spacing: of pictures, [row, column, slice] in mm; None: as `geometry.json` beside the subsets says, if there is one.
    progress: show progress bars for steps that take longer than a few seconds.

    Only one import at a time may run in a work folder.
    Raises CourseError if anything is wrong with the dataset, and then leaves the work folder as it was.
    """
    work_dir = Path(work_dir).absolute()
    if not isinstance(seed, Integral):
        raise CourseError(f"seed={seed!r} is not a whole number: give one, such as 0.")
    seed = int(seed)  # of NumPy too
    if isinstance(dataset, (str, os.PathLike)) and Path(dataset).name == "dataset.json":
        given = exclude or foreground is not None or allow_incomplete or spacing or patient_pattern != PATIENT_PATTERN
        return _take_imported(Path(os.path.expanduser(dataset)).resolve(), work_dir, fold, given)
    exclude = excluded_names(exclude)
    with building_folder(work_dir) as building:
        folder = _source_folder(dataset, work_dir, building, seed, sample, heart_source, progress)
        layout = find_files(folder, work_dir)
        if spacing is not None and (dataset == "sample" or layout.has_volumes):
            raise CourseError("spacing is for pictures of your own. Leave it out: volumes and the sample bring theirs.")
        chosen = None
        if layout.has_volumes:
            choices = dataset == "heart", patient_pattern, exclude, foreground, allow_incomplete
            pairs, people, geometry, notes = pairs_of_volumes(layout, *choices, building / "slices", progress)
            pairs = measure_pairs(pairs, progress)
            notes += unused_sentences(layout.geometry, folder)
        elif dataset == "heart":
            raise CourseError(
                f"{folder} holds pictures, not the volumes of the heart data: give this folder as dataset."
            )
        else:
            chosen = foreground_values(foreground, {})
            choices = patient_pattern, exclude, chosen, spacing
            pairs, people, geometry, notes = _take_pictures(layout, folder, *choices, building / "united", progress)
        notes += uneven_sentences(geometry) + told_sentences({pair.image: pair.facts.told for pair in pairs})
        is_foreground, mask_values, of_masks = choose_foreground(pairs, chosen)
        check_subsets(pairs, people)
        pairs, of_subsets = fill_subsets(pairs, seed, people)
        root, pairs, of_greys = _in_canonical_form(pairs, building, is_foreground, progress)
        check_masks(pairs, mask_values)
        pairs.sort(key=reading_order)
        twins, findings, doubts = audit(pairs, mask_values)
        description = {
            "name": dataset if dataset in ("sample", "heart") else Path(os.path.expanduser(dataset)).resolve().stem,
            "source": str(dataset),
            "root": str(root),
            "spacing": common_spacing(geometry),
            "geometry": geometry,
            "excluded": sorted(exclude),
            "notes": [*layout.passed_over, *layout.notes, *notes, *of_masks, *of_subsets, *of_greys, *doubts],
            "mask_values": mask_values,
            "fingerprint": _fingerprint(pairs),
            "folds": draw_folds(pairs, seed, people),
            "twins": twins,
            "audit": findings,
            "subsets": {subset: [_entry(pair) for pair in pairs if pair.subset == subset] for subset in SUBSETS},
        }
        _put_in_force(description, root, work_dir, building, fold)
        forget_earlier(work_dir, description["root"], folder)
    return description


def _take_pictures(layout, folder, patient_pattern, exclude, chosen, spacing, united, progress):
    """Unite several masks of one image below `united`; return (measured pairs, {patient: person}, geometry, notes)."""
    pairs, people, notes = pairs_of_pictures(layout, patient_pattern, exclude)
    geometry = picture_geometry(pairs, folder, spacing, exclude)
    notes += unused_sentences(layout.geometry, folder, pairs)
    pairs = measure_pairs(unite_masks(pairs, layout.masks, chosen, united, progress), progress)
    refuse_views(pairs, layout.neither)
    return pairs, people, geometry, notes + crowded_sentences(pairs)


def _fingerprint(pairs):
    """Return the SHA-256 over subsets, names and pixels (not file bytes, since PNG compressors differ)."""
    lines = [f"{pair.subset}/{pair.name} {pair.facts.image_hash} {pair.facts.mask_hash}\n" for pair in pairs]
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def _entry(pair):
    """Return the entry of a pair in a description."""
    return {"name": pair.name, "patient": pair.patient, "slice": pair.slice, "size": list(pair.facts.size)}


def _put_in_force(description, root, work_dir, building, fold):
    """Write `dataset.json`, and move the converted files to the place that it names.

    The earlier dataset stays valid until the last line.
    """
    place = find_place(work_dir, description["fingerprint"]) if building in root.parents else None
    if place:
        description["root"] = f"dataset/{place.name}"
    else:
        description["state"] = state_of(root)
    if fold is not None:
        apply_fold(description, fold)
    with whole_file(work_dir / "dataset.json") as part:
        write_json(part, description)
        if place:
            put_in_place(root, place)


def upload_file(work_dir: str | os.PathLike) -> Path:
    """Ask for a file in Colab, keep it in `uploaded/` of the work folder, and return its path.

    Raises CourseError outside Colab, and if not exactly one file is chosen.
    """
    try:
        from google.colab import files
    except ImportError as error:
        raise CourseError("Uploading works only in Colab. Here, give the path instead.") from error
    uploaded = files.upload()
    if len(uploaded) != 1:
        raise CourseError(
            f"{len(uploaded)} files were uploaded: choose only one. For a dataset, that is a zip of its folder."
        )
    [(name, content)] = uploaded.items()
    target = Path(work_dir) / "uploaded" / Path(name).name
    with whole_file(target) as temporary:
        temporary.write_bytes(content)
    return target


def _source_folder(dataset, work_dir, building, seed, sample, heart_source, progress):
    """Return the folder in which the dataset's files lie."""
    if not isinstance(dataset, (str, os.PathLike)) or not str(dataset).strip():
        raise CourseError(
            f"dataset={dataset!r} names no dataset: give 'sample', 'heart', or the path of a folder, zip or tar file."
        )
    if dataset == "sample":
        try:
            made = make_sample(building / "sample", seed=seed, progress=progress, **(sample or {}))
        except ValueError as error:
            raise CourseError(f"The sample cannot be made: {error}.") from error
        write_json(building / "sample" / "geometry.json", {**made, "axes": SAGITTAL})
        return building / "sample"
    if dataset == "heart" and heart_source is None:
        source = fetch_heart(work_dir, progress=progress)
    else:
        source = Path(os.path.expanduser(heart_source if dataset == "heart" else dataset))  # keeps ~ of unknown users
    if not source.exists():
        if re.match(r"[a-z]+:/+\w", str(dataset)):
            raise CourseError(f"{dataset} is a web address: download the file, then give its path.")
        hint = "mount Drive first" if str(source).startswith("/content/drive") else "check its spelling"
        raise CourseError(f"{source} does not exist: {hint}, or choose dataset='sample'.")
    if source.is_dir():
        return source.resolve()
    refuse_dicom([source])
    target = building / "unpacked" / source.name
    left_out = "imagesTs" if dataset == "heart" else None  # has no labels in the official archive
    with progress_bar(progress, "unpacking", unit="B", unit_scale=True) as bar:
        unpack(source, target, bar.update, lambda parts: is_data(parts) and left_out not in parts)
    return target


def _take_imported(path, work_dir, fold, has_options):
    """Take the dataset that another work folder, or this one, has imported; its files are used from there."""
    if has_options:
        raise CourseError(
            f"{path} is a dataset that has already been imported. Give exclude, foreground, allow_incomplete, spacing "
            "and patient_pattern where you import it, not here."
        )
    if not path.is_file():
        raise CourseError(f"There is no file {path}: run 01_dataset_upload in that folder first.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        description = None
    if not (isinstance(description, dict) and isinstance(description.get("root"), str) and "folds" in description):
        raise CourseError(f"{path} was not written by 01_dataset_upload: give the folder {path.parent} instead.")
    description = read_description(path.parent)  # an older version of the course may have written it
    root = dataset_root(description, path.parent)
    if not root.is_dir():
        raise CourseError(
            f"The files that {path} describes are missing ({root}): run 01_dataset_upload in that folder again."
        )
    check_unchanged(description)
    is_own = path.parent == work_dir.resolve()
    if is_own or fold is not None:  # without a new fold, another folder's dataset is taken with the fold it has
        undo_fold(description)
    if not is_own:
        description.update(root=str(path.parent / description["root"]), taken_from=str(path.parent))
    if fold is not None:
        apply_fold(description, fold)
    write_json(work_dir / "dataset.json", description)
    return description


def _places(root, pair):
    """Return where the image and the mask of a pair lie in canonical form below `root`."""
    return tuple(root / pair.subset / kind / f"{pair.name}.png" for kind in ("images", "masks"))


def _in_canonical_form(pairs, building, is_foreground, progress):
    """Convert the files to canonical form if they are not; return (their folder, the pairs there, sentences).

    The sentences report how greys were changed, and which pictures are dark or have almost no contrast.
    """
    root = pairs[0].image.parent.parent.parent
    is_plain = is_foreground is None and all(pair.facts.image_plain for pair in pairs)
    is_in_place = all((pair.image, pair.mask) == _places(root, pair) for pair in pairs)
    if is_plain and is_in_place and building not in root.parents:
        return root, pairs, faint_sentences(pairs)
    root = building / "dataset"
    windows, told = grey_windows(pairs)
    for subset in SUBSETS:
        for kind in ("images", "masks"):
            (root / subset / kind).mkdir(parents=True)

    def take(source, target):
        """Move a file that this import has made; copy a file of the user's."""
        (os.replace if building in source.parents else shutil.copyfile)(source, target)

    def bring(pair):
        """Move, copy or write the two files of a pair."""
        image_path, mask_path = _places(root, pair)
        moved = replace(pair, image=image_path, mask=mask_path)
        is_plain = pair.facts.image_plain and is_foreground is None
        image, mask = (None, None) if is_plain else read_pair(pair.image, pair.mask)[:2]
        if pair.facts.image_plain:
            take(pair.image, image_path)
        else:
            greys = to_greys(image.pixels, *windows[pair.patient]) if pair.facts.deep else image.pixels
            Image.fromarray(greys).save(image_path)
        if is_foreground is None:
            take(pair.mask, mask_path)
        else:
            Image.fromarray(is_foreground(mask.pixels) * np.uint8(255)).save(mask_path)
        return moved if is_plain else measure_pair(moved)

    pairs = parallel(bring, pairs, "converting", progress)
    return root, pairs, told + faint_sentences(pairs)
