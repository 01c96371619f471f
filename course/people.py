"""Which patients are one person, by their names: several times or sides of one person, or two spellings of a name."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

LAST_PART = r"(?P<patient>.+)[ _.-][^ _.-]+"  # joins patients whose names differ in their last part
LAST = re.compile(r"(_[^_]*|[ .-]\(?(\d+|[^\W\d_]+)\)?)$")  # a last part: anna_x1, anna-2, anna (2), but not benign-p0
# What is added to a patient's name for one of several times, frames, views or sides.
NUMBERED = "time|timepoint|tp|t|frame|phase|visit|session|ses|scan|day|week|month|year|view"
DAY = "(0[1-9]|[12]\\d|3[01])"
DATE = rf"((19|20)\d\d[_.-]?(0[1-9]|1[0-2])[_.-]?{DAY}|{DAY}[_.-]{DAY}[_.-](19|20)\d\d)"  # year, day or month first
TIME_OR_SIDE = re.compile(
    rf"ed|es|left|right|l|r|od|os|pre|post|before|after|baseline|followup|({NUMBERED})\d+|{DATE}", re.IGNORECASE
)
SLICE = re.compile(r"(slice|image|img|im|sl|s)?\d*", re.IGNORECASE)
# A folder or word before what may be the patient's own name, with letters and a number: axial-p1, ct_p1.
BEFORE = re.compile(r"(?P<place>[^ _.-]+-|[^\W\d_]*[ _.])(?P<own>(?=.*[^\W\d_]).*\d.*)", re.DOTALL)


def person(patient: str) -> str:
    """Return a patient's name without the words for a time or side: patient3 for patient3_ED.

    Image_01L and Image_01R are the two sides of Image_01, L7 and R7 of 7. A name with no other words stays as it is,
    and so does scan3_slice07, whose scan is the patient.
    """
    name = re.sub(r"(?<=\d)([LR]|O[DS])$|^([LR]|O[DS])(?=\d)", "", patient)
    name = re.sub(rf"(?<!\d){DATE}(?!\d)", "20000101", name)  # one word too
    name = re.sub(rf"(?<![^\W_])({NUMBERED})[ _-](?=\d)", r"\1", name, flags=re.IGNORECASE)  # ses-02 is one word
    words = re.findall(r"([^ _.-]+)([ _.-]*)", name)
    kept = [(word, after) for word, after in words if not TIME_OR_SIDE.fullmatch(word)]
    if re.match(rf"({NUMBERED})\d", name, re.IGNORECASE) and all(SLICE.fullmatch(word) for word, _ in kept):
        return patient
    return "".join(word + after for word, after in kept).rstrip(" _.-") or patient


def people_of(patients: Iterable[str]) -> dict[str, str]:
    """Return {patient: person}: p1_ED and p1_ES become p1; p2_ED stays, unless another patient becomes p2 too.

    If all would become one person without a number, as CT_scan_01 and CT_scan_02 would, no patients are joined.
    """
    people = {patient: person(patient) for patient in patients}
    shared = Counter(people.values())
    if len(shared) == 1 and not re.search(r"\d", next(iter(shared))):
        return {patient: patient for patient in people}
    return {patient: name if shared[name] > 1 else patient for patient, name in people.items()}


def loosely(name: str) -> str:
    """Return a name for comparison: in lower case, without leading zeros, with the same mark between all words."""
    return re.sub(r"[ .-](?=\w)", "_", re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold()))


def look_alike(patients: Iterable[str]) -> tuple[list[str], str]:
    r"""Return (the first patients who may be one by their names, or [], a pattern that joins such patients).

    The pattern is a regular expression with the group `patient`, or "" if names are `loosely` the same (P1, p01).
    A beginning that all names share, as in la_003 and la_004, is the dataset's name. A few words before many names are
    places or kinds (axial-p1, coronal-p1). Otherwise the rest is compared up to its first number (P1-dia, P1-sys), then
    up to its last part (A_1, A_2).
    """
    patients = sorted(patients)
    common = re.sub(r"\d+$", "", os.path.commonprefix(patients))
    spelled, own, numbered, marked = (defaultdict(list) for _ in range(4))
    parts = {patient: re.fullmatch(r"(\D*\d+)?(.*)", patient[len(common) :], re.DOTALL) for patient in patients}
    endings, places = Counter(part[2] for part in parts.values()), set()
    for patient, part in parts.items():
        spelled[loosely(patient)].append(patient)
        before = BEFORE.fullmatch(part[0])
        if before and not SLICE.fullmatch(before["own"]):
            own[before["own"]].append(patient)
            places.add(before["place"])
        is_time = part[1] and part[2] and (endings[part[2]] > 1 or not part[2][0].isalnum())  # P1ED, not a random 1a7
        numbered[part[1] if is_time else part[0]].append(patient)
        marked[LAST.sub("", part[0]) or part[0]].append(patient)
    same = [names for names in spelled.values() if len(names) > 1]
    same += [[*names, common + name] for name, names in own.items() if common + name in patients]  # later_p3, p3
    if same:
        return same[0], ""
    shared = [names for names in own.values() if len(names) > 1]
    if shared and len(places) < len(own):
        return shared[0], rf"{re.escape(common)}[^ _.-]*[ _.-](?P<patient>.+)"
    of_number = rf"(?P<patient>{re.escape(common)}\D*\d+).*"
    for stems, most, pattern in (numbered, len(patients), of_number), (marked, len(marked), LAST_PART):
        several = [names for names in stems.values() if 1 < len(names) <= most]  # a stem with more names is a place
        if several and len(stems) > 1:
            return several[0], pattern
    return [], ""
