"""Which patient each image of a dataset belongs to, and whether each image has its mask."""

import re
import unicodedata
from collections import Counter

from course.layout import SUBSET_WORDS, words_of
from course.matching import IMAGE_END, Layout
from course.notes import refuse, sentences_about
from course.people import look_alike, people_of
from course.pictures import PICTURES, SUBSETS, VOLUMES, Pair, file_suffix
from course.sources import HEART_SLICES
from course.workspace import CourseError, end_of_path

HEART_SUBSETS = {patient: subset for subset, patients in HEART_SLICES.items() for patient in patients}
PATIENT_PATTERN = r"(?P<patient>.+)_(?P<slice>\d+)"
KINDS = {
    *("class", "grade", "stage", "type", "group", "category", "birads", "site", "center", "centre", "hospital"),
    *("visit", "session", "week", "month", "scanner", "batch", "fold", "set", "dataset", "part"),
}
PATIENT_LAST = re.compile(  # slice_003_patient_1 is of patient_1; any name with a number may follow "slice"
    r"((?P<word>(?P<is_slice>slice)|image|img|im|frame|z)[ _.-]?)?(?P<slice>\d+)[ _.-]"
    r"(?P<patient>(?(is_slice)[^\W\d_].*\d|(patient|pat|subject|subj|sub|case|(?(word)p|patient))[ _-]?\d+))",
    re.IGNORECASE,
)
PATIENT_FIRST = re.compile(  # p1_slice3 is of p1, as p1_3 is, and anna_slice_3 of anna
    r"(?P<patient>.*\d.*?|.+(?=_(slice|image|img|im|z)_\d+$))(_|[ _.-](slice|image|img|im|z)[ _.]?)(?P<slice>\d+)",
    re.IGNORECASE,
)


def _compile_pattern(patient_pattern):
    """Return a compiled regular expression with the group `patient`, or None for None."""
    if patient_pattern is None:
        return None
    try:
        pattern = re.compile(unicodedata.normalize("NFC", patient_pattern))
    except (re.error, TypeError) as error:
        raise CourseError(
            f"patient_pattern={patient_pattern!r} is not a regular expression ({error}): correct it."
        ) from error
    if "patient" not in pattern.groupindex:
        raise CourseError(f"patient_pattern={patient_pattern!r} has no group named patient: write (?P<patient>...).")
    return pattern


def excluded_names(exclude) -> tuple[str, ...]:
    """Return the names to exclude as a tuple, without suffix, in Unicode's NFC form.

    Raises CourseError for anything but a string or several strings.
    """
    names = [exclude] if isinstance(exclude, str) else exclude or ()
    if not isinstance(names, (list, tuple, set)) or not all(isinstance(name, str) for name in names):
        raise CourseError(f"exclude={exclude!r}: give the name of a patient or file, or a list of names.")
    names = [name[: -len(file_suffix(name))] if file_suffix(name) in PICTURES + VOLUMES else name for name in names]
    return tuple(unicodedata.normalize("NFC", name) for name in names)


def _check_files(layout: Layout, exclude, names_of):
    """Drop excluded files and check that the rest is complete; `names_of(key)` are the names that can be excluded."""
    images, masks = layout.images, layout.masks
    known = {name for key in [*images, *masks] for name in names_of(key)}
    for entry in exclude:
        if entry not in known:
            raise CourseError(
                f"exclude names {entry!r}, which is neither a patient nor a file of this dataset: "
                f"its names are {', '.join(end_of_path(name) for name in sorted(known)[:3])} and so on."
            )
    before = {subset for subset, _ in [*images, *masks]}
    for files in (images, masks):
        for key in [key for key in files if names_of(key) & set(exclude)]:
            del files[key]
    left = {subset for subset, _ in [*images, *masks]}
    emptied = sorted(before - left - {None}) if left else ["the dataset"]
    if emptied:
        raise CourseError(f"exclude leaves nothing of {' and '.join(emptied)}: name fewer patients or files.")
    left_over = "".join(f" {note}" for note in layout.passed_over[:2])
    if not masks:
        raise CourseError(
            f"{end_of_path(next(iter(images.values())))} has no mask, and no other image has one. Put the masks, as "
            "pictures or volumes with the names of their images, into a folder masks/ beside images/. Outlines in "
            f"JSON, XML or text files are not read.{left_over}"
        )
    alone = [path for key, path in images.items() if key not in masks]
    without_image = [path for key, paths in masks.items() if key not in images for path in paths]
    what, advice = "is a mask without an image", "add the image of the same name, or exclude the mask."
    of_images = "add a mask of the same name (empty if there is nothing to draw), or exclude the image."
    if without_image:
        [of_images] = sentences_about(without_image, what, "give both the same name and subset.")
    refuse(alone, "has no mask", of_images + left_over)
    refuse(without_image, what, advice + left_over)
    outside = [path for (subset, _), path in images.items() if subset is None]
    if len(outside) < len(images):
        refuse(outside, "lies outside train, valid and test", "move it into one of them, or out of the dataset.")


def pairs_of_pictures(
    layout: Layout, patient_pattern: str | None, exclude: tuple
) -> tuple[list[Pair], dict[str, str], list[str]]:
    """Return (pairs of a layout of pictures, {patient: person}, notes).

    patient_pattern: regular expression with the group `patient` and perhaps `slice` that a whole name must match; None
    if each file is a patient of its own. With PATIENT_PATTERN names may also say "slice", give the patient after the
    slice, and give times and sides of one patient. If an image has several masks, a pair's `mask` is the first.
    """
    pattern, is_default = _compile_pattern(patient_pattern), patient_pattern == PATIENT_PATTERN
    repeated = Counter(name for _, name in layout.images)
    matches = {
        name: (is_default and (PATIENT_LAST.fullmatch(bare) or PATIENT_FIRST.fullmatch(bare)))
        or (pattern.fullmatch(name) if pattern else None)
        for _, name in {**layout.images, **layout.masks}
        for bare in [IMAGE_END.sub("", name)]
    }
    notes = _drop_common_patient(layout, matches) if is_default else []
    patient_of, slice_of = {}, {}
    for key in {**layout.images, **layout.masks}:
        subset, name = key
        match = matches[name]
        if match and match["patient"]:
            digits = match.groupdict().get("slice")
            patient_of[key] = match["patient"]
            slice_of[key] = int(digits) if digits and digits.isdecimal() else None
        else:
            patient_of[key] = f"{subset}/{name}" if repeated[name] > 1 else name
    _check_files(layout, exclude, lambda key: {key[1], patient_of[key]})
    own = [path for key, path in layout.images.items() if key not in slice_of]
    if not notes:
        notes = sentences_about(own, "does not name its patient", "each such file was taken as a patient of its own.")
    pairs = [
        Pair(*key, patient_of[key], slice_of.get(key), path, layout.masks[key][0])
        for key, path in layout.images.items()
    ]
    people, more = group_people(pairs) if is_default else ({}, [])
    counts = Counter(pair.patient for pair in pairs)
    words = {re.sub(r"[\d _.-]", "", patient).casefold() for patient in counts}
    are_kinds = words <= KINDS or all(re.fullmatch(r"(19|20)\d\d", name) for name in counts)
    kinds = [name for name, count in counts.items() if count > 1 and (are_kinds or not re.search(r"\d", name))]
    if is_default and kinds:  # as normal beside covid19
        names = ", ".join(end_of_path(name) for name in sorted(counts, key=lambda name: (name not in kinds, name))[:3])
        more.append(
            f"{names} were taken as patients. If they are kinds, times or parts of the data, give patient_pattern=None "
            "or a pattern of your own."
        )
    return pairs, people, notes + more


def _drop_common_patient(layout, matches):
    """Take each file as a patient of its own if all names share one beginning, or begin with subsets; return notes.

    Raises CourseError if names give subsets and folders do not.
    """
    found = {match["patient"] if match else "" for match in matches.values()}
    subsets = {subset for subset, _ in layout.images}
    are_subsets = all(name.casefold() in SUBSET_WORDS for name in found)
    for place, how in (0, "begin"), (-1, "end"):
        words = {(words_of(name) or [""])[place] for name in matches}  # the first word of testA_1 is test
        if None in subsets and words <= set(SUBSET_WORDS) and len({SUBSET_WORDS[word] for word in words}) > 1:
            listed_words = " or ".join(sorted(words))
            raise CourseError(
                f"All names {how} with {listed_words}: put the files into folders train/, valid/ and test/."
            )
    if not are_subsets and (len(found) > 1 or "" in found or (len(subsets) == 1 and not layout.is_of_cases)):
        return []
    for name in matches:
        matches[name] = None
    names = " or ".join(f"{end_of_path(name)}_" for name in sorted(found))
    return [
        f"All names begin with {names}, which was taken as the dataset's name, and each file as a patient of its own. "
        "If a patient has several files, give a patient_pattern."
    ]


def group_people(pairs: list[Pair], are_volumes: bool = False) -> tuple[dict[str, str], list[str]]:
    """Return ({patient: person}, notes); patients whose names are times or sides of one person are joined.

    Names that only look alike are not joined: a note gives the pattern that would join them or, for volumes, advice.
    """
    patients = list(dict.fromkeys(pair.patient for pair in pairs))
    people = people_of(patients)
    apart = "patient_pattern=None" if are_volumes else "a patient_pattern of your own"
    joined = [patient for patient in patients if people[patient] != patient]
    notes = []
    if joined:
        one, *others = sorted(patient for patient in joined if people[patient] == people[joined[0]])
        names = " and ".join(repr(end_of_path(name)) for name in [one, *others[:1]])
        notes.append(
            f"{names} were taken as times or sides of one patient, who stays in one subset (there are "
            f"{len({people[name] for name in joined})} such patients). If they are not one patient, give {apart}."
        )
    bare = {name: name.rpartition("/")[2] for name in people.values()}  # without the subset of a repeated name
    alike, pattern = look_alike(set(bare.values()))
    if alike:
        if are_volumes:
            advice = "put both into the same subset"
        elif pattern:
            pattern = _with_slices(pattern, pairs)
            found = [re.fullmatch(pattern, pair.name) for pair in pairs if bare[people[pair.patient]] in alike]
            joins = all(found) and len({match["patient"] for match in found}) == 1
            advice = f"give patient_pattern={pattern!r}" if joins else "give a patient_pattern that joins them"
        else:
            advice = "spell their names alike"
        notes.append(
            f"{end_of_path(alike[0])!r} and {end_of_path(alike[1])!r} look alike, but were taken as two patients. If "
            f"they are one patient, {advice}."
        )
    return people, notes


def _with_slices(pattern, pairs):
    """Add a group `slice` to a pattern that joins patients, if all names have a slice number; return the pattern.

    P1z03 has one: a second number after the patient's.
    """
    if all(pair.slice is not None for pair in pairs):
        return pattern + r"[ _.-]\D*(?P<slice>\d+)"
    numbered = pattern.removesuffix(".*") + r"\D+(?P<slice>\d+)"
    found = [re.fullmatch(numbered, pair.name) for pair in pairs]
    tells_apart = all(found) and len({(match["patient"], int(match["slice"])) for match in found}) == len(pairs)
    return numbered if pattern.endswith(".*") and tells_apart else pattern


# --- volumes --------------------------------------------------------------------------------------------


def check_volumes(layout: Layout, is_heart: bool, exclude: tuple, allow_incomplete: bool) -> list[str]:
    """Drop excluded volumes from a layout, put the heart data into the report's subsets, and return notes.

    Raises CourseError if the volumes are not a complete set.
    """
    _check_files(layout, exclude, lambda key: {key[1]})
    pictures = [path for path in layout.paths if file_suffix(path.name) not in VOLUMES]
    refuse(pictures, "is a picture among NIfTI volumes", "give a folder with only volumes or only pictures.")
    several = [paths[1] for paths in layout.masks.values() if len(paths) > 1]
    refuse(several, "is a second mask of one volume", "keep one for each volume.")
    if not is_heart:
        return []
    present = {name: (subset, name) for subset, name in layout.images}
    missing = [name for name in HEART_SUBSETS if name not in present and name not in exclude]
    strange = sorted(set(present) - set(HEART_SUBSETS))
    if strange:
        raise CourseError(
            f"The heart data have no patient called {', '.join(strange[:3])}: take their files out of imagesTr and "
            "labelsTr. If it is another dataset, give the folder as dataset."
        )
    if missing and not allow_incomplete:
        raise CourseError(
            f"The heart data are incomplete: {len(missing)} of {len(HEART_SUBSETS)} patients are missing "
            f"({', '.join(missing)}). Get the whole archive, or give allow_incomplete=True."
        )
    empty = [subset for subset in SUBSETS if not set(HEART_SLICES[subset]) & set(present)]
    if empty:
        raise CourseError(
            f"The patients that are there ({', '.join(sorted(present))}) belong to other subsets in the report, so "
            f"{' and '.join(empty)} would be empty. Add at least one of {', '.join(HEART_SLICES[empty[0]])}."
        )
    layout.images, layout.masks = (
        {(subset, name): files[present[name]] for name, subset in HEART_SUBSETS.items() if name in present}
        for files in (layout.images, layout.masks)
    )
    return [f"The heart data are incomplete, as allowed: {', '.join(missing)} are missing."] if missing else []
