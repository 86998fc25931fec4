"""What a trial is, where it is kept, and what the protocol chooses by trials that are kept."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
from typing import Any

from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.storage import read_json

SEEDS = (0, 1, 2)
RATES = {
    "full": (1e-4, 3e-4, 1e-3),
    "linearized": (1e-4, 3e-4, 1e-3, 3e-3),
    "attention": (1e-4, 3e-4, 1e-3, 3e-3),
    "lora": (1e-3, 3e-3, 1e-2, 3e-2),
}
STEPS = (300, 600, 1200)  # among which "long enough" is looked for
STRENGTHS = (0.1, 1.0, 10.0, 100.0)
PAPER_STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # the same pull at small updates, see the protocol
COURSE = (120, 300, 600, 1200)  # steps at which "where it begins" looks
ENOUGH = 0.005  # a gain in validation accuracy below which doubling the steps is not worth it


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is fine-tuned, and how."""

    mode: str
    learning_rate: float
    steps: int
    seed: int
    strength: float = 0.0  # lambda of OrthoReg; 0 without
    form: str = "released"

    @property
    def method(self) -> str:
        """As in a config's `methods`."""
        return self.mode + ORTHOREG * (self.strength > 0)

    @property
    def name(self) -> str:
        """Of its files."""
        parts = [self.mode, f"lr{self.learning_rate:g}", f"steps{self.steps}", f"seed{self.seed}"]
        if self.strength:
            parts.append(f"lambda{self.strength:g}" + "paper" * (self.form == "paper"))
        return "-".join(parts)


# Orders the tasks by its gains, and decides nothing else.
SCOUT = Trial("full", 3e-4, 300, 9)


class Kept:
    """The trials of one base model, a file each."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Reads nothing yet."""
        self.folder = folder

    def path(self, trial: Trial) -> pathlib.Path:
        """Of its numbers; which images were right stands beside it, as .npz."""
        return self.folder / f"{trial.name}.json"

    def found(self, trial: Trial, negate: bool = False) -> dict[str, Any] | None:
        """What is kept of a trial; None where that lacks negation and it is asked for."""
        path = self.path(trial)
        facts = read_json(path) if path.is_file() else None
        lacking = negate and facts and not facts["diverged"] and not facts["negation"]
        return None if lacking else facts


def single_val(facts: dict[str, Any]) -> float:
    """Mean validation accuracy of the single-task models; 0 where one diverged."""
    return statistics.fmean(facts["single"]["val"].values()) if not facts["diverged"] else 0.0


def needed(kept: Kept, trial: Trial) -> dict[str, Any]:
    """What is kept of a trial that must have been run."""
    facts = kept.found(trial)
    if facts is None:
        raise SystemExit(f"{kept.folder}: has no {trial.name}; run the phases before this one")
    return facts


def chosen_rate(kept: Kept, mode: str, steps: int) -> float:
    """The rate with the best validation accuracy of the plain single-task models."""
    trials = [Trial(mode, rate, steps, 0) for rate in RATES[mode]]
    return max(trials, key=lambda trial: single_val(needed(kept, trial))).learning_rate


def chosen_steps(kept: Kept) -> int:
    """The fewest steps that twice as many improve by less than half a point, at their best rate."""

    def best(steps: int) -> float:
        return max(single_val(needed(kept, Trial("full", r, steps, 0))) for r in RATES["full"])

    for steps, twice in zip(STEPS, STEPS[1:], strict=False):
        if best(twice) - best(steps) < ENOUGH:
            return steps
    return STEPS[-1]


def task_set(kept: Kept) -> str:
    """Of 8 or more tasks the set on which plain addition's Norm comes nearest to 80."""
    steps = chosen_steps(kept)
    facts = needed(kept, Trial("full", chosen_rate(kept, "full", steps), steps, 0))
    sets = [name for name in facts["addition"] if int(name) >= 8]
    return min(sets, key=lambda name: abs(facts["addition"][name]["normalised"] - 0.8))
