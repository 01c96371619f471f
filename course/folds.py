"""Which patient is in which subset: a split by chance, folds, and scans that stand under two names."""

import hashlib
import random
from collections import Counter, defaultdict
from dataclasses import replace

from course.pictures import SUBSETS, reading_order
from course.workspace import CourseError

SHARES = {"train": 0.51, "valid": 0.25, "test": 0.24}  # of the patients: the report's proportions
FOLDS = 5  # of the cross-validation; fewer where there are fewer patients


def same_scans(pairs):
    """Return {(patient, patient): [(pair, pair), ...]}, the patients most of whose pictures are identical."""
    holders, shared = defaultdict(dict), defaultdict(list)
    for pair in pairs:
        if not pair.facts.is_constant:
            same = holders[pair.facts.image_hash]
            for patient, earlier in same.items():
                if patient != pair.patient:
                    shared[patient, pair.patient].append((earlier, pair))
            if len(same) < 20:  # the same picture in hundreds of files is told often enough
                same.setdefault(pair.patient, pair)
    counts = Counter(pair.patient for pair in pairs)
    return {
        (one, other): matches
        for (one, other), matches in shared.items()
        if 2 * len(matches) >= min(counts[one], counts[other])
    }


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


def left_out_twins(description):
    """Return the train patients whose scan is also in valid or test, under another name."""
    left_out = set()
    for twin in description["twins"]:
        if {subset for subset, _ in twin["patients"]} - {"train"}:
            left_out |= {patient for subset, patient in twin["patients"] if subset == "train"}
    return sorted(left_out)
