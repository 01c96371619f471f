"""Which files of a dataset are images, which are masks of which image, and to which subset they belong."""

import os
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path

from course.matching import IMAGE_AFFIX, MASK_ENDING, File, Layout, bare_names, match_masks
from course.notes import sentences_about
from course.pictures import PICTURES, VOLUMES, file_suffix, is_stray, may_be_data, refuse_dicom
from course.store import import_copies
from course.workspace import CourseError, end_of_path

# What users call the folders that this course calls train, valid, test and images, masks.
SUBSET_WORDS = {
    word + end: subset
    for subset, words in {
        "train": "train training trainval",
        "valid": "valid val validation",
        "test": "test testing",
    }.items()
    for word in words.split()
    for end in ("", "set", "data")
}
GLUED = re.compile(
    rf"^({'|'.join(sorted(SUBSET_WORDS, key=len, reverse=True))})(?=image|img|mask|label|annot|gt)", re.I
)
SUBSET_ENDINGS = {"tr": "train", "va": "valid", "ts": "test"}  # imagesTr
IMAGE_WORDS = {"images", "image", "imgs", "img", "imagestr", "imagests", "imaging"}
MASK_WORDS = {"masks", "mask", "msk", "labels", "label", "labelstr", "labelsts"}
# These mean masks only if they tell folders apart: they may also be the name of the whole dataset.
WEAK_MASK_WORDS = {"ground", "groundtruth", "truth", "gt", "gts", "manual", "annotations", "annotation", "annot"}
WEAK_MASK_WORDS |= {"segmentation", "segmentations", "seg"}
# Names of the masks of a first and a second annotator.
FIRST_OPINION, SECOND_OPINION = (
    re.compile(
        rf"{nth}|manual[ _-]?{n}(?!\d)|(annotator|observer|rater|reader|expert)[ _-]?[{n}{a}](?!\w)", re.IGNORECASE
    )
    for nth, n, a in (("1st", 1, "a"), ("2nd", 2, "b"))
)
NEITHER = {  # words in the names of files that are neither image nor mask
    *("fov", "superpixels", "overlay", "overlays", "viz", "visualization"),
    *("pred", "predicted", "prediction", "predictions"),
}
TO_READ = "unpack it, or save it as NIfTI (SimpleITK can do it) or PNG"
MAX_FILES = 200_000
MAX_NAME = 255  # bytes in a file name


def find_files(folder: Path, work_dir: Path) -> Layout:
    """Return the layout of the files below a folder; the work folder's own copies are skipped.

    Assumptions are reported in its notes. Raises CourseError if the files are not a dataset, if two files have one
    name, and for names that cannot be kept.
    """
    paths, unread = _list_files(folder, work_dir)
    if not paths:
        refuse_dicom(unread)
        held = f"only {_of_types(unread)}" if unread else "no picture and no volume"
        raise CourseError(
            f"{end_of_path(folder.name)} is not a dataset: it holds {held}, but pictures in images/ and masks/ were "
            f"expected ({', '.join(PICTURES + VOLUMES)})."
        )
    shared = len(os.path.commonprefix([path.relative_to(folder).parts[:-1] for path in paths]))
    layout = Layout(geometry=[path for path in unread if path.name == "geometry.json"])
    files, layout.neither = _tell_images_by_masks(_set_aside(_tell_kinds(paths, folder, shared), layout))
    data = [path for path in unread if may_be_data(path)]
    types = ", ".join(sorted({file_suffix(path.name) or "files without an extension" for path in data})[:6])
    layout.pass_over(data, f"this course does not read {types}. If it belongs to the dataset, {TO_READ}.")
    layout.pass_over(layout.neither, "neither its name nor its folder's says whether it is an image or a mask.")
    match_masks(_use_folders_as_names(files, layout.notes), layout)
    _pass_over_test_without_masks(layout)
    if len(layout.images) != len(layout.masks):
        refuse_dicom(unread)
    for (_, name), path in layout.images.items():
        if len(f"{name}{'_000' if file_suffix(path.name) in VOLUMES else ''}.png".encode()) > MAX_NAME:
            raise CourseError(f"The name of {end_of_path(path)} is too long when joined with its folders: shorten it.")
    return layout


# --- reading paths --------------------------------------------------------------------------------------


def _raise(error):
    raise error


def _list_files(folder, work_dir):
    """Return the pictures and volumes below a folder, and the files of all other types.

    Stray files and the work folder's own copies are skipped.
    """
    skipped = {path.resolve() for path in [*import_copies(work_dir), *work_dir.glob("dataset.importing-*")]}
    skipped -= {folder.resolve(), *folder.resolve().parents}
    seen, found, other = set(), [], []
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = Path(place).resolve()
        if real in seen or real in skipped:
            folders.clear()
            continue
        seen.add(real)
        ranks = {  # a folder reached by two names is read under the one that names a kind, or is not a link
            name: (_kind_of(name, False) is None, Path(place, name).is_symlink(), name)
            for name in folders
            if not is_stray(name)
        }
        folders[:] = sorted(ranks, key=ranks.get)
        for name in sorted(files):
            if not is_stray(name):
                (found if file_suffix(name) in PICTURES + VOLUMES else other).append(Path(place, name))
        if len(found) + len(other) > MAX_FILES:
            raise CourseError(f"{folder} holds more than {MAX_FILES:,} files: give the dataset's own folder.")
    for part in sorted({part for path in found for part in path.parts}):
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in part):  # control, and no text at all
            raise CourseError(
                f"The name {end_of_path(part)!r} holds characters that cannot be shown: rename this file or folder."
            )
    return found, other


def _of_types(paths):
    """Describe files of types that are not read, such as "images/a.csv and the like (3 of the type .csv)"."""
    [(suffix, count)] = Counter(file_suffix(path.name) for path in paths).most_common(1)
    example = next(path for path in paths if file_suffix(path.name) == suffix)
    hint = f"; {TO_READ}" if may_be_data(example) else ""
    kind = f"of the type {suffix}" if suffix else "without an extension"
    return f"{end_of_path(example)} and the like ({count:,} {kind}{hint})"


def words_of(name):
    """Return the words in a folder's name in lower case: images and tr for imagesTr, train and annot for trainannot."""
    parted = GLUED.sub(r"\1 ", re.sub(r"([a-z])(?=[A-Z])|([A-Z])(?=[A-Z][a-z])", r"\1\2 ", name))
    return [word.casefold() for word in re.findall(r"\d+[a-z]*|[^\W\d_]+", parted)]


def _kind_of(folder, is_shared):
    """Return "images", "masks" or None for a folder's name."""
    words = {folder.casefold(), *words_of(folder)}
    if words & MASK_WORDS:
        return "masks"
    if words & IMAGE_WORDS:
        return "images"
    return "masks" if words & WEAK_MASK_WORDS and not is_shared else None


def _subset_of(folder):
    """Return the subset that a folder's name means, or None."""
    words = words_of(folder)
    if words and words[-1] in SUBSET_ENDINGS and {*words} & (IMAGE_WORDS | MASK_WORDS):
        return SUBSET_ENDINGS[words[-1]]
    return next((SUBSET_WORDS[word] for word in words if word in SUBSET_WORDS), None)


def _tell_kinds(paths, folder, shared):
    """Return a File for each path, with what its folders and name say; all paths share the first `shared` folders.

    If all files become one kind, or an image is taken as a mask beside its own, as in seg-data/{1,1_mask}.png, these
    words name the dataset: then the shared folders, and words that only may mean masks, are ignored.
    """
    files = _tell_masks_by_name([_classify(path, folder, shared) for path in paths])
    masks = {(file.path.parent, file.stem) for file in files if file.kind == "masks"}
    are_of_masks = any((place, bare) in masks for place, name in masks for bare in bare_names(name))
    if are_of_masks or len({file.kind for file in files}) == 1:
        again = _tell_masks_by_name([_classify(path, folder, shared, is_strict=True) for path in paths])
        files = again if any(file.kind for file in again) else files
    return files


def _classify(path, folder, shared, is_strict=False):
    """Return a File with what its path inside the dataset says; all files share the first `shared` folders.

    is_strict: the shared folders, and words that only may mean masks, are ignored.
    """
    *folders, file = (unicodedata.normalize("NFC", part) for part in path.relative_to(folder).parts)
    kinds = [_kind_of(part, is_strict or number < shared) for number, part in enumerate(folders)]
    kinds = [None] * shared + kinds[shared:] if is_strict else kinds
    position = max((number for number, kind in enumerate(kinds) if kind), default=len(folders))
    subsets = [_subset_of(part) for part in folders]
    nearest = [position, position - 1, position + 1, *range(position - 2, -1, -1)]
    of_subset = next((number for number in nearest if 0 <= number < len(folders) and subsets[number]), None)
    subset = None if of_subset is None else subsets[of_subset]
    above = [part for part, found in list(zip(folders, subsets))[shared:position] if not found]
    below = [part for number, part in enumerate(folders) if number > position and number != of_subset]
    name = "_".join([*below, file[: -len(file_suffix(file))]])
    return File(path, subset, [*kinds, None][position], name, tuple(above))


# --- images and masks -----------------------------------------------------------------------------------


def _set_aside(files, layout):
    """Set aside overlays, predictions, second annotators' masks and retina fields of view; return the other files."""

    def pass_over(left_out, why):
        """Return the files without `left_out`, reported in the layout; if none remain, the word names the dataset."""
        gone = set(left_out)
        kept = [file for file in files if file not in gone]
        if kept:
            layout.pass_over([file.path for file in left_out], why)
        return kept or files

    def says(file):
        """Return the end of a file's path, which may say whose mask it is."""
        return f"{file.path.parent.name}/{file.name}"

    neither = [file for file in files if NEITHER.intersection(words_of(says(file)))]
    files = pass_over(neither, "its name says that it is not a mask drawn by a person.")
    masks = [file for file in files if file.kind == "masks"]
    if any(FIRST_OPINION.search(says(file)) for file in masks):
        images = {file.name for file in files if file.kind != "masks"}
        second = [file for file in masks if SECOND_OPINION.search(says(file)) and file.name not in images]
        visits = {name for name in images if SECOND_OPINION.search(name)}  # p1_2nd_mask is the mask of p1_2nd
        second = [file for file in second if not visits.intersection(bare_names(file.name))]
        files = pass_over(second, "it is the mask of a second annotator; the first annotator's is used.")
    by_hand = {file.path.parent.name for file in masks if "manual" in words_of(file.path.parent.name)}
    if by_hand:
        views = [file for file in masks if {*words_of(file.path.parent.name)} <= {"mask", "masks"}]
        files = pass_over(
            views, f"beside {min(by_hand)}, a folder called mask holds the field of view, not the structure."
        )
    return files


def _tell_masks_by_name(files):
    """Take files as masks by their names: NAME_mask beside NAME or, if no folder holds masks, mask_NAME.

    PATIENT/image and PATIENT/mask are named by their folder. So is any image alone with its mask, and a file `image`
    that is the only image beside masks with longer names, such as atrium_mask.
    """
    without_folders, bare_of = not any(file.kind for file in files), {file: bare_names(file.stem) for file in files}
    plain = {(file.path.parent, name) for file in files for name in (file.stem, IMAGE_AFFIX.sub("", file.stem))}
    of_a_mask = {(file.path.parent, bare) for file in files for bare in bare_of[file]}
    called_mask = {file for file in files if file.stem.casefold() in MASK_WORDS | WEAK_MASK_WORDS}
    sizes = Counter(file.path.parent for file in files)
    images = Counter(file.path.parent for file in files if file not in called_mask and not bare_of[file])
    called_image = {file for file in files if file.stem.casefold() in IMAGE_WORDS}
    alone = {file.path.parent for file in called_image if images[file.path.parent] == 1}
    called_mask |= {file for file in files if bare_of[file] and file.path.parent in alone}
    of_two = {file.path.parent for file in called_mask if sizes[file.path.parent] == 2}
    result = []
    for file in files:
        folder, bare = file.path.parent, bare_of[file]
        has_image = any((folder, name) in plain for name in bare)
        if without_folders and (file in called_mask or file in called_image or folder in of_two):
            if file.above:
                kind = "masks" if file in called_mask else "images"
                file = replace(file, kind=kind, name=file.above[-1], above=file.above[:-1])
        elif bare and (has_image or (without_folders and (folder, file.stem) not in of_a_mask)):
            file = replace(file, kind="masks")
        result.append(file)
    return result


def _tell_images_by_masks(files):
    """Find the images if no folder is named images; return (images and masks, paths that are neither).

    A folder holds images if at least one of its files has a mask. Folders between it and the folder of all images
    become part of their names, as they do for masks: scans/p1/000 beside masks/p1/000 is p1_000.
    """
    known = [file for file in files if file.kind]
    unknown = [file for file in files if not file.kind]
    if any(file.kind == "images" for file in known):
        return known, [file.path for file in unknown]
    wanted = {(file.subset, name) for file in known for name in [file.name, *bare_names(file.name)]}
    wanted |= {(file.subset, file.folders + name) for file in known for name in bare_names(file.stem)}
    places = {}  # {folder: how many of the folders above are not part of its images' names}
    for file in unknown:
        for place in range(len(file.above) + 1):
            names = ["_".join([*file.above[place:], name]) for name in (file.name, IMAGE_AFFIX.sub("", file.name))]
            if {(file.subset, name) for name in names} & wanted:
                places.setdefault(file.path.parent, place)
    if not places:  # no name is the same, but names may begin alike
        places = {file.path.parent: len(file.above) for file in unknown}
    holds_masks, beside_masks = {file.path.parent for file in known}, {file.path.parents[1] for file in known}
    files = known
    for file in [file for file in unknown if file.path.parent in places]:
        folder = file.path.parent
        place = places[folder]
        if place < len(file.above):
            file = replace(file, name="_".join([*file.above[place:], file.name]), above=file.above[: max(0, place - 1)])
        elif folder not in holds_masks and folder.parent in beside_masks:  # p1/scan/000 beside p1/masks/000 is of p1
            file = replace(file, above=file.above[:-1])
        files.append(replace(file, kind="images"))
    return files, [file.path for file in unknown if file.path.parent not in places]


# --- subsets and names ----------------------------------------------------------------------------------


def _use_folders_as_names(files, notes):
    """Prefix names that say too little with the folders above images and masks; this is reported in the notes.

    If names are numbers in a folder per patient, anna/images/000 becomes anna_000. If they are one word and a number,
    in folders with numbers, p1/images/IM000 and images/p1/IM000 become p1_000, but benign/images/IM000 stays. If two
    files have one name, A/images/1 and B/images/1 become A-1 and B-1, and so do numbered volumes. Nothing changes if
    images and masks lie in different folders, or all in one.
    """
    shared = len(os.path.commonprefix([file.above for file in files]))
    files = [replace(file, above=file.above[shared:]) for file in files]
    above = {kind: {file.above for file in files if file.kind == kind} for kind in ("images", "masks")}
    if not (above["images"] <= above["masks"] or above["masks"] <= above["images"]):
        return files
    own = {file: file.name.removeprefix(file.folders) for file in files}
    folders = {file: (*file.above, *([file.folders[:-1]] if file.folders else [])) for file in files}
    bare = {file: MASK_ENDING.sub("", name) for file, name in own.items()}
    words = {(file.kind, re.sub(r"\d+$", "", bare[file])) for file in files}
    is_numbered = all(folders.values()) and all(re.search(r"\d$", name) for name in bare.values())
    is_numbered &= len(words) == len({kind for kind, _ in words})
    is_numbered &= not any(file_suffix(file.path.name) in VOLUMES for file in files)  # each is a patient of its own
    numbers = {kind: set() for kind in above}
    for file in files:
        numbers[file.kind].add((file.subset, folders[file], re.sub(r"^\D+", "", bare[file])))
    is_numbered &= numbers["images"] <= numbers["masks"] or numbers["masks"] <= numbers["images"]
    if any(word for _, word in words):
        is_numbered &= all(re.search(r"\d", "".join(above)) for above in folders.values())
    if above["images"] and is_numbered:
        first, *more = sorted({"/".join(above) for above in folders.values()})
        if more and (any(above["images"]) or any(word for _, word in words)):
            notes.append(
                f"The folders ({end_of_path(first)} and {len(more):,} more) were taken as the patients, because the "
                "names in them differ only in their numbers. If each file is a patient, give patient_pattern=None."
            )
        length = {kind: len(word) for kind, word in words}
        return [replace(file, name="_".join([*folders[file], own[file][length[file.kind] :]])) for file in files]
    counts = Counter((file.subset, file.kind, file.name) for file in files)
    if files and max(counts.values()) > 1:
        return [replace(file, name="-".join([*file.above, file.name])) for file in files]
    images = [file for file in files if file.kind == "images"]
    begin_so = all(file.above and file.name.startswith(file.above[-1]) for file in images)
    if 1 < len(above["images"]) < len({re.sub(r"_\d+$", "", file.name) for file in images}) and not begin_so:
        notes.append(
            f"The folders of {end_of_path(images[0].path)} and the others were not taken as patients. If they are, "
            "begin the names of their files with the patient's, as in P1_000."
        )
    return files


def _pass_over_test_without_masks(layout):
    """Drop the images of valid or test if none of them has a mask: they cannot be scored."""
    if not any(key in layout.masks for key in layout.images):
        return
    for subset in ("valid", "test"):
        images, masks = ([key for key in files if key[0] == subset] for files in (layout.images, layout.masks))
        if images and not masks:
            paths = [layout.images.pop(key) for key in images]
            why = f"no image of {subset} has one, so all of {subset} was left out."
            layout.notes += sentences_about(paths, "has no mask", why)
