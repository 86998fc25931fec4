"""Trials of one base as table rows: a method with its seeds, and its measures."""

from __future__ import annotations

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from kept import PAPER_STRENGTHS, SEEDS, STRENGTHS, Kept, Trial, chosen_rate

from orthoreg_jax.evaluation.bootstrap import Interval, bootstrap_interval
from orthoreg_jax.storage import read_json


class Row(NamedTuple):
    """A method with its seeds."""

    trials: list[Trial]
    facts: list[dict[str, Any]]
    right: Sequence[Mapping[str, np.ndarray]]

    def mean(self, value: Any) -> float:
        """Over seeds."""
        return statistics.fmean(value(facts) for facts in self.facts)

    def cell(self, value: Any, digits: int = 2, scale: float = 100.0) -> str:
        """Mean and sample standard deviation over seeds."""
        numbers = [scale * value(facts) for facts in self.facts]
        text = f"{statistics.fmean(numbers):.{digits}f}"
        return f"{text} ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else text


class Trials:
    """All trials of one base, and the protocol's choices among them."""

    def __init__(self, folder: pathlib.Path) -> None:
        """Reads them."""
        self._kept = Kept(folder)
        self.sets: dict[str, list[str]] = read_json(folder / "sets.json")
        self.chosen: dict[str, Any] = read_json(folder / "chosen.json")
        self.steps, self.set = self.chosen["steps"], self.chosen["set"]
        self.tasks = self.sets[self.set]

    def row(
        self,
        mode: str,
        rate: float,
        steps: int,
        strength: float = 0.0,
        form: str = "released",
        seeds: Sequence[int] = SEEDS,
    ) -> Row | None:
        """A method with all seeds; None if one is missing or diverged."""
        trials = [Trial(mode, rate, steps, seed, strength, form) for seed in seeds]
        facts, right = [], []
        for trial in trials:
            found = self._kept.found(trial)
            if found is None or found["diverged"]:
                return None
            facts.append(found)
            right.append(_Right(self._kept.path(trial).with_suffix(".npz"), found["images"]))
        return Row(trials, facts, right)

    def rate(self, mode: str) -> float:
        """Learning rate that the protocol chose for a mode."""
        return chosen_rate(self._kept, mode, self.steps)

    def with_penalty(self, mode: str, form: str = "released") -> dict[float, Row]:
        """By lambda."""
        grid = STRENGTHS if form == "released" else PAPER_STRENGTHS
        rows = {
            strength: self.row(mode, self.rate(mode), self.steps, strength=strength, form=form)
            for strength in grid
        }
        return {strength: row for strength, row in rows.items() if row}

    def pair(self, rate: float, steps: int, strength: float) -> tuple[Row, Row] | None:
        """Full fine-tuning without and with the penalty, for seeds that have both: two or three."""
        for count in range(len(SEEDS), 1, -1):
            seeds = SEEDS[:count]
            plain = self.row("full", rate, steps, seeds=seeds)
            row = self.row("full", rate, steps, strength=strength, seeds=seeds)
            if plain and row and all(each["negation"] for each in plain.facts):
                return plain, row
        return None

    # Measures, computed from a trial's results.
    def single(self, facts: Any) -> float:
        return statistics.fmean(facts["single"]["test"][task] for task in self.tasks)

    def zero_shot(self, facts: Any) -> float:
        return statistics.fmean(facts["zero_shot"]["test"][task] for task in self.tasks)

    def added(self, facts: Any, key: str = "absolute") -> Any:
        return facts["addition"][self.set][key]

    def closed(self, facts: Any) -> float:
        """Share of the gap between zero-shot and single-task accuracy that addition closes."""
        zero, single = self.zero_shot(facts), self.single(facts)
        return (self.added(facts) - zero) / (single - zero)

    def negated(self, share: str, key: str = "target") -> Any:
        return lambda facts: statistics.fmean(
            facts["negation"][task]["shares"][share][key] for task in self.tasks
        )

    def gain(self, row: Row, plain: Row, kind: str, tasks: Sequence[str] = ()) -> Interval:
        """Gain in a kind of accuracy, e.g. `negated/0.95`, on the same images, with interval."""
        differences = {}
        for task in tasks or self.tasks:
            pairs = zip(row.right, plain.right, strict=True)
            differences[task] = np.mean(
                [a[f"{kind}/{task}"] - b[f"{kind}/{task}"] for a, b in pairs], axis=0
            )
        return bootstrap_interval(differences)


class _Right(Mapping[str, np.ndarray]):
    """Which test images a trial's models classified correctly, unpacked on demand."""

    def __init__(self, path: pathlib.Path, images: Mapping[str, int]) -> None:
        self._packed, self._images = dict(np.load(path)), images

    def __getitem__(self, key: str) -> np.ndarray:
        count = self._images[key.rpartition("/")[2]]
        return np.unpackbits(self._packed[key])[:count].astype(float)

    def __iter__(self) -> Any:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)
