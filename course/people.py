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
PERSON = r"(p|pat|patient|sub|subj|subject|case)[ _-]?\d"  # what begins like this is the name of a person
# Words that stand before a person's name, whatever this is: a modality, a visit, a year.
PLACE = r"cta?|mra?|mri|pet|us|t[12][^\W_]*|flair|dwi|adc|(visit|ses|session|timepoint|tp|fold)\d+|(19|20)\d\d"
SURELY_BEFORE = re.compile(
    rf"((?!{PERSON}|site|cent|hospital)[^ _.-]+[ _.-](?={PERSON})|({PLACE})[ _.-])(?P<own>.*\d.*)",
    re.IGNORECASE | re.DOTALL,
)
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

    If all would become one person without a number, as CT_scan_01 and CT_scan_02 would, or only what follows their
    numbers would be left, as of scan1_3T and scan2_3T, no patients are joined.
    """
    people = {patient: person(patient) for patient in patients}
    shared = Counter(people.values())
    if len(shared) == 1:
        name, start = next(iter(shared)), re.sub(r"[ _-]?\d*$", "", os.path.commonprefix([*people]))
        is_rest = re.fullmatch(NUMBERED, start, re.IGNORECASE) and not re.match(PERSON, name, re.IGNORECASE)
        if is_rest or not re.search(r"\d", name):
            return {patient: patient for patient in people}
    return {patient: name if shared[name] > 1 else patient for patient, name in people.items()}


def loosely(name: str) -> str:
    """Return a name for comparison: in lower case, without leading zeros, with the same mark between all words."""
    return re.sub(r"[ .-](?=\w)", "_", re.sub(r"(?<!\d)0+(?=\d)", "", name.casefold()))


def look_alike(patients: Iterable[str]) -> tuple[list[str], str]:
    r"""Return (the first patients who may be one by their names, or [], a pattern that joins such patients).

    The pattern is a regular expression with the group `patient`, or "" if names are `loosely` the same (P1, p01). A
    beginning that all names share, as in la_003 and la_004, is the dataset's name.
    """
    patients = sorted(patients)
    common = re.sub(r"\d+$", "", os.path.commonprefix(patients))
    rests = [patient[len(common) :] for patient in patients]
    after_word, words = _after_word(rests)

    def grouped(stems):
        """Return {stem: patients who have it} for the stems of all patients, in order; None is no stem."""
        groups = defaultdict(list)
        for patient, stem in zip(patients, stems):
            groups[stem].append(patient)
        groups.pop(None, None)
        return groups

    own = grouped(after_word)
    same = [names for names in grouped(map(loosely, rests)).values() if len(names) > 1]
    same += [[*names, common + name] for name, names in own.items() if common + name in patients]  # later_p3, p3
    if same:
        return same[0], ""
    surely = grouped(part and part["own"] for part in map(SURELY_BEFORE.fullmatch, patients))
    numbered, marked = grouped(_up_to_number(rests)), grouped(LAST.sub("", rest) or rest for rest in rests)
    start = re.escape(common)
    for stems, most, pattern in (
        (surely, len(patients), r"[^ _.-]*[ _.-](?P<patient>.+)"),
        (own, len(patients) if words < len(own) else 0, rf"{start}[^ _.-]*[ _.-](?P<patient>.+)"),
        (numbered, len(patients), rf"(?P<patient>{start}\D*\d+).*"),
        (marked, len(marked), LAST_PART),  # a stem with more names is a place
    ):
        several = [names for names in stems.values() if 1 < len(names) <= most]
        if several and len(stems) > 1:
            return several[0], pattern
    return [], ""


def _after_word(names):
    """Return (for each name what follows a first word: p1 of axial-p1, or None, how many such words there are).

    If there are fewer words than what follows them, they are places or kinds.
    """
    parts = [BEFORE.fullmatch(name) for name in names]
    parts = [part if part and not SLICE.fullmatch(part["own"]) else None for part in parts]
    return [part and part["own"] for part in parts], len({part["place"] for part in parts if part})


def _up_to_number(names):
    """Return each name up to its first number if what follows is a time or the like: P1 of P1-dia, not 1 of 1a7."""
    parts = [re.fullmatch(r"(\D*\d+)?(.*)", name, re.DOTALL) for name in names]
    endings = Counter(part[2] for part in parts)
    is_time = [part[1] and part[2] and (endings[part[2]] > 1 or not part[2][0].isalnum()) for part in parts]
    return [part[1] if cut else part[0] for part, cut in zip(parts, is_time)]
