"""All trials of the protocol: the regime in which OrthoReg can act, and its effects there.

    python experiments/regime/run.py --workdir runs/regime

`experiments/results/regime_protocol.md` defines all choices; the phases are its sections. Trials
already in WORKDIR are not repeated. Choices are read from the trials on which they are based; if
those are missing, a later phase ends with a message on what to run first.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable, Sequence

import jax
from bench import Bench
from kept import (
    COURSE,
    PAPER_STRENGTHS,
    RATES,
    SCOUT,
    SEEDS,
    STEPS,
    STRENGTHS,
    Trial,
    chosen_rate,
    chosen_steps,
    needed,
    task_set,
)

from orthoreg_jax.storage import read_json, write_json

CONFIG = "configs/embedded_regime.py"


def task_sets(bench: Bench) -> dict[str, list[str]]:
    """Tasks ordered by plain fine-tuning's gain, largest first: 5 of them, 8, and all."""
    (facts,) = bench.run([SCOUT], {"13": bench.tasks}, negate=False)
    before, after = facts["zero_shot"]["test"], facts["single"]["test"]
    ordered = sorted(bench.tasks, key=lambda task: before[task] - after[task])
    return {str(count): ordered[:count] for count in (5, 8, 13)}


def baseline(bench: Bench) -> None:
    """Plain full fine-tuning: every rate and number of steps, added on every task set."""
    sets = task_sets(bench)
    bench.run(
        [Trial("full", rate, steps, 0) for steps in STEPS for rate in RATES["full"]],
        sets,
        negate=False,
    )
    write_json(bench.kept.folder / "sets.json", sets)
    steps = chosen_steps(bench.kept)
    rate, chosen = chosen_rate(bench.kept, "full", steps), task_set(bench.kept)
    norm = needed(bench.kept, Trial("full", rate, steps, 0))["addition"][chosen]["normalised"]
    print(f"{bench.kept.folder.name}: {chosen} tasks, {steps} steps at {rate:g}, Norm {norm:.4f}")
    write_json(
        bench.kept.folder / "chosen.json",
        {"steps": steps, "rate": rate, "set": chosen, "norm": norm},
    )


def rates(bench: Bench, modes: list[str]) -> None:
    """Plain fine-tuning in the other modes: every rate."""
    steps, sets = chosen_steps(bench.kept), read_json(bench.kept.folder / "sets.json")
    for mode in modes:
        trials = [Trial(mode, rate, steps, 0) for rate in RATES[mode]]
        bench.run(trials, sets, negate=False)


def strengths(bench: Bench, modes: list[str]) -> None:
    """Every lambda with every seed, at the mode's rate."""
    steps, sets = chosen_steps(bench.kept), read_json(bench.kept.folder / "sets.json")
    for mode in modes:
        rate = chosen_rate(bench.kept, mode, steps)
        bench.run(
            [Trial(mode, rate, steps, seed, s) for seed in SEEDS for s in (0.0, *STRENGTHS)],
            sets,
            negate=True,
        )


def forms(bench: Bench) -> None:
    """The paper's form of the penalty, full fine-tuning."""
    steps, sets = chosen_steps(bench.kept), read_json(bench.kept.folder / "sets.json")
    rate = chosen_rate(bench.kept, "full", steps)
    bench.run(
        [Trial("full", rate, steps, seed, s, "paper") for seed in SEEDS for s in PAPER_STRENGTHS],
        sets,
        negate=True,
    )


def course(bench: Bench, lengths: Sequence[int]) -> None:
    """Full fine-tuning with other numbers of steps at the same rate: where the penalty acts."""
    sets = read_json(bench.kept.folder / "sets.json")
    rate = chosen_rate(bench.kept, "full", chosen_steps(bench.kept))
    for steps in lengths:
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
    """Runs the requested phases in order."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=pathlib.Path, required=True)
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--model", default="embedded", help="the base; a CLIP directory")
    parser.add_argument("--phases", nargs="+", default=list(PHASES), choices=list(PHASES))
    parser.add_argument("--modes", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument(
        "--lengths", type=int, nargs="+", default=list(COURSE), choices=COURSE, help="of course"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that make batches")
    parser.add_argument("--vectors", action="store_true", help="keep the task vectors")
    parser.add_argument(
        "--at-once",
        type=int,
        default=260,
        help="fine-tunings in one program; 260 take 10 GB for the embedded model, and on a CPU one "
        "trial at a time (1) keeps its results sooner",
    )
    arguments = parser.parse_args()
    bench = Bench(
        arguments.model,
        arguments.workdir,
        arguments.config,
        workers=arguments.workers,
        vectors=arguments.vectors,
        at_once=arguments.at_once,
    )
    with jax.default_matmul_precision(bench.config.matmul_precision):
        for phase in arguments.phases:
            chosen = {"course": arguments.lengths} | dict.fromkeys(WITH_MODES, arguments.modes)
            PHASES[phase](bench, *([chosen[phase]] if phase in chosen else []))


if __name__ == "__main__":
    main()
