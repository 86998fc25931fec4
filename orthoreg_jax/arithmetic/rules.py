"""Rules that say how to read each leaf of a pytree: as a matrix, as a factor, or not at all.

Rules are a dict from glob patterns over leaf paths to readings. A reading says which axes of a leaf
are rows and which are columns (`Matrix`), that the leaf is one of two factors (`Adapter`), or why
it is neither (`Skip`). The first pattern that matches a path applies; a pattern that matches no
leaf is an error. nnx ends its paths in "/value": patterns match with and without it.

A leaf without a rule is read by its type, its name and its axes. Integers and booleans are not
weights. Biases, scales, embeddings and the weights of normalisations are not matrices. Any other
leaf with 0 or 1 axes is not a matrix, and one with 2 axes is a matrix, (rows, columns). 3 or more
axes are an error: (layers, rows, columns), (rows, heads, head_dim) and a convolution look alike,
and a guess would drop or misread weights. LoRA's factors are an error, too, because neither factor
alone is an update.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

from .low_rank import LowRank, is_low_rank
from .paths import flatten
from .types import PyTree


@dataclasses.dataclass(frozen=True)
class Matrix:
    """The axes of a leaf that are rows (inputs) and columns (outputs, the features z = W^T x).

    Several axes are merged in the order given, e.g. `Matrix(rows=(0,), columns=(1, 2))` for a
    kernel of shape (d, heads, head_dim). Every other axis counts matrices: the default
    `Matrix()` reads (rows, columns), (layers, rows, columns), and so on.

    Examples:
      >>> heads = {"query": {"kernel": jnp.ones((6, 2, 3))}}
      >>> rules = {"query/kernel": oj.Matrix(rows=(0,), columns=(1, 2))}
      >>> print(f"{oj.orthogonality_penalty(heads, matrices=rules):.2f}")  # of one 6 x 6 matrix
      35.07
    """

    rows: tuple[int, ...] = (-2,)
    columns: tuple[int, ...] = (-1,)


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Two leaves that form one update, dW = scale * left @ right, as in LoRA.

    The pattern of this rule matches the path of the node that holds both: for leaves "q/lora_a" and
    "q/lora_b" it matches "q". Leading axes of the leaves stack matrices.

    Attributes:
      left: path below that node of the leaf of shape (..., m, r).
      right: path below that node of the leaf of shape (..., r, n).
      scale: alpha / r; always 1 in nnx, whose LoRA has no scale.
      transposed: whether the product is (outputs, inputs), as in PyTorch's layers and peft's
        adapters; where columns matter, its rows are taken.

    Examples:
      >>> factors = {"q": {"lora_a": jnp.ones((4, 1)), "lora_b": jnp.ones((1, 3))}}
      >>> print(oj.describe_matrices(factors, {"*": oj.Adapter("lora_a", "lora_b", scale=0.5)}))
      leaf      shape   read as
      q/lora_a  (4, 1)  left of 0.5 * left @ right: (4 rows, 3 columns)
      q/lora_b  (1, 3)  right of 0.5 * left @ right
    """

    left: str
    right: str
    scale: float = 1.0
    transposed: bool = False

    @property
    def reason(self) -> str:
        """Why neither leaf is a matrix."""
        return "one of an update's two factors"

    def node(self, path: str) -> str | None:
        """The path of the node whose left or right factor this leaf is; None if it is neither."""
        for factor in (self.left, self.right):
            if f"/{without_value(path)}".endswith(f"/{factor}"):
                return without_value(path)[: -len(factor)].rstrip("/")
        return None

    def update(self, left: Any, right: Any) -> LowRank:
        """The update that two factors form."""
        if self.transposed:
            left, right = jnp.swapaxes(right, -1, -2), jnp.swapaxes(left, -1, -2)
        return LowRank(left, right, self.scale)


@dataclasses.dataclass(frozen=True)
class Skip:
    """A leaf left out on purpose, and the reason, which the report shows.

    Attributes:
      reason: why.
      stacked: whether the first axis stacks tensors of several layers, such as their biases.
        Mergers with statistics over a tensor (`ties(over="tensor")`, `slerp`) then take each by
        itself, as in models whose layers are not stacked.

    Examples:
      >>> update = {"table": jnp.ones((9, 4)), "kernel": jnp.eye(4)}
      >>> print(oj.orthogonality_penalty(update, matrices={"table": oj.Skip("rows are looked up")}))
      0.0
    """

    reason: str
    stacked: bool = False


@dataclasses.dataclass(frozen=True)
class Unread:
    """A leaf that needs a rule but has none, and why."""

    reason: str


Reading = Matrix | Adapter | Skip

# Names of leaves that are vectors; further axes stack them or split them by heads.
VECTORS = ("bias", "scale", "offset", "gamma", "beta")
EMBEDDINGS = {"emb", "wte", "wpe"}  # parts of names of layers, besides all with "embed"
LORA_LEAVES = ("lora_a", "lora_b")  # the names in nnx and, in capitals, in peft
MOST = 12  # leaves listed in one message
ADVICE = (
    "give each a rule, by a pattern over its whole path, in matrices={PATTERN: READING}: Matrix() "
    "for (rows, columns) and stacked (layers, rows, columns), Matrix(rows=(0,), columns=(1, 2)) "
    "for (rows, heads, head_dim), Matrix(rows=(0, 1), columns=(2,)) for (heads, head_dim, "
    "columns), Matrix(rows=(0, 1, 2), columns=(3,)) for a convolution, Adapter('lora_a', 'lora_b') "
    "for two leaves that are one update, or Skip('why') to leave it out. "
    "`layer_rules(library, tree)` gives the rules for stock layers (spatial=2 for convolutions "
    "over images without bias), VISUAL_MATRICES those for a CLIP; `describe_matrices(tree, rules)` "
    "lists all leaves"
)
Rules = Mapping[str, Reading]


def without_value(path: str) -> str:
    """A leaf's path without the "/value" that nnx.Variable appends."""
    return path.removesuffix("/value")


def is_factor(path: str) -> bool:
    """Whether a leaf is named like a LoRA factor."""
    return not {*LORA_LEAVES}.isdisjoint(path.lower().split("/"))


def matches(path: str, pattern: str, reading: Reading | None = None) -> bool:
    """Whether a rule applies to a leaf."""
    if isinstance(reading, Adapter):
        node = reading.node(path)
        return node is not None and fnmatch.fnmatchcase(node, pattern)
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(without_value(path), pattern)


def read_leaf(path: str, leaf: Any, rules: Rules | None = None) -> Reading | Unread:
    """How to read the leaf at `path`: an array, its shape and type, or a `LowRank`.

    Raises:
      ValueError: a rule does not fit the leaf.
    """
    shape, dtype = shape_of(leaf), getattr(leaf, "dtype", type(leaf))
    weights = jnp.issubdtype(dtype, jnp.floating)
    for pattern, reading in (rules or {}).items():
        if matches(path, pattern, reading):
            if not isinstance(reading, Skip) and not weights:
                raise ValueError(
                    f"rule {pattern!r}: leaf {path!r} is {dtype}, not floating point, so not a "
                    "weight; give Skip('why'), or convert it"
                )
            if isinstance(reading, Matrix):
                _check_axes(path, shape, pattern, reading)
            return reading
    *parents, name = without_value(path).split("/")
    if not weights:
        return Skip(f"{dtype}: no weights")
    if len(shape) < 2:
        return Skip(f"{len(shape)}-D: a bias, scale or scalar")
    if name.lower() in VECTORS:
        return Skip("a bias or scale, by its name")
    if "embed" in name.lower():
        return Skip("an embedding, by its name")
    if is_factor(path):
        return Unread("named like one of LoRA's two factors, and one factor is not an update")
    if len(shape) > 2:
        return Unread("its axes can be read in several ways")
    if name in ("weight", "w") and parents:
        parent = parents[-1].lower()
        if "norm" in parent or parent.rstrip("_0123456789") == "ln":
            return Skip("the weight of a normalisation, by its name")
        if "embed" in parent or not EMBEDDINGS.isdisjoint(parent.split("_")):
            return Unread("named like an embedding, or a layer that makes one")
    return Matrix()


def read_leaves(leaves: Mapping[str, Any], rules: Rules | None = None) -> dict[str, Reading]:
    """How to read each of the given leaves.

    Raises:
      ValueError: leaves need a rule and have none (one message lists them all), or a rule does not
        fit.
    """
    check_rules(rules)
    readings = {path: read_leaf(path, leaf, rules) for path, leaf in leaves.items()}
    unread = {path: each for path, each in readings.items() if isinstance(each, Unread)}
    if unread:
        lines = [
            f"leaf {path!r} of shape {shape_of(leaves[path])} has no rule: {each.reason}"
            for path, each in unread.items()
        ]
        lines[MOST:] = [f"and {len(lines) - MOST} more leaves"] * (len(lines) > MOST)
        raise ValueError("\n  ".join([*lines, ADVICE]))
    return {path: each for path, each in readings.items() if not isinstance(each, Unread)}


def check_rules(rules: Any) -> None:
    """Checks that rules are a dict of readings, or None.

    Raises:
      ValueError: they are not.
    """
    if rules is not None and not isinstance(rules, Mapping):
        raise ValueError(
            f"matrices is a {type(rules).__name__}; give a dict from patterns to readings, such as "
            '{"*/kernel": Matrix()}'
        )
    for pattern, reading in (rules or {}).items():
        if not isinstance(reading, Reading):
            raise ValueError(
                f"rule {pattern!r} is {reading!r}; allowed: Matrix(...), Adapter(...), Skip('why')"
            )


def shape_of(leaf: Any) -> tuple[int, ...]:
    """Shape of an array, a shape and type, a number, or a `LowRank`."""
    return tuple(leaf.shape) if is_low_rank(leaf) else tuple(jnp.shape(leaf))


def _check_axes(path: str, shape: tuple[int, ...], pattern: str, reading: Matrix) -> None:
    axes = (*reading.rows, *reading.columns)
    inside = all(-len(shape) <= axis < len(shape) for axis in axes)
    distinct = inside and len({axis % len(shape) for axis in axes}) == len(axes)
    if not (distinct and reading.rows and reading.columns):
        raise ValueError(
            f"rule {pattern!r}: {reading} does not fit leaf {path!r} of shape {shape}; rows and "
            f"columns must name its axes, from {-len(shape)} to {len(shape) - 1}, each axis at "
            "most once"
        )


def unused_rules(tree: PyTree, rules: Rules) -> list[str]:
    """Patterns that match no leaf, not even one that an `optax.MaskedNode` may replace."""
    leaves = flatten(tree, is_low_rank)
    masked = [
        path for path, node in flatten(tree, _is_masked_or_low_rank).items() if is_masked(node)
    ]
    return [
        pattern
        for pattern, reading in rules.items()
        if not any(matches(path, pattern, reading) for path in leaves)
        and not any(_may_match_below(path, pattern) for path in masked)
    ]


def shadowed_rules(paths: Iterable[str], rules: Rules) -> list[str]:
    """Patterns that never apply, because a pattern before them matches each of their leaves."""
    applied = {
        next((pattern for pattern, each in rules.items() if matches(path, pattern, each)), None)
        for path in paths
    }
    return [pattern for pattern in rules if pattern not in applied]


def _may_match_below(path: str, pattern: str) -> bool:
    """Whether a pattern matches a path, or could match a longer one that starts with it."""
    starts = (pattern[:end] for end in range(1, len(pattern) + 1))
    return any(fnmatch.fnmatchcase(each, start) for start in starts for each in (path, f"{path}/"))


def is_masked(node: Any) -> bool:
    """Whether a node replaces leaves that were masked out; for `is_leaf=`."""
    return isinstance(node, optax.MaskedNode)


def _is_masked_or_low_rank(node: Any) -> bool:
    return is_masked(node) or is_low_rank(node)


def rules_for_part(tree: PyTree, rules: Rules) -> dict[str, Reading]:
    """The rules of a whole model that match a leaf of `tree`, which is part of that model."""
    unused = unused_rules(tree, rules)
    return {pattern: rules[pattern] for pattern in rules if pattern not in unused}
