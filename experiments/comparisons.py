"""Comparisons: rows of candidates, in groups whose first row is the baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from published import PLACEMENT
from trials import Found

from orthoreg_jax.config import ORTHOREG, PLUS

# With lambda near 0, tauJp's E ||J tau||^2 ends near 100, TAK's form near 60, the loss near 0.1.
STRENGTHS = {
    "orthoreg": (0.1, 1.0, 10.0, 100.0),
    "taujp": (0.001, 0.01, 0.1, 1.0),
    "tak": (0.001, 0.01, 0.1, 1.0),
}


class Candidate(NamedTuple):
    """One setting of a method.

    Attributes:
      method: as in a config's `methods`.
      strengths: lambda of each of its penalties, in order.
      options: other options, for example ("lora.placement=qv",).
    """

    method: str
    strengths: tuple[float, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def lambdas(self) -> str:
        """For example "0.1 / 0.01"; "0" without a penalty."""
        return " / ".join(f"{value:g}" for value in self.strengths) or "0"


# Candidates of a row, given the candidate chosen in each earlier row and its trial.
Candidates = Callable[[dict[str, tuple[Candidate, Found]]], list[Candidate]]


class Group(NamedTuple):
    """Rows that are compared with the first of them.

    Attributes:
      name: name in tables.
      rows: row name -> candidates.
      published: the paper's Abs of the baseline and with OrthoReg, if it reports them.
    """

    name: str
    rows: dict[str, Candidates]
    published: tuple[float, float] | None = None


def fixed(*candidates: Candidate) -> Candidates:
    """Candidates that do not depend on other rows."""
    return lambda chosen: list(candidates)


def penalised(method: str, penalty: str, *options: str) -> Candidates:
    """A method with one penalty, at each of its strengths."""
    return fixed(
        *(Candidate(f"{method}{PLUS}{penalty}", (value,), options) for value in STRENGTHS[penalty])
    )


def with_better_rival(chosen: dict[str, tuple[Candidate, Found]]) -> list[Candidate]:
    """OrthoReg with the rival that is better on validation, at the rival's lambda."""
    rival, _ = max((chosen["taujp"], chosen["tak"]), key=lambda each: each[1]["val Abs"])
    method = rival.method.replace(PLUS, f"{ORTHOREG}{PLUS}")
    return [Candidate(method, (value, *rival.strengths)) for value in STRENGTHS["orthoreg"]]


def rivals(mode: str) -> Group:
    """OrthoReg, penalties that know the other tasks, and OrthoReg with the better of those."""
    return Group(
        mode,
        {"none": fixed(Candidate(mode))}
        | {name: penalised(mode, name) for name in STRENGTHS}
        | {"both": with_better_rival},
    )


def placement(place: str) -> Group:
    """LoRA with adapters on certain kernels (the paper's table 6)."""
    option = f"lora.placement={place}"
    return Group(
        place,
        {
            "none": fixed(Candidate("lora", (), (option,))),
            "orthoreg": penalised("lora", "orthoreg", option),
        },
        PLACEMENT[place],
    )


class Comparison(NamedTuple):
    """A page of comparisons.

    Attributes:
      title: first line of the page.
      group: makes the group of a name.
      groups: names of the groups that are compared by default.
    """

    title: str
    group: Callable[[str], Group]
    groups: tuple[str, ...]


COMPARISONS = {
    "rivals": Comparison("OrthoReg and other penalties of fine-tuning", rivals, ("linearized",)),
    "placement": Comparison("Where LoRA's adapters sit", placement, tuple(PLACEMENT)),
}
