"""Which of a dataset's files are images, which are masks, and whose they are."""

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

from course.nifti import read_label_names
from course.pictures import PICTURES, SUBSETS, VOLUMES, Pair, file_suffix, is_stray, refuse_dicom
from course.sources import HEART_SLICES
from course.workspace import CourseError, end_of_path, sentence_about

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


def _copies(work_dir):
    """Return the folders that imports converted into, as against what a user keeps beside them."""
    return [place for place in (work_dir / "dataset").glob("*") if re.fullmatch(r"[0-9a-f]{12}(-\d+)?", place.name)]


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
        refuse_dicom(other)
        held = f"only {end_of_path(other[0])} and the like" if other else "nothing"
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
                        f"{end_of_path(target[subset, name])} and {end_of_path(path)} are {wanted} of the same name: "
                        "give each a name of its own, or, if they are the same, keep one."
                    )
                target[subset, name] = path
    if len(images) != len(masks):
        refuse_dicom(other)
    if not images and not masks:
        raise CourseError(
            f"{folder.name} is not a dataset: {end_of_path(found[0][0])} and the like are neither images nor masks."
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
            f"{end_of_path(next(iter(images.values())))} has no mask, and no other image has one: put the masks "
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
