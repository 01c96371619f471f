"""The colour and extent of an outline in a figure."""

import numpy as np
from matplotlib.colors import to_hex


def color_of(outline):
    return to_hex(outline.get_edgecolor()[0]).upper()


def extent(outline):
    """(left, right, top, bottom) of a contour: half way between the pixels inside and those outside."""
    corners = np.concatenate([path.vertices for path in outline.get_paths()])
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return left, right, top, bottom
