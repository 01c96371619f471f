"""The data door: any dataset in, one description out.

`import_dataset` takes the made-up sample, the official heart data, or what a user has (a folder, an archive,
NIfTI volumes), checks every file, and leaves `dataset.json` in the work folder. Pictures that already lie as
`{train,valid,test}/{images,masks}/NAME.png` are used where they are; all others are converted into the work
folder. Until the new data are whole the old ones stay: `dataset.json` is replaced last, in one step.
"""

import hashlib
import json
import os
import random
import re
import shutil
import tempfile
import unicodedata
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from dataset_audit import (
    SUBSETS,
    Pair,
    audit,
    dataset_root,
    inspect,
    look,
    read_picture,
    reading_order,
    same_scans,
)
from dataset_sources import (
    FULL_DISK,
    HEART_SLICES,
    PICTURES,
    VOLUMES,
    fetch_heart,
    file_suffix,
    foreground_values,
    is_stray,
    parallel,
    progress_bar,
    read_label_names,
    sentence_about,
    shown,
    unpack,
    write_slices,
)
from settings import CourseError, remove_leftovers, whole_file, write_json

SHARES = {"train": 0.51, "valid": 0.25, "test": 0.24}  # of the patients: the report's proportions
PATIENT_PATTERN = r"(?P<patient>.+)_(?P<slice>\d+)"

# How users call the folders that this course calls train, valid, test and images, masks.
SUBSET_WORDS = {
    word: subset
    for subset, words in {"train": "train training", "valid": "valid val validation", "test": "test testing"}.items()
    for word in words.split()
}
KIND_WORDS = {
    word: kind
    for kind, words in {"images": "images image imgs img imagestr", "masks": "masks mask labels label labelstr"}.items()
    for word in words.split()
}
MASK_ENDING = re.compile(r"[ _.-](mask|label|seg|segmentation)$", re.IGNORECASE)

MAX_FILES = 200_000
FOLDS = 5  # of the cross-validation; fewer where there are fewer patients


# --- the door -------------------------------------------------------------------------------------------


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
    progress=True,
):
    """Check a dataset, convert it where needed, write `work_dir/dataset.json`, and return what that file holds.

    dataset: "sample" (made on the spot), "heart" (the official archive, downloaded where it is not yet in
        `work_dir`), or the path of a folder or a zip or tar archive with pictures (PNG, JPEG, TIFF, BMP) or 3-D
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
    sample: dictionary of arguments for `sample_data.make_sample`.
    fold: the part (0 to 4) of the train and valid patients that is valid, the others are train; None keeps the subsets.
    progress: show progress bars for what takes longer than a few seconds.

    The description holds `format`, `name`, `source`, `root` (see `dataset_root`), `spacing` ([row, column, slice]
    in mm, or None), `mask_values` ([background, foreground] as `Image.convert("L")` reads them), `subsets` (subset
    to list of {"name", "patient", "slice", "size": [height, width]}), `twins` (one scan under two names, with the
    Dice between its two annotations), `folds` (the patients of each), `excluded`, `notes`, `audit` (see `audit`) and
    `fingerprint` (SHA-256 over names and pixels). One import at a time may run in a work folder.
    Raises CourseError, and leaves the work folder as it was, for whatever is wrong with the dataset.
    """
    work_dir = Path(work_dir).absolute()
    if isinstance(dataset, (str, os.PathLike)) and Path(dataset).name == "dataset.json":
        if exclude or foreground or allow_incomplete or patient_pattern != PATIENT_PATTERN:
            raise CourseError(f"{dataset} is a dataset that has been imported: give exclude, foreground, "
                              "allow_incomplete and patient_pattern where it is imported, not here.")
        return _take_imported(Path(dataset).expanduser().resolve(), work_dir, fold)
    exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude or ())
    pattern = _compile_pattern(patient_pattern)
    notes = []
    with _building(work_dir) as building:
        folder, spacing = _source_folder(dataset, work_dir, building, seed, sample, heart_source, progress)
        images, masks = _find_files(folder, work_dir, notes)
        if any(file_suffix(path.name) in VOLUMES for path in [*images.values(), *masks.values()]):
            if patient_pattern not in (PATIENT_PATTERN, None):
                raise CourseError("patient_pattern is for pictures: each volume is taken as a patient of its own; "
                                  "where a patient has several, put them all into train, all into valid "
                                  "or all into test, and leave the pattern out.")
            is_heart = dataset == "heart" or _is_heart(images)
            subset_of = _choose_volumes(images, masks, is_heart, exclude, allow_incomplete, notes)
            pairs, spacing = _pairs_of_volumes(
                images, masks, subset_of, building / "slices", foreground, notes, progress
            )
            if is_heart:
                _check_heart_slices(pairs)
            else:
                notes.append("Each volume is taken as a patient of its own.")
            foreground = None
        elif dataset == "heart":
            raise CourseError(
                f"{folder} holds pictures where the volumes of the heart data are expected: "
                "give this folder as dataset."
            )
        else:
            pairs = _pairs_of_pictures(images, masks, pattern, exclude, notes)
        pairs = inspect(pairs, progress)
        is_foreground, mask_values = _settle_masks(pairs, foreground_values(foreground, {}), notes)
        if pairs[0].subset is None:
            pairs = _split(pairs, seed, notes)
        _check_subsets(pairs)
        root = _canonical_root(pairs) if is_foreground is None else None
        if root is None or building in root.parents:
            root = building / "dataset"
            pairs = _convert(pairs, root, building, is_foreground, progress)
        _check_masks(pairs, mask_values)
        pairs.sort(key=reading_order)
        fingerprint = _fingerprint(pairs)
        place = _place_for(root, work_dir, fingerprint) if building in root.parents else None
        description = {
            "format": 1,
            "name": dataset if dataset in ("sample", "heart") else Path(dataset).expanduser().resolve().stem,
            "source": str(dataset),
            "root": f"dataset/{place.name}" if place else str(root),
            "spacing": spacing,
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
        import sample_data

        with progress_bar(progress, "drawing patients") as bar:

            def show(done, total):
                bar.total = total
                bar.update(done - bar.n)

            try:
                made = sample_data.make_sample(building / "sample", seed=seed, **{"progress": show, **(sample or {})})
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


def _copies(work_dir):
    """Return the folders that imports converted into, as against what a user keeps beside them."""
    return [place for place in (work_dir / "dataset").glob("*") if re.fullmatch(r"[0-9a-f]{12}(-\d+)?", place.name)]


def _forget_earlier(work_dir, root, source):
    """Remove what earlier imports converted, except what is in use."""
    for place in _copies(work_dir):
        if place != work_dir / root and place.resolve() not in (Path(root), source, *source.parents):
            shutil.rmtree(place, ignore_errors=True)  # a file that another program holds goes the next time


# --- which file is what ---------------------------------------------------------------------------------


def _compile_pattern(patient_pattern):
    if patient_pattern is None:
        return None
    try:
        pattern = re.compile(patient_pattern)
    except (re.error, TypeError) as error:
        raise CourseError(f"patient_pattern={patient_pattern!r} is not a regular expression ({error}).") from error
    if "patient" not in pattern.groupindex:
        raise CourseError(f"patient_pattern={patient_pattern!r} has no group named patient: write (?P<patient>...).")
    return pattern


def _walk(folder, work_dir):
    """Yield the files below a folder, strays and the work folder's own copies passed over."""
    skipped = {path.resolve() for path in [*_copies(work_dir), *work_dir.glob("dataset.importing-*")]}
    skipped -= {folder.resolve(), *folder.resolve().parents}
    seen, count = set(), 0
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = Path(place).resolve()
        if real in seen or real in skipped:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_stray(name))
        for name in sorted(files):
            if not is_stray(name):
                count += 1
                if count > MAX_FILES:
                    raise CourseError(f"{folder} holds more than {MAX_FILES:,} files: give the dataset's own folder.")
                yield Path(place, name)


def _raise(error):
    raise error


def _classify(relative, far=False):
    """Return (subset or None, kind or None, name) of a picture or volume by its path inside the dataset.

    far: True looks for the subset further up than directly above and below images and masks as well.
    """
    *folders, file = relative.parts
    stem = unicodedata.normalize("NFC", file[: len(file) - len(file_suffix(file))])
    words = [folder.casefold() for folder in folders]
    kinds = [position for position, word in enumerate(words) if word in KIND_WORDS]
    if not kinds:
        subset = next((SUBSET_WORDS[word] for word in reversed(words) if word in SUBSET_WORDS), None)
        return subset, None, stem
    position = kinds[-1]
    subset = SUBSET_WORDS.get(words[position - 1]) if position else None
    rest = position + 1
    if subset is None and rest < len(words):
        subset = SUBSET_WORDS.get(words[rest])
        rest += subset is not None
    if subset is None and far:
        subset = next((SUBSET_WORDS[word] for word in reversed(words[:position]) if word in SUBSET_WORDS), None)
    return (
        subset,
        KIND_WORDS[words[position]],
        "_".join([*(unicodedata.normalize("NFC", f) for f in folders[rest:]), stem]),
    )


def _name_by_folders(found, folder):
    """Put the folders above images and masks, which name a patient, before names that are numbers.

    p1/images/000 is p1_000. Nothing changes where images and masks lie in other folders, or all in one.
    found: tuples (path, subset, kind, name).
    """
    above = {}
    for path, _, _, _ in found:
        folders = [unicodedata.normalize("NFC", name) for name in path.relative_to(folder).parts[:-1]]
        words = [name.casefold() for name in folders]
        end = max((position for position, word in enumerate(words) if word in KIND_WORDS), default=len(words))
        above[path] = [name for name, word in zip(folders[:end], words) if word not in SUBSET_WORDS]
    shared = len(os.path.commonprefix(list(above.values())))
    patient_of = {path: "_".join(names[shared:]) for path, names in above.items()}
    of_images, of_masks = (
        {patient_of[path] for path, _, kind, _ in found if kind == wanted} for wanted in ("images", "masks")
    )
    if of_images != of_masks or not all(of_images):
        return found
    return [(path, subset, kind, f"{patient_of[path]}_{name}") for path, subset, kind, name in found]


def _find_files(folder, work_dir, notes):
    """Return two dictionaries, images and masks, from (subset or None, name) to path.

    Where no folder is called images or masks, files whose name ends in _mask (or _label, _seg) are the masks.
    """
    found, other = [], []
    for path in _walk(folder, work_dir):
        if file_suffix(path.name) in PICTURES + VOLUMES:
            # Control characters, and no text at all
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in str(path)):
                raise CourseError(
                    f"The path {str(path)!r} holds letters that no system can show: rename this file or its folder."
                )
            found.append(path)
        else:
            other.append(path)
    further = [(path, *_classify(path.relative_to(folder), far=True)) for path in found]
    if {subset for _, subset, kind, _ in further if kind} == set(SUBSETS):
        found = further
    else:
        found = [(path, *_classify(path.relative_to(folder))) for path in found]
    if not found:
        held = f"only {shown(other[0])} and the like" if other else "nothing"
        raise CourseError(
            f"{folder.name} is not a dataset: it holds {held}, where pictures in images/ and masks/ were "
            f"expected ({', '.join(PICTURES + VOLUMES)})."
        )
    if any(kind for _, _, kind, _ in found):
        passed = [path for path, _, kind, _ in found if kind is None]
        if passed:
            notes.append(sentence_about(passed, "was passed over", "it is neither in an images nor in a masks folder."))
    else:
        found = [
            (path, subset, "masks" if MASK_ENDING.search(name) else "images", name) for path, subset, _, name in found
        ]
    if all(MASK_ENDING.sub("", name).isdecimal() for _, _, kind, name in found if kind):
        found = _name_by_folders(found, folder)
    images, masks = {}, {}
    for target, wanted in ((images, "images"), (masks, "masks")):
        for path, subset, kind, name in found:
            if kind == wanted:
                if wanted == "masks" and (subset, name) not in images:
                    bare = MASK_ENDING.sub("", name)
                    name = bare if (subset, bare) in images else name
                if (subset, name) in target:
                    raise CourseError(
                        f"{shown(target[subset, name])} and {shown(path)} are {wanted} of the same name: "
                        "give each a name of its own, or, if they are the same, keep one."
                    )
                target[subset, name] = path
    if not images and not masks:
        raise CourseError(
            f"{folder.name} is not a dataset: {shown(found[0][0])} and the like are neither images nor masks."
        )
    return images, masks


def _check_files(images, masks, exclude, names_of):
    """Drop excluded files and check that what remains is whole; `names_of(key)` is what may be excluded."""
    known = {name for key in [*images, *masks] for name in names_of(key)}
    for entry in exclude:
        if entry not in known:
            raise CourseError(
                f"exclude names {entry!r}, which is neither a patient nor a file of this dataset: "
                f"it has {', '.join(sorted(known)[:5])} and so on."
            )
    for files in (images, masks):
        for key in [key for key in files if names_of(key) & set(exclude)]:
            del files[key]
    if not images and not masks:
        raise CourseError("exclude leaves nothing of the dataset: name fewer patients or files.")
    if not masks:
        raise CourseError(
            f"{shown(next(iter(images.values())))} has no mask, and no other image has one: put the masks "
            "into a folder masks/ beside images/, under the same names."
        )
    lonely = [images[key] for key in images if key not in masks]
    if lonely:
        raise CourseError(sentence_about(lonely, "has no mask", "add a mask of the same name, or exclude the image."))
    lonely = [masks[key] for key in masks if key not in images]
    if lonely:
        raise CourseError(
            sentence_about(lonely, "is a mask without an image", "add the image of the same name, or exclude the mask.")
        )
    if len({subset is None for subset, _ in images}) == 2:
        outside = [path for (subset, _), path in images.items() if subset is None]
        raise CourseError(
            sentence_about(outside, "lies outside train, valid and test", "move it into one of them, or away.")
        )


def _pairs_of_pictures(images, masks, pattern, exclude, notes):
    parsed = {}
    repeated = Counter(name for _, name in images)
    for subset, name in {**images, **masks}:
        match = pattern.fullmatch(name) if pattern else None
        if match and match["patient"]:
            digits = match["slice"] if "slice" in pattern.groupindex else None
            parsed[subset, name] = match["patient"], int(digits) if digits and digits.isdecimal() else None, True
        else:
            parsed[subset, name] = f"{subset}/{name}" if repeated[name] > 1 else name, None, False
    _check_files(images, masks, exclude, lambda key: {key[1], parsed[key][0]})
    own = [images[key] for key in images if not parsed[key][2]]
    if own:
        notes.append(
            sentence_about(own, "does not name its patient", "each such file is taken as a patient of its own.")
        )
    return [
        Pair(subset, name, *parsed[subset, name][:2], images[subset, name], masks[subset, name])
        for subset, name in images
    ]


def _choose_volumes(images, masks, is_heart, exclude, allow_incomplete, notes):
    """Return {(subset or None, name): subset or None} of the volumes to read, the heart data in the report's split."""
    for key in [key for key in images if key not in masks and key[1].endswith("_0000")]:  # as nnU-Net names images
        images[key[0], key[1].removesuffix("_0000")] = images.pop(key)
    _check_files(images, masks, exclude, lambda key: {key[1]})
    pictures = [path for path in [*images.values(), *masks.values()] if file_suffix(path.name) not in VOLUMES]
    if pictures:
        raise CourseError(sentence_about(pictures, "is a picture among NIfTI volumes", "give a folder with one kind."))
    official = {patient: subset for subset, patients in HEART_SLICES.items() for patient in patients}
    if not is_heart:
        return {key: key[0] for key in images}
    present = {name: (subset, name) for subset, name in images}
    missing = [name for name in official if name not in present and name not in exclude]
    strange = sorted(set(present) - set(official))
    if strange:
        raise CourseError(
            f"{', '.join(strange)} is not among the patients of the heart data: take its files out of imagesTr and "
            "labelsTr, or give the folder as dataset."
        )
    if missing and not allow_incomplete:
        raise CourseError(
            f"The heart data are incomplete, {len(missing)} of {len(official)} patients are missing "
            f"({', '.join(missing)}): get the whole archive, or give allow_incomplete=True."
        )
    empty = [subset for subset in SUBSETS if not set(HEART_SLICES[subset]) & set(present)]
    if empty:
        raise CourseError(
            f"With the patients that are there ({', '.join(sorted(present))}) {' and '.join(empty)} would be empty, "
            f"since the report has them elsewhere: add at least one of {', '.join(HEART_SLICES[empty[0]])}."
        )
    if missing:
        notes.append(f"The heart data are incomplete, as allowed: {', '.join(missing)} are missing.")
    return {present[name]: official[name] for name in official if name in present}


def _task_description(images):
    """Return the label names and the name of the decathlon task whose images these are."""
    return read_label_names(next(iter(images.values())).parent.parent) if images else ({}, "")


def _is_heart(images):
    """Tell whether these are the official heart volumes, by the name of the task and of the patients."""
    patients = {patient for subset in HEART_SLICES.values() for patient in subset}
    return _task_description(images)[1] == "LeftAtrium" and {name for _, name in images} <= patients


def _pairs_of_volumes(images, masks, subset_of, folder, foreground, notes, progress):
    """Write the slices of the volumes in `subset_of` below `folder`; return their pairs and the spacing."""
    names, _ = _task_description(images)
    chosen = foreground_values(foreground, names)

    def write(key):
        return write_slices(images[key], masks[key], key[1], folder / (key[0] or "all"), chosen)

    written = dict(zip(subset_of, parallel(write, list(subset_of), "slices of volumes", progress)))
    present = sorted(set().union(*(volume["labels"] for volume in written.values())) - {0})
    held = ", ".join(f"{number:g}" for number in present)
    if chosen is None and len(present) > 1:
        known = ", ".join(f"{number} {name!r}" for name, number in names.items()) or held
        raise CourseError(
            f"The labels hold more than one structure ({known}): choose with foreground=..., by name or number."
        )
    if chosen is not None and not chosen & set(present):
        raise CourseError(f"foreground={foreground!r} is in no label volume: they hold {held or 'nothing'}.")
    dark = [images[key] for key, volume in written.items() if volume["low"] < 0]
    if dark:
        notes.append(sentence_about(dark, "holds negative values", "the smallest value of the volume became black."))
    first_with = {}
    for key, volume in written.items():
        if all(volume["axes"]):
            first_with.setdefault(volume["axes"], images[key].name)
    if len(first_with) > 1:
        (some, one), (others, other) = list(first_with.items())[:2]
        raise CourseError(f"The axes of {one} run to {', '.join(some)}, those of {other} to {', '.join(others)}: "
                          "save all volumes in one orientation.")
    spacings = np.array([volume["spacing"] for volume in written.values()])
    spacing = [round(float(step), 4) for step in spacings[0]]
    if np.ptp(spacings, axis=0).max() > 1e-3:
        spacing = None
        notes.append("The spacing differs from volume to volume: distances are in pixels.")
    pairs = []
    for (place, name), volume in written.items():
        for number in range(volume["slices"]):
            file = f"{name}_{number:03d}"
            files = [folder / (place or "all") / kind / f"{file}.png" for kind in ("images", "masks")]
            pairs.append(Pair(subset_of[place, name], file, name, number, *files))
    return pairs, spacing


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


def _scan_groups(pairs):
    """Return the patients that belong together: from the first of them to all whose scans are identical."""
    head_of = {pair.patient: pair.patient for pair in sorted(pairs, key=reading_order)}

    def head(patient):
        while head_of[patient] != patient:
            patient = head_of[patient]
        return patient

    for one, other in same_scans(pairs):
        head_of[head(other)] = head(one)
    members = defaultdict(list)
    for patient in head_of:
        members[head(patient)].append(patient)
    return members


def _draw_folds(pairs, seed):
    """Deal the train and valid patients out into at most five folds; identical scans stay together."""
    groups = list(_scan_groups([pair for pair in pairs if pair.subset != "test"]).values())
    random.Random(seed).shuffle(groups)
    folds = [[] for _ in range(min(FOLDS, len(groups)))]
    for patients in sorted(groups, key=len, reverse=True):
        min(folds, key=len).extend(patients)
    return [sorted(patients) for patients in folds]


def _apply_fold(description, fold):
    """Make one fold the valid patients of a description, and all others of train and valid its train patients."""
    folds = description["folds"]
    if type(fold) is not int or not 0 <= fold < len(folds) or len(folds) < 2:
        raise CourseError(
            f"fold is {fold!r}: the {sum(map(len, folds))} train and valid patients make {len(folds)} folds, "
            f"choose a whole number from 0 to {len(folds) - 1}, or None."
        )
    subset_of = {patient: "valid" if patient in folds[fold] else "train" for patients in folds for patient in patients}
    pairs = [(subset, pair) for subset in ("train", "valid") for pair in description["subsets"][subset]]
    [(name, count)] = Counter(pair["name"] for _, pair in pairs).most_common(1)
    if count > 1:
        raise CourseError(
            f"Train and valid both hold a picture {name}: folds mix them, so give each file a name of its own."
        )
    for subset in ("train", "valid"):
        description["subsets"][subset] = [pair for _, pair in pairs if subset_of[pair["patient"]] == subset]
    stored_in = description.get("stored_in", {})
    description["stored_in"] = {pair["name"]: stored_in.get(pair["name"], subset) for subset, pair in pairs}
    for twin in description["twins"]:
        twin["patients"] = [[subset_of.get(patient, "test"), patient] for _, patient in twin["patients"]]
    description["notes"].append(
        f"Fold {fold} of {len(folds)}: {', '.join(folds[fold])} are valid, the other patients of train and valid are "
        "train; the audit is of the subsets as they came."
    )
    description["fold"] = fold
    described = f"{description['fingerprint']} {sorted(subset_of.items())}"
    description["fingerprint"] = hashlib.sha256(described.encode()).hexdigest()


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


def _split(pairs, seed, notes):
    """Give each patient a subset, in the report's proportions; identical scans stay together."""
    members = _scan_groups(pairs)
    sizes = {head: len(patients) for head, patients in members.items()}
    groups = list(sizes)
    if len(groups) < 3:
        raise CourseError(
            f"{len(groups)} {'patient is' if len(groups) == 1 else 'patients are'} too few to split into train, "
            f"valid and test ({', '.join(groups)}; one scan under two names counts once): three are needed; "
            "if file names hold no patient, give patient_pattern=None."
        )
    random.Random(seed).shuffle(groups)
    subset_of = {}
    for subset, kept in (("test", 2), ("valid", 1)):
        wanted = max(1, round(SHARES[subset] * sum(sizes.values())))
        while wanted > 0 and len(groups) > kept:
            wanted -= sizes[groups[-1]]
            subset_of[groups.pop()] = subset
    subset_of.update(dict.fromkeys(groups, "train"))
    subset_of = {patient: subset_of[head] for head, patients in members.items() for patient in patients}
    counts = Counter(subset_of.values())
    notes.append(
        "The dataset has no subsets: its patients were split by chance (seed "
        f"{seed}) into {', '.join(f'{counts[subset]} {subset}' for subset in SUBSETS)}."
    )
    return [replace(pair, subset=subset_of[pair.patient]) for pair in pairs]


# --- pixels ---------------------------------------------------------------------------------------------


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
            f"All masks are empty: {shown(pairs[0].mask)} and the others hold the value {listed} alone; "
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
            f"{shown(example.mask)} and other masks hold {len(values)} values ({listed}) where two are expected: "
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


def _convert(pairs, root, building, is_foreground, progress):
    """Bring all files below `root` in canonical form; return the pairs as they are there."""
    brightest = defaultdict(float)
    for pair in pairs:
        brightest[pair.patient] = max(brightest[pair.patient], pair.facts.high)
    for subset in SUBSETS:
        for kind in ("images", "masks"):
            (root / subset / kind).mkdir(parents=True)

    def bring(pair):
        targets = [root / pair.subset / kind / f"{pair.name}.png" for kind in ("images", "masks")]
        moved = replace(pair, image=targets[0], mask=targets[1])
        if pair.facts.image_plain:
            _bring_file(pair.image, moved.image, building)
        else:
            pixels = read_picture(pair.image)[0]
            if pixels.dtype != np.uint8:
                pixels = np.rint(pixels * (255 / (brightest[pair.patient] or 1))).astype(np.uint8)
            Image.fromarray(pixels).save(moved.image)
        if is_foreground is None:
            _bring_file(pair.mask, moved.mask, building)
        else:
            Image.fromarray(np.where(is_foreground(read_picture(pair.mask)[0]), np.uint8(255), np.uint8(0))).save(
                moved.mask
            )
        return moved if pair.facts.image_plain and is_foreground is None else look(moved)

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
