"""NIfTI volumes: read, and written as slices."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from course.workspace import CourseError

MAX_VOXELS = 2**28  # of one volume: 512 x 512 x 1024


def read_volume(path):
    """Read a 3-D NIfTI volume; return its values, its spacing in millimetres, one per axis, and where its axes run to.

    The last is a tuple such as ("R", "A", "S"), with None for what the header does not say.
    The values keep their dtype (float where the file scales them). Raises CourseError for a file that is
    no NIfTI, is damaged, has another number of axes than three, more than MAX_VOXELS voxels, or values that
    are not finite real numbers.
    """
    import nibabel

    try:
        volume = nibabel.load(path)
        shape = volume.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if len(shape) != 3:
            raise CourseError(
                f"{path.name} has {len(shape)} axes {tuple(shape)}; this course reads 3-D volumes of one "
                "channel: save the channel or time that you want as a 3-D file."
            )
        if np.prod(shape, dtype=np.int64) > MAX_VOXELS or 0 in shape:
            raise CourseError(f"{path.name} claims the size {tuple(shape)}: volumes have 1 to {MAX_VOXELS:,} voxels.")
        if volume.get_data_dtype().kind not in "iufb":
            raise CourseError(
                f"{path.name} holds {volume.get_data_dtype()} values: save it as grey values, one number a voxel."
            )
        values = np.asanyarray(volume.dataobj).reshape(shape)
        spacing = [float(step) for step in volume.header.get_zooms()[:3]]
        says = int(volume.header["sform_code"]) or int(volume.header["qform_code"])
        axes = nibabel.aff2axcodes(volume.affine) if says else (None,)
    except CourseError:
        raise
    except Exception as error:  # nibabel has no common error for a damaged file
        raise CourseError(f"{path.name} is damaged or no NIfTI file ({error}): copy it again.") from error
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise CourseError(f"{path.name} holds values that are not finite (NaN or infinite): mend the volume first.")
    return values, spacing, axes


def upright_slices(values, low=0):
    """Yield the slices of a volume as pictures: uint8 of shape (height, width).

    Slices run along the last axis and are turned upright by `numpy.rot90`. Intensities from `low` to the
    volume's maximum become 0 to 255, rounded, in the same way for all slices.
    """
    span = float(values.max()) - low
    for position in range(values.shape[-1]):
        grey = (values[..., position].astype(np.float64) - low) * (255 / span if span > 0 else 0)
        yield np.rot90(np.rint(grey).astype(np.uint8))


def foreground_values(foreground, names):
    """Return the numbers of the labels that are foreground, or None for "what is not background".

    `foreground` is None, a number, a name, or a list of these; `names` maps the names to numbers.
    Raises CourseError for a name that `names` does not have.
    """
    if foreground is None:
        return None
    chosen = [foreground] if isinstance(foreground, (int, float, str)) else list(foreground)
    for label in chosen:
        if isinstance(label, str) and label not in names:
            known = ", ".join(f"{name!r} ({number})" for name, number in names.items()) or "only numbers"
            raise CourseError(f"foreground={label!r} is not a label of this dataset: it knows {known}.")
    return {names[label] if isinstance(label, str) else label for label in chosen}


def read_label_names(folder):
    """Return the label names of a decathlon `dataset.json` as {name: number}, and the dataset's name.

    Both are empty where there is no such file. Raises CourseError for one that is not JSON.
    """
    path = Path(folder) / "dataset.json"
    if not path.is_file():
        return {}, ""
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CourseError(f"{path.name} is not readable as JSON ({error}): mend it or take it away.") from error
    labels = described.get("labels") if isinstance(described, dict) else None
    if not isinstance(labels, dict):
        return {}, ""
    names = {}
    for key, value in labels.items():  # {"1": "left atrium"}, or the other way round as nnU-Net writes it
        number, name = (key, value) if str(key).isdigit() else (value, key)
        if str(number).isdigit():
            names[str(name)] = int(number)
    return names, str(described.get("name", ""))


def write_slices(image, label, name, folder, foreground):
    """Write a pair of volumes as pairs of 8-bit RGB PNG, `folder/{images,masks}/NAME_SLICE.png`.

    `foreground` is a set of label numbers or None for all that are not 0. Masks are 0 or 255.
    Returns {"slices": number, "spacing": [row, column, slice] in mm, "axes": as `read_volume` gives them, "labels":
    set of numbers, "low": what became black}. Raises CourseError for volumes that do not fit together.
    """
    values, spacing, axes = read_volume(image)
    labels, _, label_axes = read_volume(label)
    if values.shape != labels.shape:
        raise CourseError(
            f"{image.name} has the shape {values.shape} but its labels {labels.shape}: "
            "they must be drawn on the same grid."
        )
    if all(axes + label_axes) and axes != label_axes:
        raise CourseError(
            f"The axes of {image.name} run to {', '.join(axes)}, those of its labels to {', '.join(label_axes)}: "
            "save both in one orientation."
        )
    present = {float(number) for number in np.unique(labels)}
    low = min(0.0, float(values.min()))
    for kind, pictures in (
        ("images", upright_slices(values, low)),
        ("masks", upright_slices(np.isin(labels, list(foreground or present - {0})) * np.uint8(1))),
    ):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).convert("RGB").save(folder / kind / f"{name}_{number:03d}.png", compress_level=3)
    return {
        "slices": values.shape[-1],
        "spacing": [spacing[1], spacing[0], spacing[2]],
        "axes": axes,
        "labels": present,
        "low": low,
    }
