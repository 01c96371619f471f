"""How the values of a scan become grey values from 0 (black) to 255 (white)."""

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from course.notes import told_sentences

TAIL = 0.005  # share of the values, at either end, that may be outliers
OUTLIER = 4  # an outlier lies this many times as far out as the other values
FEW = 0.025  # share of the values, at either end, that a marker or an implant may take
DARK = 0.1 * 255  # pictures with no grey above it are nearly black; pictures with fewer greys have almost no contrast


class GreyRange(NamedTuple):
    """How the values of a picture or volume are spread."""

    low: float
    dark: float  # TAIL of the values are below it
    bright: float  # TAIL of the values are above it
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> "GreyRange":
        """Measure an array of finite values.

        If at least TAIL of them are the lowest value, a black background, `dark` is measured on the others; if nearly
        all are, `bright` is too.
        """
        flat = values.ravel()
        first, last = _tails(flat)
        low, high = flat.min(), flat.max()
        if first == low < high:
            first, bright = _tails(flat[flat > low])
            last = bright if last == low else last
        return cls(*(float(value) for value in (low, first, last, high)))

    @classmethod
    def widest(cls, ranges: list["GreyRange"]) -> "GreyRange":
        """Return the range that covers several ranges."""
        low, dark, bright, high = zip(*ranges)
        return cls(min(low), min(dark), max(bright), max(high))

    def window(self) -> tuple[float, float, tuple[str, ...]]:
        """Return (value that becomes black, value that becomes white, keys of `TOLD` that must be reported).

        Black is 0, or the lowest value if that is negative or more than half of the highest. White is the highest.
        Outliers are clipped if they would leave the other values only a quarter of the greys.
        """
        black, told = min(0.0, self.low), ()
        if black < 0 and self.bright - black > OUTLIER * (self.bright - self.dark) > 0:
            black, told = min(0.0, self.dark), ("dark_outlier",)
        elif black < 0:
            told = ("negative",)
        elif self.low < self.high < 2 * self.low:
            black, told = self.low, ("offset",)
        if self.high - black > OUTLIER * (self.bright - black) > 0:
            return black, self.bright, (*told, "bright_outlier")
        return black, self.high, told


def _tails(flat):
    return np.quantile(flat, (TAIL, 1 - TAIL), method="nearest")


def to_greys(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Scale values to uint8, rounded: `black` and below become 0, `white` and above become 255."""
    greys = (values.astype(np.float64) - black) * (255 / (white - black) if white > black else 0)
    return np.rint(np.clip(greys, 0, 255)).astype(np.uint8)


def greys_of(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Scale an array by its own `window`; return (uint8 array, keys of `TOLD` that must be reported)."""
    black, white, told = GreyRange.of(values).window()
    return to_greys(values, black, white), told


def grey_windows(pairs: list) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Return {patient: (black, white)} for images of more than 8 bits, and the sentences that report it.

    pairs: with their facts. All pictures of a patient share one window, so that they can be compared.
    """
    deep = defaultdict(list)
    for pair in pairs:
        if pair.facts.deep:
            deep[pair.patient].append(pair)
    windows, told = {}, {}
    for patient, group in deep.items():
        black, white, told[group[0].image] = GreyRange.widest([pair.facts.greys for pair in group]).window()
        windows[patient] = black, white
    return windows, told_sentences(told)


def are_crowded(values: np.ndarray) -> bool:
    """Tell whether a FEW extreme values, such as a marker's, leave all others a quarter of the greys or less.

    False if nearly all values are the same: the others may be what the picture shows.
    """
    step = values.size // 2**13 | 1  # odd, so that it samples all columns
    some = np.sort(values.ravel()[::step]).astype(float)
    few, middle = max(1, round(FEW * some.size)), some[some.size // 2]  # of the background, if that is over half
    others = some[(some != middle) & (some != some[-1])][few:-few]
    span = max(middle, others[-1]) - min(middle, others[0]) if others.size else 0
    return bool(0 < OUTLIER * span <= float(values.max()) - float(values.min()))


def crowded_sentences(pairs: list) -> list[str]:
    """Return the sentence on patients all of whose pictures are crowded; pairs: before conversion."""
    free = {pair.patient for pair in pairs if not pair.facts.crowded}
    return told_sentences({pair.image: ("crowded",) for pair in pairs if pair.patient not in free})


def faint_sentences(pairs: list) -> list[str]:
    """Return the sentences on patients whose converted pictures are all dark, or all nearly one grey."""
    darkest, brightest, told = defaultdict(lambda: 255.0), defaultdict(float), {}
    for pair in pairs:
        darkest[pair.patient] = min(darkest[pair.patient], pair.facts.greys.low)
        brightest[pair.patient] = max(brightest[pair.patient], pair.facts.greys.bright)
    for pair in pairs:
        bright = brightest[pair.patient]
        if bright - darkest[pair.patient] < DARK and not pair.facts.is_constant:
            told[pair.image] = ("very_dark" if bright < DARK else "no_contrast",)
    return told_sentences(told)
