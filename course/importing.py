"""The data door: any dataset in, one description out.

`import_dataset` takes the made-up sample, the official heart data, or what a user has (a folder, an archive,
NIfTI volumes), checks every file, and leaves `dataset.json` in the work folder. Pictures that already lie as
`{train,valid,test}/{images,masks}/NAME.png` are used where they are; all others are converted into the work
folder. Until the new data are whole the old ones stay: `dataset.json` is replaced last, in one step.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from course.audit import audit
from course.folds import _apply_fold, _draw_folds, _split
from course.geometry import SAGITTAL, common_spacing, geometry_file, picture_geometry, uneven_sentences
from course.greys import dark_sentences, grey_windows, to_greys
from course.layout import (
    PATIENT_PATTERN,
    _choose_volumes,
    _compile_pattern,
    _copies,
    _find_files,
    _is_heart,
    _pairs_of_pictures,
    _task_description,
)
from course.nifti import foreground_values
from course.notes import told_sentences
from course.pictures import (
    SUBSETS,
    VOLUMES,
    dataset_root,
    file_suffix,
    measure_pair,
    measure_pairs,
    read_pair,
    reading_order,
)
from course.sources import HEART_SLICES, fetch_heart, unpack
from course.volumes import pairs_of_volumes
from course.workspace import (
    FULL_DISK,
    CourseError,
    end_of_path,
    parallel,
    progress_bar,
    remove_leftovers,
    sentence_about,
    whole_file,
    write_json,
)


def import_dataset(
    dataset,
    work_dir,
    *,
    seed=0,
    patient_pattern=PATIENT_PATTERN,
    exclude=(),
    foreground=None,
    allow_incomplete=False,
    heart_source=None,
    sample=None,
    fold=None,
    spacing=None,
    progress=True,
):
    """Check a dataset, convert it where needed, write `work_dir/dataset.json`, and return what that file holds.

    dataset: "sample" (made on the spot), "heart" (the official archive, downloaded where it is not yet in
        `work_dir`), or the path of a folder or a zip or tar archive with pictures (PNG, JPEG, TIFF, BMP, GIF) or 3-D
        NIfTI volumes and their masks, in subsets or not. The path of another work folder's `dataset.json` takes
        the dataset as it was imported there.
    seed: of the sample, and of the split by patient where the dataset has no subsets.
    patient_pattern: regular expression with the groups `patient` and, if there is one, `slice`, that a whole
        file name (without suffix) must match; None when each file is a patient of its own, as each volume is.
        Where files have numbers for names, the folders above them name the patients: p1/images/000.png is p1_000.
    exclude: names of patients or files to leave out.
    foreground: label or labels, by number or (NIfTI) by name, where masks hold more than two values.
    allow_incomplete: take the heart data even if patients are missing.
    heart_source: for "heart", the path of `Task02_Heart.tar` or of the unpacked folder; None: downloaded.
    sample: dictionary of arguments for `course.sample.make_sample`.
    fold: the part (0 to 4) of the train and valid patients that is valid, the others are train; None keeps the subsets.
    spacing: of pictures, [row, column, slice] in mm; None: as `geometry.json` beside the subsets says, if there is one.
    progress: show progress bars for what takes longer than a few seconds.

    The description holds `format`, `name`, `source`, `root` (see `dataset_root`), `spacing` ([row, column, slice]
    in mm, or None where it is unknown or differs), `geometry` (for each patient {"spacing", "axes"}, see
    `course.geometry.geometry_of`), `mask_values` ([background, foreground] as `Image.convert("L")` reads them),
    `subsets` (subset to list of {"name", "patient", "slice", "size": [height, width]}), `twins` (one scan under two
    names, with the Dice between its two annotations), `folds` (the patients of each), `excluded`, `notes`, `audit`
    (see `audit`) and `fingerprint` (SHA-256 over names and pixels). One import at a time may run in a work folder.
    Raises CourseError, and leaves the work folder as it was, for whatever is wrong with the dataset.
    """
    work_dir = Path(work_dir).absolute()
    if isinstance(dataset, (str, os.PathLike)) and Path(dataset).name == "dataset.json":
        if exclude or foreground or allow_incomplete or spacing or patient_pattern != PATIENT_PATTERN:
            raise CourseError(
                f"{dataset} is a dataset that has been imported: give exclude, foreground, "
                "allow_incomplete, spacing and patient_pattern where it is imported, not here."
            )
        return _take_imported(Path(dataset).expanduser().resolve(), work_dir, fold)
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())
    pattern = _compile_pattern(patient_pattern)
    if spacing is not None and dataset == "sample":
        raise CourseError("spacing is for pictures of your own: the sample brings its own; leave it out.")
    notes = []
    with _building(work_dir) as building:
        folder, made_spacing = _source_folder(dataset, work_dir, building, seed, sample, heart_source, progress)
        images, masks = _find_files(folder, work_dir, notes)
        files = [*images.values(), *masks.values()]
        is_volumes = any(file_suffix(path.name) in VOLUMES for path in files)
        if spacing is not None and is_volumes:
            raise CourseError("spacing is for pictures: volumes bring their own; leave it out.")
        if is_volumes:
            is_heart = dataset == "heart" or _is_heart(images)
            subset_of = _choose_volumes(images, masks, is_heart, exclude, allow_incomplete, notes)
            names, _ = _task_description(images)
            pairs, geometry = pairs_of_volumes(
                images, masks, subset_of, building / "slices", foreground, names, pattern, notes, progress
            )
            if is_heart:
                _check_heart_slices(pairs)
                geometry = {patient: {**entry, "axes": list(SAGITTAL)} for patient, entry in geometry.items()}
            elif len(pairs) > len(subset_of):
                notes.append("Each volume is taken as a patient of its own.")
            if geometry_file(files, folder):
                notes.append("geometry.json was passed over: volumes hold their own spacing and axes.")
            foreground = None
        elif dataset == "heart":
            raise CourseError(
                f"{folder} holds pictures where the volumes of the heart data are expected: "
                "give this folder as dataset."
            )
        else:
            pairs = _pairs_of_pictures(images, masks, pattern, exclude, notes)
            axes = SAGITTAL if made_spacing else None
            geometry = picture_geometry(pairs, folder, made_spacing or spacing, axes)
        notes += uneven_sentences(geometry)
        pairs = measure_pairs(pairs, progress)
        notes += told_sentences({pair.image: pair.facts.told for pair in pairs})
        is_foreground, mask_values = _settle_masks(pairs, foreground_values(foreground, {}), notes)
        if pairs[0].subset is None:
            pairs = _split(pairs, seed, notes)
        _check_subsets(pairs)
        root = _canonical_root(pairs) if is_foreground is None else None
        if root is None or building in root.parents:
            root = building / "dataset"
            pairs = _convert(pairs, root, building, is_foreground, notes, progress)
        notes += dark_sentences(pairs)
        _check_masks(pairs, mask_values)
        pairs.sort(key=reading_order)
        fingerprint = _fingerprint(pairs)
        place = _place_for(root, work_dir, fingerprint) if building in root.parents else None
        description = {
            "format": 1,
            "name": dataset if dataset in ("sample", "heart") else Path(dataset).expanduser().resolve().stem,
            "source": str(dataset),
            "root": f"dataset/{place.name}" if place else str(root),
            "spacing": common_spacing(geometry),
            "geometry": geometry,
            "mask_values": mask_values,
            "excluded": sorted(exclude),
            "notes": notes,
            "fingerprint": fingerprint,
            "folds": _draw_folds(pairs, seed),
            **_describe(pairs, mask_values),
        }
        if fold is not None:
            _apply_fold(description, fold)
        # All is written; what follows only renames, and until the last line the earlier dataset is in force.
        write_json(building / "dataset.json", description)
        if place and not place.exists():
            place.parent.mkdir(exist_ok=True)
            os.replace(root, place)
        os.replace(building / "dataset.json", work_dir / "dataset.json")
        _forget_earlier(work_dir, description["root"], folder)
    return description


def _describe(pairs, mask_values):
    """Return the part of a description that tells of the pairs: `subsets`, `twins` and `audit`."""
    subsets = {subset: [] for subset in SUBSETS}
    for pair in pairs:
        entry = {"name": pair.name, "patient": pair.patient, "slice": pair.slice, "size": list(pair.facts.size)}
        subsets[pair.subset].append(entry)
    twins, findings = audit(pairs, mask_values)
    return {"twins": twins, "audit": findings, "subsets": subsets}


def upload_file(work_dir):
    """Ask for a file in Colab, keep it in `work_dir`, and return its path.

    Raises CourseError outside Colab, and when anything but one file is chosen.
    """
    try:
        from google.colab import files
    except ImportError as error:
        raise CourseError("Uploading works in Colab only: here, give the path instead.") from error
    uploaded = files.upload()
    if len(uploaded) != 1:
        raise CourseError(f"Choose one file (a dataset is one zip of its folder); {len(uploaded)} were uploaded.")
    [(name, content)] = uploaded.items()
    target = Path(work_dir) / Path(name).name
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as temporary:
        temporary.write_bytes(content)
    return target


@contextmanager
def _building(work_dir):
    """Give a folder to build in, inside `work_dir`; it is gone afterwards, whatever happens.

    What killed imports left goes first, see `remove_leftovers`. Errors of the disk become one sentence.
    """
    try:
        is_new = not work_dir.exists()
        work_dir.mkdir(parents=True, exist_ok=True)
        remove_leftovers(work_dir.glob("dataset.importing-*"))
        building = Path(tempfile.mkdtemp(prefix="dataset.importing-", dir=work_dir))
        try:
            yield building
        finally:
            shutil.rmtree(building, ignore_errors=True)  # what another program holds goes the next time
            if is_new and not any(work_dir.iterdir()):
                work_dir.rmdir()
    except OSError as error:
        if error.errno in FULL_DISK:
            raise CourseError(
                f"The disk of {work_dir} is full; earlier data there are untouched: "
                "free some space, or choose another work folder."
            ) from error
        place = f" ({error.filename})" if error.filename else ""
        raise CourseError(f"A file cannot be read or written: {error.strerror or error}{place}.") from error


def _source_folder(dataset, work_dir, building, seed, sample, heart_source, progress):
    """Return the folder in which the dataset's files lie, and the spacing where the source gives it."""
    if not isinstance(dataset, (str, os.PathLike)) or not str(dataset).strip():
        raise CourseError(
            f"dataset={dataset!r} is nothing to read: give 'sample', 'heart', or a folder, zip or tar file."
        )
    if dataset == "sample":
        from course.sample import make_sample

        with progress_bar(progress, "drawing patients") as bar:

            def show(done, total):
                bar.total = total
                bar.update(done - bar.n)

            try:
                made = make_sample(building / "sample", seed=seed, **{"progress": show, **(sample or {})})
            except ValueError as error:
                raise CourseError(f"The sample cannot be made: {error}.") from error
        return building / "sample", made["spacing"]
    if dataset != "heart":
        source = Path(dataset).expanduser()
    else:
        source = fetch_heart(work_dir, progress=progress) if heart_source is None else Path(heart_source).expanduser()
    if re.match(r"[a-z]+:/+\w", str(dataset)) and not source.exists():
        raise CourseError(f"{dataset} is an address: download it, then give the path of the file.")
    if not source.exists():
        hint = "mount Drive first" if str(source).startswith("/content/drive") else "check its spelling"
        raise CourseError(f"{source} does not exist: {hint}, or choose dataset='sample'.")
    if source.is_dir():
        return source.resolve(), None
    with progress_bar(progress, "unpacking", unit="B", unit_scale=True) as bar:
        unpack(source, building / "unpacked" / source.name, bar.update)
    return building / "unpacked" / source.name, None


def _place_for(root, work_dir, fingerprint):
    """Return the folder that new data go to, named by their fingerprint, so that earlier data keep theirs.

    It exists already only if it holds the very same files.
    """
    for name in (fingerprint[:12], *(f"{fingerprint[:12]}-{count}" for count in range(2, 100))):
        place = work_dir / "dataset" / name
        if not place.exists() or _same_files(root, place):
            return place
    raise CourseError(f"{work_dir / 'dataset'} is full of altered copies of one dataset: remove that folder.")


def _same_files(one, other):
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    return files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file()) and all(
        (one / file).read_bytes() == (other / file).read_bytes() for file in files
    )


def _forget_earlier(work_dir, root, source):
    """Remove what earlier imports converted, except what is in use."""
    for place in _copies(work_dir):
        if place != work_dir / root and place.resolve() not in (Path(root), source, *source.parents):
            shutil.rmtree(place, ignore_errors=True)  # a file that another program holds goes the next time


def _check_heart_slices(pairs):
    """Hold the heart data against the report's number of slices, patient by patient."""
    counts = Counter(pair.patient for pair in pairs)
    for patients in HEART_SLICES.values():
        for patient, slices in patients.items():
            if patient in counts and counts[patient] != slices:
                raise CourseError(
                    f"{patient} has {counts[patient]} slices where the report has {slices}: the heart data are not "
                    "whole; get them anew, or exclude this patient."
                )


def _check_subsets(pairs):
    for subset in SUBSETS:
        if all(pair.subset != subset for pair in pairs):
            raise CourseError(
                f"The subset {subset} holds no image: fill {subset}/images and {subset}/masks, or put all files into "
                "one images/ and one masks/ folder without subsets, to have them split by patient."
            )
    places = {}
    for pair in pairs:
        first = places.setdefault(pair.patient, pair)
        if first.subset != pair.subset:
            raise CourseError(
                f"Patient {pair.patient!r} is in two subsets ({first.subset}/{first.name} and "
                f"{pair.subset}/{pair.name}), so the test would know its answers: keep a patient in one subset; "
                "if these names hold no patient, give patient_pattern=None or a pattern of your own."
            )


def _check_masks(pairs, mask_values):
    for subset in SUBSETS:
        of_subset = [pair for pair in pairs if pair.subset == subset]
        if not any(pair.facts.foreground_pixels(mask_values) for pair in of_subset):
            raise CourseError(
                f"All masks of {subset} are empty, {of_subset[0].name} and the others, so nothing can be learned or "
                "measured there: put a patient in it whose masks hold the structure, or, where chance has drawn the "
                "subsets, choose another seed."
            )


def _take_imported(path, work_dir, fold):
    """Take the dataset that another work folder has imported: its files are used from there."""
    if not path.exists():
        raise CourseError(f"There is no {path}: run 01_dataset_upload in that folder first.")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        description = None
    if not isinstance(description, dict) or not {"root", "folds"} <= set(description):
        raise CourseError(f"{path} was not written by 01_dataset_upload: give the folder {path.parent} as the dataset.")
    root = dataset_root(description, path.parent)
    if not root.is_dir():
        raise CourseError(f"The files of {path} are gone ({root}): run 01_dataset_upload in that folder again.")
    description.update(root=str(root), taken_from=str(path.parent))
    if fold is not None:
        _apply_fold(description, fold)
    work_dir.mkdir(parents=True, exist_ok=True)
    write_json(work_dir / "dataset.json", description)
    return description


def _settle_masks(pairs, chosen, notes):
    """Decide what is foreground: return (None or a function from pixels to bool, [background, foreground] value)."""
    counts = Counter()
    for pair in pairs:
        counts.update(pair.facts.mask_values)
    values = sorted(counts)
    listed = ", ".join(f"{value:g}" for value in values[:6]) + (" ..." if len(values) > 6 else "")
    if chosen is not None:
        if not chosen <= set(values) or chosen == set(values):
            raise CourseError(
                f"foreground={sorted(chosen)} does not divide the masks' values in two: they hold {listed}."
            )
        if chosen != {values[-1]} or len(values) > 2:
            return (lambda pixels: np.isin(pixels, list(chosen))), [0, 255]
    if len(values) == 1:
        raise CourseError(
            f"All masks are empty: {end_of_path(pairs[0].mask)} and the others hold the value {listed} alone; "
            "give masks in which the structure is drawn."
        )
    low, high = values[0], values[-1]
    if len(values) == 2:
        if all(pair.facts.mask_plain for pair in pairs):
            return None, values
        return (lambda pixels: pixels == high), [0, 255]
    between = sum(counts[value] for value in values if low + (high - low) / 4 <= value <= high - (high - low) / 4)
    above = sum(counts[value] for value in values if value > high - (high - low) / 4)
    few = len(values) <= 16 and not any(pair.facts.lossy for pair in pairs)  # labels, not blur
    if few or between > above / 2:
        example = max(pairs, key=lambda pair: len(pair.facts.mask_values))
        raise CourseError(
            f"{end_of_path(example.mask)} and other masks hold {len(values)} values ({listed}) where two are expected: "
            "choose which are the structure with foreground=[...]."
        )
    threshold = (low + high) / 2
    blurred = [pair.mask for pair in pairs if len(pair.facts.mask_values) > 2]
    notes.append(
        sentence_about(
            blurred,
            "is blurred",
            f"masks are not two-valued, their values above {threshold:g} were taken as foreground.",
        )
    )
    return (lambda pixels: pixels > threshold), [0, 255]


def _canonical_root(pairs):
    """Return the folder below which all files lie as the description names them, or None."""
    if not all(pair.facts.image_plain and pair.facts.mask_plain for pair in pairs):
        return None
    root = pairs[0].image.parent.parent.parent
    for pair in pairs:
        if (pair.image, pair.mask) != tuple(
            root / pair.subset / kind / f"{pair.name}.png" for kind in ("images", "masks")
        ):
            return None
    return root


def _convert(pairs, root, building, is_foreground, notes, progress):
    """Bring all files below `root` in canonical form; return the pairs as they are there."""
    windows, sentences = grey_windows(pairs)
    notes += sentences
    for subset in SUBSETS:
        for kind in ("images", "masks"):
            (root / subset / kind).mkdir(parents=True)

    def as_it_is(pair):
        return pair.facts.image_plain and is_foreground is None

    def bring(pair):
        targets = [root / pair.subset / kind / f"{pair.name}.png" for kind in ("images", "masks")]
        moved = replace(pair, image=targets[0], mask=targets[1])
        image, mask = (None, None) if as_it_is(pair) else read_pair(pair.image, pair.mask)[:2]
        if pair.facts.image_plain:
            _bring_file(pair.image, moved.image, building)
        else:
            greys = to_greys(image.pixels, *windows[pair.patient]) if pair.facts.deep else image.pixels
            Image.fromarray(greys).save(moved.image)
        if is_foreground is None:
            _bring_file(pair.mask, moved.mask, building)
        else:
            Image.fromarray(np.where(is_foreground(mask.pixels), np.uint8(255), np.uint8(0))).save(moved.mask)
        return moved if as_it_is(pair) else measure_pair(moved)

    return parallel(bring, pairs, "converting", progress)


def _bring_file(source, target, building):
    if building in source.parents:
        os.replace(source, target)
    else:
        shutil.copyfile(source, target)


def _fingerprint(pairs):
    """Return the SHA-256 over subsets, names and pixels (not bytes: PNG compressors differ)."""
    lines = sorted(f"{pair.subset}/{pair.name} {pair.facts.image_hash} {pair.facts.mask_hash}\n" for pair in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
