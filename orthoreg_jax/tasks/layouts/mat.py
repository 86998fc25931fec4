"""Matlab files: SVHN, and the labels and splits of Stanford Cars and Flowers102."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from orthoreg_jax.extras import install

from ..catalogue import entries
from ..class_names import ClassNames
from ..folder import FileImages
from ..notes import listed, shown
from ..split import ArrayImages, Split


def read_mat(path: pathlib.Path, *names: str) -> list[Any]:
    """Reads variables of a Matlab file, without axes of length 1.

    Raises:
      ValueError: the file cannot be read, or lacks a variable.
    """
    try:
        import scipy.io
    except ImportError as error:
        raise ValueError(
            f"reading Matlab's files needs scipy, which is not installed: {install('data')}"
        ) from error
    try:
        content = scipy.io.loadmat(str(path), squeeze_me=True, variable_names=names)
    except Exception as error:  # scipy raises many kinds for damaged files
        raise ValueError(f"{shown(path)}: cannot be read ({error}); copy it again") from error
    if missing := [name for name in names if name not in content]:
        raise ValueError(f"{shown(path)}: holds no {listed(missing)}; copy it again")
    return [content[name] for name in names]


def read_svhn(folder: pathlib.Path, split: str) -> Split:
    """SVHN's cropped digits: X (32, 32, 3, n) and y, where 10 is the digit 0."""
    path = folder / f"{split}_32x32.mat"
    pixels, labels = read_mat(path, "X", "y")
    labels = np.atleast_1d(labels)
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.shape[2:] != (3, len(labels)):
        raise ValueError(
            f"{shown(path)}: X is {pixels.dtype} of shape {pixels.shape} and y of {labels.shape}; "
            "copy it again"
        )
    if len(labels) and not 1 <= labels.min() <= labels.max() <= 10:
        raise ValueError(f"{shown(path)}: its labels run from {labels.min()} to {labels.max()}, "
                         "not from 1 to 10; copy it again")  # fmt: skip
    images = ArrayImages(np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)))
    return Split(images, labels.astype(np.int32) % 10)


def read_cars(folder: pathlib.Path, split: str) -> Split:
    """Stanford Cars: annotations with file names, and classes counted from 1."""
    annotations = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    (rows,) = read_mat(folder / annotations[split], "annotations")
    (names,) = read_mat(folder / "devkit" / "cars_meta.mat", "class_names")
    entry = entries()["cars"]
    known = ClassNames(entry["labels"], entry["classes"])
    places = [known.find(str(name)) for name in np.atleast_1d(names)]
    if sorted(place for place in places if place is not None) != list(range(len(known.labels))):
        strange = [str(name) for name, place in zip(names, places, strict=True) if place is None]
        raise ValueError(
            f"{shown(folder)}: its devkit has {len(places)} classes, among them "
            f"{listed(strange) or 'some twice'}, which are not the 196 of the task"
        )
    rows = np.atleast_1d(rows)
    if not {"class", "fname"} <= set(rows.dtype.names or ()):
        raise ValueError(
            f"{shown(folder / annotations[split])}: has no labels; the file with them is "
            "cars_test_annos_withlabels.mat"
        )
    numbers = np.array([int(number) for number in rows["class"]], np.int32) - 1
    paths = [f"cars_{split}/{name}" for name in rows["fname"]]
    return _listed(folder, paths, np.array(places, np.int32)[numbers])


def read_flowers(folder: pathlib.Path, split: str) -> Split:
    """Flowers102: a label from 1 for each image, and the image numbers of each split."""
    (labels,) = read_mat(folder / "imagelabels.mat", "labels")
    (numbers,) = read_mat(folder / "setid.mat", {"train": "trnid", "test": "tstid"}[split])
    numbers = np.atleast_1d(numbers).astype(np.int64)
    if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= len(labels):
        raise ValueError(
            f"{shown(folder)}: setid.mat names image {numbers.max()}, and imagelabels.mat has "
            f"{len(labels)} labels; copy both again"
        )
    paths = [f"jpg/image_{number:05d}.jpg" for number in numbers]
    return _listed(folder, paths, labels[numbers - 1].astype(np.int32) - 1)


def _listed(folder: pathlib.Path, paths: list[str], labels: np.ndarray) -> Split:
    return Split(FileImages(folder, tuple(paths)), labels)
