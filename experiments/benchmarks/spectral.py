r"""Cost of mergers that decompose matrices, compared with LAPACK's and XLA's own decompositions.

    python experiments/benchmarks/spectral.py --rounds 3

It measures the singular value decomposition of one MLP kernel, in float32, with singular values
that fall from 1 to 1e-3; and each merger of five such kernels of the embedded model, or eight of
the others, with its formula and different decompositions. All ways take turns. The error is the
Frobenius norm of the difference from the formula with LAPACK's decomposition in float64, relative
to that result. "Traced" is what the package does inside `jax.jit`, on the device named above. Ways
that take longer than --limit seconds in the first round are not measured again. If PyTorch is
installed, its decomposition takes turns, too. Writes experiments/results/spectral.md and .json; on
devices other than a CPU, spectral_DEVICE.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from measuring import medians, write_page

from orthoreg_jax.arithmetic.decompositions import Svd, svd
from orthoreg_jax.merging import MERGERS, directions, merge_task_vectors
from orthoreg_jax.reporting.tables import NONE, markdown_rows

KERNELS = {"embedded": (256, 1024, 5), "ViT-B/32": (768, 3072, 8), "ViT-L/14": (1024, 4096, 8)}
NAMES = ("tsv_m", "iso_c", "iso_cts")
HERE, TRACED, NUMPY, WIDE = "this package", "traced", "NumPy's SVD", "NumPy's SVD, float64"


def kernels(rows: int, columns: int, count: int) -> list[np.ndarray]:
    """Matrices in random directions whose singular values decay like those of updates."""
    rng, values = np.random.default_rng(0), np.logspace(0, -3, rows)
    found = []
    for _ in range(count):
        left = np.linalg.qr(rng.normal(size=(rows, rows)))[0]
        right = np.linalg.qr(rng.normal(size=(columns, rows)))[0]
        found.append((left * values @ right.T).astype(np.float32))
    return found


def numpy_svd(matrices: Any, rank: int | None = None) -> Svd:
    """LAPACK's decomposition, with its default number of threads."""
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    return Svd(left[..., :rank], values[:, :rank], right[:, :rank])


def torch_svd(matrices: Any, rank: int | None = None) -> Svd:
    """PyTorch's decomposition, on its GPU if it has one."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = torch.linalg.svd(torch.from_numpy(matrices).to(device), full_matrices=False)
    left, values, right = (part.cpu().numpy() for part in parts)
    return Svd(left[..., :rank], values[:, :rank], right[:, :rank])


def wide_svd(matrices: Any) -> Any:
    """The package's decomposition on the host (Gram matrix in float64), but traced."""
    with jax.enable_x64(True):
        wide = matrices.astype("float64")
        squares, left = jnp.linalg.eigh(wide @ wide.mT)
        right = left.mT @ wide
        return left.astype("float32"), squares.astype("float32"), right.astype("float32")


@contextlib.contextmanager
def decomposed_by(function: Callable[..., Svd]) -> Iterator[None]:
    """Makes mergers decompose matrices by another function."""
    directions.svd, own = function, directions.svd
    try:
        yield
    finally:
        directions.svd = own


def ways_to_decompose(matrix: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Ways to decompose a matrix; each returns when it is done."""
    there = jnp.asarray(matrix)
    traced, gram = jax.jit(lambda matrix: svd(matrix[None])), jax.jit(wide_svd)
    return {
        HERE: lambda: svd(matrix[None]),
        TRACED: lambda: traced(there),
        "XLA's eigh of the Gram matrix, float64": lambda: gram(there[None]),
        NUMPY: lambda: numpy_svd(matrix[None]),
        WIDE: lambda: numpy_svd(matrix[None].astype(np.float64)),
        **({"PyTorch's SVD": lambda: torch_svd(matrix[None])} if has_torch() else {}),
    }


def ways_to_merge(name: str, vectors: list[np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Ways to merge kernels; each returns the merged kernel."""
    trees, merger = [{"w": vector} for vector in vectors], MERGERS[name]()
    wide = [{"w": vector.astype(np.float64)} for vector in vectors]
    merge = functools.partial(merge_task_vectors, merger=merger)
    traced = jax.jit(merge)
    placed = jax.tree.map(jnp.asarray, trees)

    def by(function: Callable[..., Svd], trees: Any) -> Any:
        with decomposed_by(function):
            return merge(trees)["w"]

    return {
        HERE: lambda: merge(trees)["w"],
        TRACED: lambda: traced(placed)["w"],
        NUMPY: lambda: by(numpy_svd, trees),
        WIDE: lambda: by(numpy_svd, wide),
        **({"PyTorch's SVD": lambda: by(torch_svd, trees)} if has_torch() else {}),
    }


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch)


def timed(
    ways: dict[str, Callable[[], Any]], rounds: int, limit: float
) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of each way, and its result."""
    seconds, found, quick = {}, {}, {}
    for name, way in ways.items():
        began = time.perf_counter()
        found[name] = jax.block_until_ready(way())
        seconds[name] = time.perf_counter() - began
        if seconds[name] < limit:
            quick[name] = way
    return seconds | medians(quick, rounds), found


def measure(models: list[str], rounds: int, limit: float) -> list[dict[str, Any]]:
    """A row for each kernel, operation and way."""
    rows = []
    for model in models:
        height, width, tasks = KERNELS[model]
        vectors = kernels(height, width, tasks)
        subject = {"model": model, "rows": height, "columns": width}
        seconds, _ = timed(ways_to_decompose(vectors[0]), rounds, limit)
        rows += [
            {**subject, "what": "svd", "way": way, "seconds": value, "error": None}
            for way, value in seconds.items()
        ]
        for name in NAMES:
            seconds, found = timed(ways_to_merge(name, vectors), rounds, limit)
            expected = np.asarray(found[WIDE], np.float64)
            rows += [
                {
                    **subject,
                    "what": f"{name} of {tasks}",
                    "way": way,
                    "seconds": value,
                    "error": float(
                        np.linalg.norm(found[way] - expected) / np.linalg.norm(expected)
                    ),
                }
                for way, value in seconds.items()
            ]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows, and the time of each relative to the package's."""
    own = {(row["model"], row["what"]): row["seconds"] for row in rows if row["way"] == HERE}
    cells = [
        [
            f"{row['model']}, {row['rows']} x {row['columns']}",
            row["what"],
            row["way"],
            f"{row['seconds']:.3f}",
            f"{row['seconds'] / own[row['model'], row['what']]:.1f}",
            NONE if row["error"] is None else f"{row['error']:.1e}",
        ]
        for row in rows
    ]
    return markdown_rows(("kernel", "", "by", "seconds", f"/ {HERE}", "error"), cells)


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(KERNELS)[:2], choices=list(KERNELS))
    parser.add_argument("--limit", type=float, default=60.0)
    options = parser.parse_args()
    rows = measure(options.models, options.rounds, options.limit)
    device = jax.devices()[0]
    suffix = "" if device.platform == "cpu" else "_" + device.device_kind.replace(" ", "-")
    write_page(f"spectral{suffix}", "Cost of mergers that decompose matrices", rows, table(rows))


if __name__ == "__main__":
    main()
