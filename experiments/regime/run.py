"""The regime in which OrthoReg can act, and what it does there: all trials, by the protocol.

    python experiments/regime/run.py --workdir runs/regime

`experiments/results/regime_protocol.md` says what is chosen by what; the phases are its sections.
Trials that WORKDIR holds are not run again. Choices are read from the trials that make them, so
phases of later sections end with what to run first if those are missing.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import jax
from bench import Bench, Trial

from orthoreg_jax.storage import read_json, write_json

CONFIG = "configs/embedded_regime.py"
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
SCOUT = Trial("full", 3e-4, 300, 9)  # orders the tasks by its gains, and decides nothing else
ENOUGH = 0.005  # a gain in validation accuracy below which doubling the steps is not worth it


def single_val(facts: dict[str, Any]) -> float:
    """Mean validation accuracy of the single-task models; 0 where one diverged."""
    return statistics.fmean(facts["single"]["val"].values()) if not facts["diverged"] else 0.0


def task_sets(bench: Bench) -> dict[str, list[str]]:
    """Tasks by what plain fine-tuning gains on them, most first: 5 and 8 of them, and all."""
    (facts,) = bench.run([SCOUT], {"13": bench.tasks}, negate=False)
    before, after = facts["zero_shot"]["test"], facts["single"]["test"]
    ordered = sorted(bench.tasks, key=lambda task: before[task] - after[task])
    return {str(count): ordered[:count] for count in (5, 8, 13)}


def baseline(bench: Bench) -> None:
    """Plain full fine-tuning: every rate and length, added on every set of tasks."""
    sets = task_sets(bench)
    bench.run(
        [Trial("full", rate, steps, 0) for steps in STEPS for rate in RATES["full"]],
        sets,
        negate=False,
    )
    write_json(bench.folder / "sets.json", sets)
    steps = chosen_steps(bench)
    rate, chosen = chosen_rate(bench, "full", steps), task_set(bench)
    norm = needed(bench, Trial("full", rate, steps, 0))["addition"][chosen]["normalised"]
    print(f"{bench.folder.name}: {chosen} tasks, {steps} steps at {rate:g}, Norm {norm:.4f}")
    write_json(
        bench.folder / "chosen.json", {"steps": steps, "rate": rate, "set": chosen, "norm": norm}
    )


def rates(bench: Bench, modes: list[str]) -> None:
    """Plain fine-tuning in the other modes: every rate."""
    steps, sets = chosen_steps(bench), read_json(bench.folder / "sets.json")
    for mode in modes:
        trials = [Trial(mode, rate, steps, 0) for rate in RATES[mode]]
        bench.run(trials, sets, negate=False)


def chosen_rate(bench: Bench, mode: str, steps: int) -> float:
    """The rate with the best validation accuracy of the plain single-task models."""
    trials = [Trial(mode, rate, steps, 0) for rate in RATES[mode]]
    return max(trials, key=lambda trial: single_val(needed(bench, trial))).learning_rate


def chosen_steps(bench: Bench) -> int:
    """The fewest steps that twice as many improve by less than half a point, at their best rate."""

    def best(steps: int) -> float:
        return max(single_val(needed(bench, Trial("full", r, steps, 0))) for r in RATES["full"])

    for steps, twice in zip(STEPS, STEPS[1:], strict=False):
        if best(twice) - best(steps) < ENOUGH:
            return steps
    return STEPS[-1]


def task_set(bench: Bench) -> str:
    """Of 8 or more tasks the set on which plain addition's Norm comes nearest to 80."""
    steps = chosen_steps(bench)
    facts = needed(bench, Trial("full", chosen_rate(bench, "full", steps), steps, 0))
    sets = [name for name in facts["addition"] if int(name) >= 8]
    return min(sets, key=lambda name: abs(facts["addition"][name]["normalised"] - 0.8))


def needed(bench: Bench, trial: Trial) -> dict[str, Any]:
    """What is kept of a trial that must have been run."""
    facts = bench.found(trial)
    if facts is None:
        raise SystemExit(f"{bench.folder}: has no {trial.name}; run the phases before this one")
    return facts


def strengths(bench: Bench, modes: list[str]) -> None:
    """Every lambda with every seed, at the mode's rate."""
    steps, sets = chosen_steps(bench), read_json(bench.folder / "sets.json")
    for mode in modes:
        rate = chosen_rate(bench, mode, steps)
        bench.run(
            [Trial(mode, rate, steps, seed, s) for seed in SEEDS for s in (0.0, *STRENGTHS)],
            sets,
            negate=True,
        )


def forms(bench: Bench) -> None:
    """The paper's form of the penalty, full fine-tuning."""
    steps, sets = chosen_steps(bench), read_json(bench.folder / "sets.json")
    rate = chosen_rate(bench, "full", steps)
    bench.run(
        [Trial("full", rate, steps, seed, s, "paper") for seed in SEEDS for s in PAPER_STRENGTHS],
        sets,
        negate=True,
    )


def course(bench: Bench) -> None:
    """Full fine-tuning of other lengths at the same rate: where the penalty begins to act."""
    sets = read_json(bench.folder / "sets.json")
    rate = chosen_rate(bench, "full", chosen_steps(bench))
    for steps in COURSE:
        bench.run(
            [Trial("full", rate, steps, seed, s) for seed in SEEDS for s in (0.0, 1.0, 10.0)],
            sets,
            negate=True,
        )


PHASES: dict[str, Callable[..., None]] = {
    "baseline": baseline,
    "rates": rates,
    "strengths": strengths,
    "forms": forms,
    "course": course,
}
WITH_MODES = ("rates", "strengths")


def main() -> None:
    """Runs the phases that are asked for, in their order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--model", default="embedded", help="the base; a CLIP directory")
    parser.add_argument("--phases", nargs="+", default=list(PHASES), choices=list(PHASES))
    parser.add_argument("--modes", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--vectors", action="store_true", help="keep the task vectors")
    arguments = parser.parse_args()
    bench = Bench(
        arguments.model,
        arguments.workdir,
        arguments.config,
        arguments.workers,
        arguments.vectors,
    )
    with jax.default_matmul_precision(bench.config.matmul_precision):
        for phase in arguments.phases:
            more = [arguments.modes] if phase in WITH_MODES else []
            PHASES[phase](bench, *more)


if __name__ == "__main__":
    main()
