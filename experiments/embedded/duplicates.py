"""Finds drawings that show (nearly) the same picture, regardless of colours and margins."""

import numpy as np
from PIL import Image

# From this cosine of two descriptors on, pictures count as twins. It was chosen by looking at
# pairs: above it they are one drawing, or one redrawn; below it their shapes begin to differ.
NEAR = 0.93
# From this cosine on they are one drawing, exported twice.
SAME = 0.98
_SIDE = 16


def descriptors(dark: np.ndarray) -> np.ndarray:
    """Describes pictures by their ink only: cropped to it, 16x16, zero mean, unit length.

    Args:
      dark: (N, H, W) uint8, 0 for paper.

    Returns:
      (N, 256) float32; the dot product of two rows is 1 for the same picture.
    """
    out = np.empty((len(dark), _SIDE * _SIDE), np.float32)
    for row, picture in enumerate(dark):
        ys, xs = np.nonzero(picture > 48)
        if len(ys) == 0:
            ys = xs = np.array([0, picture.shape[0] - 1])
        # A square around the ink preserves wide and tall shapes.
        half = max(np.ptp(ys), np.ptp(xs)) / 2 + 0.5
        y, x = (ys.min() + ys.max() + 1) / 2, (xs.min() + xs.max() + 1) / 2
        padded = Image.fromarray(np.pad(picture, 16))
        box = (x - half + 16, y - half + 16, x + half + 16, y + half + 16)
        small = padded.resize((_SIDE, _SIDE), Image.Resampling.BOX, box=box)
        out[row] = np.asarray(small, np.float32).reshape(-1)
    out -= out.mean(axis=1, keepdims=True)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-6)


def nearest(queries: np.ndarray, base: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each query, the cosine and row of the most similar descriptor of the base."""
    cosine, where = np.full(len(queries), -1.0, np.float32), np.zeros(len(queries), np.int64)
    if not len(base):
        return cosine, where
    for start in range(0, len(queries), 1024):
        products = queries[start : start + 1024] @ base.T
        best = products.argmax(axis=1)
        where[start : start + 1024] = best
        cosine[start : start + 1024] = products[np.arange(len(best)), best]
    return cosine, where


def first_of_twins(described: np.ndarray, groups: list, near: float = SAME) -> np.ndarray:
    """Which rows to keep so that no group has twins: the first of them stays.

    Groups (such as concepts) keep this cheap, because only pictures of one group are compared.
    """
    keep = np.ones(len(described), bool)
    rows_of: dict = {}
    for row, group in enumerate(groups):
        rows_of.setdefault(group, []).append(row)
    for rows in rows_of.values():
        similar = described[rows] @ described[rows].T > near
        for position, row in enumerate(rows):
            earlier = [rows[other] for other in np.nonzero(similar[position, :position])[0]]
            keep[row] = not any(keep[other] for other in earlier)
    return keep
