"""Which patient is in which subset: a random split, folds, and patients that belong together."""

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace
from types import SimpleNamespace

from course.pictures import SUBSETS, Pair, reading_order
from course.workspace import CourseError, end_of_path

SHARES = {"train": 0.51, "valid": 0.25, "test": 0.24}  # of the patients: the report's proportions
ATTEMPTS = 100  # to split at random until each subset has a mask that is not empty
FOLDS = 5  # of the cross-validation; fewer if there are fewer patients


def same_scans(pairs: list[Pair]) -> dict:
    """Return {(patient, patient): [(pair, pair), ...]} for patients with at least half their pictures identical."""
    holders, shared = defaultdict(dict), defaultdict(list)
    for pair in pairs:
        if not pair.facts.is_constant:
            same = holders[pair.facts.image_hash]
            for patient, earlier in same.items():
                if patient != pair.patient:
                    shared[patient, pair.patient].append((earlier, pair))
            if len(same) < 20:  # enough for a picture that is the same in hundreds of files
                same.setdefault(pair.patient, pair)
    counts = Counter(pair.patient for pair in pairs)
    return {
        (one, other): matches
        for (one, other), matches in shared.items()
        if 2 * len(matches) >= min(counts[one], counts[other])
    }


def _groups(pairs, people):
    """Return lists of patients that belong together because their scans are identical or they are one person."""
    group_of = {pair.patient: [pair.patient] for pair in sorted(pairs, key=reading_order)}
    first = {}
    of_one_person = [(first.setdefault(people.get(patient, patient), patient), patient) for patient in group_of]
    for one, other in [*of_one_person, *same_scans(pairs)]:
        group, joined = group_of[one], group_of[other]
        if group is not joined:
            group += joined
            group_of.update(dict.fromkeys(joined, group))
    return list({id(group): group for group in group_of.values()}.values())


def _deal(groups, missing):
    """Return {patient: subset}: the last groups fill `missing` in the report's proportions, the others become train."""
    groups, patients = list(groups), sum(map(len, groups))
    subset_of = {patient: "train" for group in groups for patient in group}
    shares = sum(SHARES[subset] for subset in ["train", *missing])
    for left, subset in enumerate(reversed(missing)):
        wanted = max(1, round(SHARES[subset] / shares * patients))
        while wanted > 0 and len(groups) > len(missing) - left:
            group = groups.pop()
            wanted -= len(group)
            subset_of.update(dict.fromkeys(group, subset))
    return subset_of


def fill_subsets(pairs: list[Pair], seed: int, people: dict | None = None) -> tuple[list[Pair], list[str]]:
    """Give the pairs the subsets that they lack, by patient; return (pairs, notes).

    If the data have no subsets, or only one, all patients are split in the report's proportions; if valid or test is
    missing, it is drawn from train. The draw is repeated if all masks of a subset would be empty. Identical scans, and
    patients of one person in `people` ({patient: person}), stay together. No patient may be in two subsets, which
    `check_subsets` ensures. Raises CourseError if there are too few patients, or no train.
    """
    present = {pair.subset for pair in pairs} - {None}
    if len(present) == len(SUBSETS):
        return pairs, []
    if len(present) > 1 and "train" not in present:
        raise CourseError(
            "The subset train has no images, but valid and test have: put most of the patients into train."
        )
    if len(present) < 2:
        pool, missing, parts, needed = pairs, ["valid", "test"], "train, valid and test", "three"
        lack = f"no subsets{''.join(f' but {subset}' for subset in present)}"
        told = f"The dataset has {lack}: its patients were split at random (seed {seed}) into"
    else:
        pool, [subset] = [pair for pair in pairs if pair.subset == "train"], {"valid", "test"} - present
        missing, parts, needed = [subset], f"train and {subset}", "two"
        told = (
            f"The dataset has no {subset}: it was drawn at random from the patients of train (seed {seed}), which gives"
        )
    groups = _groups(pool, people or {})
    if len(groups) <= len(missing):
        raise CourseError(
            f"{len(groups)} {'patient is' if len(groups) == 1 else 'patients are'} too few to split into {parts} "
            f"({', '.join(end_of_path(group[0]) for group in groups)}): {needed} are needed. A scan or patient under "
            "two names counts once. If each file is a patient of its own, give patient_pattern=None, else a "
            "pattern that tells the patients apart."
        )
    generator, drawn = random.Random(seed), {pair.patient for pair in pool if len(pair.facts.mask_values) > 1}
    for _ in range(ATTEMPTS):
        generator.shuffle(groups)
        subset_of = _deal(groups, missing)
        if {subset_of[patient] for patient in drawn} == {"train", *missing}:
            break
    split = [replace(pair, subset=subset_of.get(pair.patient, pair.subset)) for pair in pairs]
    sizes = Counter(subset for subset, _ in {(pair.subset, pair.patient) for pair in split})
    counts = ", ".join(f"{sizes[subset]} {subset}" for subset in SUBSETS)
    return split, [f"{told} {counts}."]


def check_subsets(pairs: list[Pair], people: dict | None = None) -> None:
    """Raise CourseError if a patient, or a person whose times or sides have names of their own, is in two subsets."""
    people, places = people or {}, {}
    for pair in pairs:
        first = places.setdefault(people.get(pair.patient, pair.patient), pair)
        if first.subset == pair.subset:
            continue
        who = f"Patient {end_of_path(first.patient)!r} is"
        if first.patient != pair.patient:
            names = " and ".join(repr(end_of_path(one.patient)) for one in (first, pair))
            who = f"{names} look like two times or sides of one patient, who is"
        where = " and ".join(f"{one.subset}/{end_of_path(one.name)}" for one in (first, pair))
        raise CourseError(
            f"{who} in two subsets ({where}), so results would look too good. Keep each patient in one subset. "
            "If these names say nothing about patients, give patient_pattern=None or a pattern of your own."
        )


def check_masks(pairs: list[Pair], mask_values: list) -> None:
    """Raise CourseError if a subset has no mask that shows the structure."""
    for subset in SUBSETS:
        of_subset = [pair for pair in pairs if pair.subset == subset]
        if not any(pair.facts.foreground_pixels(mask_values) for pair in of_subset):
            raise CourseError(
                f"All masks of {subset} are empty ({end_of_path(of_subset[0].name)} and the others), so nothing can be "
                f"learned or measured there. Put a patient whose masks show the structure into {subset} or, if the "
                "subsets were drawn at random, choose another seed."
            )


def draw_folds(pairs: list[Pair], seed: int, people: dict | None = None) -> list[list[str]]:
    """Divide the train and valid patients into at most FOLDS folds; patients that belong together stay together."""
    groups = _groups([pair for pair in pairs if pair.subset != "test"], people or {})
    random.Random(seed).shuffle(groups)
    folds = [[] for _ in range(min(FOLDS, len(groups)))]
    for patients in sorted(groups, key=len, reverse=True):
        min(folds, key=len).extend(patients)
    return [sorted(patients) for patients in folds]


def apply_fold(description: dict, fold: int) -> None:
    """Make one fold the valid patients of a description, and all others of train and valid its train patients.

    The subsets as imported are recorded for `undo_fold`. Raises CourseError if there is no such fold, or if two
    pictures of train and valid have one name.
    """
    folds = description["folds"]
    if type(fold) is not int or not 0 <= fold < len(folds) or len(folds) < 2:
        choices = f"a whole number from 0 to {len(folds) - 1}, or None" if len(folds) > 1 else "None"
        raise CourseError(
            f"fold is {fold!r}, but the number of folds of the {sum(map(len, folds))} train and valid patients is "
            f"{len(folds)}: choose {choices}."
        )
    pairs = [(subset, pair) for subset in ("train", "valid") for pair in description["subsets"][subset]]
    [(name, count)] = Counter(pair["name"] for _, pair in pairs).most_common(1)
    if count > 1:
        raise CourseError(
            f"Train and valid both have a picture named {name}. Folds mix the two, so give each file a name of its own."
        )
    description["as_imported"] = {name: description[name] for name in ("fingerprint", "notes")}
    description["stored_in"] = {pair["name"]: subset for subset, pair in pairs}
    subset_of = {patient: "valid" if patient in folds[fold] else "train" for patients in folds for patient in patients}
    _regroup(description, lambda pair: subset_of[pair["patient"]])
    description["notes"] = [
        *description["notes"],
        f"Fold {fold} of {len(folds)}: {', '.join(folds[fold])} are in valid, the other patients of train and valid in "
        "train. The audit describes the subsets as imported.",
    ]
    description["fold"] = fold
    described = f"{description['fingerprint']} {sorted(subset_of.items())}"
    description["fingerprint"] = hashlib.sha256(described.encode()).hexdigest()


def undo_fold(description: dict) -> None:
    """Give a description back the subsets with which it was imported."""
    if "as_imported" in description:
        stored_in = description.pop("stored_in")
        _regroup(description, lambda pair: stored_in[pair["name"]])
        for subset in ("train", "valid"):
            description["subsets"][subset].sort(key=lambda pair: reading_order(SimpleNamespace(**pair)))
        description.update(description.pop("as_imported"))
        del description["fold"]


def _regroup(description, subset_of):
    """Move the pairs of train and valid to the subset that `subset_of(pair)` returns, and update the twins."""
    pairs = [pair for subset in ("train", "valid") for pair in description["subsets"][subset]]
    for subset in ("train", "valid"):
        description["subsets"][subset] = [pair for pair in pairs if subset_of(pair) == subset]
    of_patient = {pair["patient"]: subset_of(pair) for pair in pairs}
    for twin in description["twins"]:
        twin["patients"] = [[of_patient.get(patient, "test"), patient] for _, patient in twin["patients"]]


def left_out_twins(description: dict) -> list[str]:
    """Return the train patients whose scan is also in valid or test, under another name."""
    left_out = set()
    for twin in description["twins"]:
        if {subset for subset, _ in twin["patients"]} - {"train"}:
            left_out |= {patient for subset, patient in twin["patients"] if subset == "train"}
    return sorted(left_out)
