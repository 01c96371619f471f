"""Unite several masks of one image, and decide which mask values are the structure."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from course.nifti import MANY_LABELS
from course.notes import refuse, sentences_about
from course.pictures import Pair, check_palettes, read_picture
from course.workspace import CourseError, end_of_path, listed, parallel

EDGE_REACH = 8  # pixels within which a blurred value has both background and structure; the size of a JPEG block
LOOKED_AT = 40  # masks that are read again to tell blur from labels
NOISE = 8  # greys by which JPEG may change a pixel
TIP = 9  # pixels: a faint area no larger than this may be the blurred tip of a structure


def unite_masks(
    pairs: list[Pair], masks: dict[tuple, list[Path]], chosen: set | None, folder: Path, progress: bool
) -> list[Pair]:
    """Unite the masks of each image that has several, in a new file below `folder`; return the pairs with these masks.

    masks: {(subset, name): paths}. Where they overlap, the `chosen` labels (a set or None) win, else the larger labels.
    The new file keeps the name and last folders of the first mask, so that messages name it. Raises CourseError if the
    masks of one image differ in size, and as `check_palettes` does.
    """
    if all(len(masks[pair.subset, pair.name]) == 1 for pair in pairs):
        return pairs

    def unite(pair):
        """Return a pair with its united mask, and the palettes of all its masks."""
        paths = masks[pair.subset, pair.name]
        pictures = [read_picture(path, labels=True) for path in paths]
        palettes = [(path, picture.palette) for path, picture in zip(paths, pictures)]
        if len(paths) == 1:
            return pair, palettes
        parts = [picture.pixels for picture in pictures]
        for path, part in zip(paths, parts):
            if part.shape != parts[0].shape:
                two = f"{end_of_path(paths[0])} and {end_of_path(path)}"
                raise CourseError(f"{two} are masks of one image but differ in size: correct them.")
        united = np.maximum.reduce(parts)
        for part in parts:
            united = np.where(np.isin(part, list(chosen or ())), part, united)
        target = folder.joinpath(pair.subset or "all", pair.name, *paths[0].parts[1:][-3:])
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(united).save(target, "PNG" if united.dtype in (np.uint8, np.uint16) else "TIFF")
        return replace(pair, mask=target), palettes

    united = parallel(unite, pairs, "uniting masks", progress)
    check_palettes([palette for _, palettes in united for palette in palettes])
    return [pair for pair, _ in united]


def choose_foreground(pairs: list[Pair], chosen: set | None) -> tuple[Callable | None, list, list[str]]:
    """Decide which mask values are the structure; return (is_foreground, mask_values, notes).

    chosen: the set of values that the user gave, or None. is_foreground: a function from pixels to bool, or None if all
    masks are plain pictures of the two mask_values, [background, foreground]. Raises CourseError if it is unclear.
    """
    counts = _counts(pairs)
    values = sorted(counts)
    low, high = values[0], values[-1]
    blurred = [pair for pair in pairs if len(pair.facts.mask_values) > 2]
    is_blur = chosen in (None, {low}, {high}) and bool(blurred) and _is_blur(blurred, counts)
    if chosen is not None and not is_blur:
        if not chosen <= set(values) or chosen == set(values):
            raise CourseError(
                f"foreground={sorted(chosen)} does not divide the masks' values into structure and background: choose "
                f"some, not all, of {listed(values)}."
            )
        return (lambda pixels: np.isin(pixels, list(chosen))), [0, 255], chosen_sentences(chosen, values)
    if len(values) == 1:
        lesser = " If several masks of one image show it as the smaller value, choose that value with foreground=..."
        raise CourseError(
            f"All masks are {'full' if low else 'empty'}: {end_of_path(pairs[0].mask)} and the others hold only the "
            f"value {listed([low])}. Give masks in which the structure is drawn.{lesser if low else ''}"
        )
    if len(values) == 2:
        plain = all(pair.facts.mask_plain for pair in pairs)
        notes = _inverted(pairs, counts, high, f"the value {listed([high])}")
        noisy = [pair.mask for pair in pairs if pair.facts.lossy and high - low <= NOISE]
        what = f"is a JPEG of the values {low:g} and {high:g}, which are so close that JPEG noise may mix them up"
        advice = "check that the outlines in 01 fit. If they do not, save the masks again as PNG."
        notes += sentences_about(noisy, what, advice)
        return (None, values, notes) if plain else ((lambda pixels: pixels == high), [0, 255], notes)
    if not is_blur:
        if 0 < 2 * len(blurred) < len(pairs):
            what = f"holds more than two values, unlike most masks (all together hold {listed(values)})"
            advice = (
                f"correct or exclude it, or choose the structure's values with foreground=[...]{_hint(pairs, values)}."
            )
            refuse([pair.mask for pair in blurred], what, advice)
        example = max(pairs, key=lambda pair: len(pair.facts.mask_values))
        raise CourseError(
            f"{end_of_path(example.mask)} and other masks hold {len(values)} values ({listed(values)}), but two are "
            f"expected. Choose the structure's values with foreground=[...], or give masks of two values"
            f"{_hint(pairs, values)}."
        )
    threshold = (low + high) / 2
    _refuse_faint(pairs, threshold, high)
    side = "below" if chosen == {low} else "above"
    advice = f"the values {side} {threshold:g} were taken as the structure."
    notes = sentences_about([pair.mask for pair in blurred], "is blurred, so it has more than two values", advice)
    notes += [] if chosen else _inverted(pairs, counts, threshold, f"what is above {threshold:g}")
    return (lambda pixels: (pixels > threshold) == (side == "above")), [0, 255], notes


def refuse_views(pairs: list[Pair], neither: list[Path]) -> None:
    """Raise CourseError if all masks look like fields of view, and at least as many pictures were passed over.

    neither: the pictures that are neither images nor masks; the real masks may be among them. A field of view covers
    most of its picture, but not its whole border.
    """

    def is_view(facts):
        """Tell whether most pixels of a mask are bright, and its smallest value occurs on the border."""
        least, middle = min(facts.mask_values), (min(facts.mask_values) + max(facts.mask_values)) / 2
        bright = sum(count for value, count in facts.mask_values.items() if value > middle)
        return 2 * bright > facts.size[0] * facts.size[1] and least in facts.border_values

    if len(neither) >= len(pairs) and all(is_view(pair.facts) for pair in pairs):
        advice = (
            f"if {end_of_path(min(neither))} and the like show the structure, put them into masks/, else elsewhere."
        )
        what = "covers most of its picture, as a field of view does"
        refuse([pair.mask for pair in pairs], what, advice)


def _counts(pairs):
    """Return for each value how many pixels of all masks have it, as a Counter."""
    return sum((Counter(pair.facts.mask_values) for pair in pairs), Counter())


def _refuse_faint(pairs, threshold, high):
    """Raise CourseError for sharp masks drawn in a value so low that blurred masks count it as background."""
    faint = []
    for pair in pairs:
        values = pair.facts.mask_values
        if len(values) == 2 and not pair.facts.lossy and max(values) <= threshold and values[max(values)] > TIP:
            faint.append(pair.mask)
    what = f"holds two values, neither above {threshold:g}, but other masks are blurred and reach {high:g}"
    refuse(faint, what, "save all masks with the same two values.")


def _hint(pairs, values):
    """Return the end of a sentence on masks with several values: what the values may be, and their colours."""
    if any(len(set(pair.facts.mask_values) - {values[0]}) > 1 for pair in pairs):
        hint = ignored_hint(values)
    else:
        hint = f". No mask holds two of them besides {listed(values[:1])}, so they may all be one structure"
    colours = {label: colour[:3] for pair in pairs for colour, label in pair.facts.palette.items() if colour[3]}
    if any(len(set(colour)) > 1 for colour in colours.values()):
        hint += f". Their colours are {listed([f'{label} {colours[label]}' for label in sorted(colours)])}"
    return hint


def ignored_hint(values: list) -> str:
    """Return the end of a sentence if values hold -1, or 255 beside small numbers, often "ignore" labels; else ''."""
    is_apart = not any(100 < value < 255 for value in values)
    ignored = [value for value in (-1, 255) if value in values and (value < 0 or is_apart)]
    return f". {listed(ignored)} often means 'do not score'" if ignored else ""


def chosen_sentences(chosen: set | None, values: list) -> list[str]:
    """Return a list with a sentence on which mask values were chosen; empty if there are only two values."""
    if len(values) <= 2:
        return []
    rest = listed([value for value in values if value not in chosen])
    return [f"Of the masks' values you chose {listed(sorted(chosen))} as the structure. The background is {rest}."]


def _inverted(pairs, counts, least, words):
    """Return a list with a note if the foreground, values from `least` on, covers most pixels or most borders.

    The list is empty if it does not, or if the whole border of most pictures is background.
    """
    share, low = sum(count for value, count in counts.items() if value >= least) / counts.total(), min(counts)
    borders = [{value >= least for value in pair.facts.border_values} for pair in pairs]
    within, around = (2 * borders.count({is_foreground}) > len(pairs) for is_foreground in (False, True))
    if within or not (share > 0.5 or around):
        return []
    border = " and the borders of most" if around else ""
    return [
        f"The masks may be inverted: {words} was taken as the structure, but covers {share:.0%} of the pictures{border}"
        f". If the structure is the rest, give foreground={listed([low])}."
    ]


def _is_blur(pairs, counts):
    """Tell whether the values between the smallest and the largest are blurred edges, not labels.

    Blurred pixels are fewer than the structure's and spread over many values. Each lies near both background and
    structure or, if there are few values, as in a mask reduced to half its size, next to both.
    """
    from scipy import ndimage

    low, high = min(counts), max(counts)
    dark, bright = low + (high - low) / 4, high - (high - low) / 4
    few = len(counts) <= MANY_LABELS and not any(pair.facts.lossy for pair in pairs)
    blurred = _counts(pairs)
    least, most = (low, high) if few else (dark, bright)
    between = {value: count for value, count in blurred.items() if least < value < most}
    amount, above = sum(between.values()), sum(count for value, count in blurred.items() if value > bright)
    band = (high - low) / 8
    densest = [sum(n for other, n in between.items() if 0 <= other - value <= band) for value in between]
    is_label = 2 * max(densest, default=0) >= amount  # mostly one value
    if amount > above or (is_label and (few or amount > above / 10)):
        return False
    margin = 0 if few else (high - low) / 50  # JPEG noise in even areas
    near_both = total = 0
    for pair in pairs[:: max(1, len(pairs) // LOOKED_AT)]:
        pixels = read_picture(pair.mask, labels=True).pixels
        middle = (pixels > low + margin) & (pixels < high - margin)
        size = 3 if few else 2 * EDGE_REACH + 1
        near = (ndimage.minimum_filter(pixels, size) < dark) & (ndimage.maximum_filter(pixels, size) > bright)
        near_both += np.count_nonzero(near & middle)
        total += np.count_nonzero(middle)
    return near_both >= 0.95 * total
