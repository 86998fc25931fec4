"""The type of every merger: a function and its options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec

from jaxtyping import Array, Float

Options = ParamSpec("Options")

Cutoff = Callable[..., Float[Array, "*c"]]  # (leaves of a whole task vector, *options)


class Joint(NamedTuple):
    """Order statistics that each task vector has in view of all others.

    Attributes:
      values: (values, cutoffs, *options) -> what is ordered: of entries (t, n), (t, n) numbers.
      ranks: (entries of a task vector, *options) -> which statistics, from the smallest, 0.
    """

    values: Callable[..., Float[Array, "t n"]]
    ranks: Callable[..., tuple[int, ...]]


@dataclasses.dataclass(frozen=True, repr=False)
class Merger:
    """A merging method with its parameters: a value, made by a function such as `ties(k=20)`.

    Mergers with equal functions and options are equal, so that each is compiled once.

    Attributes:
      merge: (values, cutoffs, key, *options) -> merged. `values` stack one tensor of each of `t`
        task vectors, or a piece of it if `reads` is "entries".
      options: further arguments of `merge` and `cutoff`.
      reads: what the merger must see whole. "entries": nothing, entries are merged independently;
        "tensors": each matrix of a leaf, and each leaf that is not a matrix, for statistics over
        it; "matrices": the same, but leaves that are not matrices are averaged. "matrices" gets
        NumPy arrays, for LAPACK to decompose (see `decompositions`), unless they are traced.
      random: whether it draws, and so needs a key.
      cutoff: computes numbers from each whole task vector before merging, if needed.
      joint: computes further numbers from all vectors together, and appends them to the cutoffs;
        for mergers that read "entries".
      tasks: minimum number of task vectors.
      at_most: maximum number of task vectors; 0 means any number.
      call: the call that it prints as.
    """

    merge: Callable[..., Any]
    options: tuple[Any, ...] = ()
    reads: str = "entries"
    random: bool = False
    cutoff: Cutoff | None = None
    joint: Joint | None = None
    tasks: int = 1
    at_most: int = 0
    call: str = dataclasses.field(default="", compare=False)

    def __repr__(self) -> str:
        return self.call or getattr(self.merge, "__name__", "merger")


def shown_as_called(make: Callable[Options, Merger]) -> Callable[Options, Merger]:
    """Decorates a function so that its mergers print as the call, with all parameters."""

    @functools.wraps(make)
    def made(*args: Options.args, **kwargs: Options.kwargs) -> Merger:
        merger = make(*args, **kwargs)
        bound = inspect.signature(make).bind(*args, **kwargs)
        bound.apply_defaults()
        options = ", ".join(f"{name}={value!r}" for name, value in bound.arguments.items())
        return dataclasses.replace(merger, call=f"{make.__name__}({options})")

    return made
