"""Peak rates of the device."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from measuring import queued_seconds

from orthoreg_jax.reporting.tables import markdown_rows

from .part import SETTINGS, Cell, Part, Parts, Row, done, number


def cells(dry: bool) -> list[Cell]:
    """A large product in each setting, and a copy."""
    return [{"setting": name, "side": 256 if dry else 8192} for name in SETTINGS]


def measure(cell: Cell, _: Any) -> list[Row]:
    """Operations per second of a product of square matrices; bytes per second of a negation."""
    precision, dtype = SETTINGS[cell["setting"]]
    side = cell["side"]
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
    product = jax.jit(functools.partial(jnp.matmul, precision=precision))
    negative = jax.jit(jnp.negative)
    seconds = queued_seconds(lambda: product(square, square))
    copying = queued_seconds(lambda: negative(square), 10)
    return [
        cell | {"tflops": 2 * side**3 / seconds / 1e12, "copied": 2 * square.nbytes / copying / 1e9}
    ]


def table(parts: Parts) -> list[str]:
    """Rates of products and copies."""
    rows = [
        [row["setting"], str(row["side"]), number(row["tflops"]), number(row["copied"], ".0f")]
        for row in done(parts, "peaks")
    ]
    return [markdown_rows(("", "side", "TFLOP/s", "read and written, GB/s"), rows)]


PART = Part("What the device can do", cells, measure, table, 30, 25)
