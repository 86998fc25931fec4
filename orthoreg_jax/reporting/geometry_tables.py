"""Tables of the geometry of task vectors, and of the paper's claims."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from orthoreg_jax.evaluation.results import Features, Results, Run

from .accuracy_tables import seeds_note
from .summary import (
    Estimate,
    MethodRuns,
    control_shares,
    find_comparison,
    group_methods,
    penalty_pairs,
)
from .tables import NONE, Table, number_estimate, points, share_text


def geometry_table(results: Results) -> Table:
    """Size and angles of the task vectors: one row for each method."""
    methods = group_methods(results)
    measures: dict[str, Callable[[Run], float]] = {
        "‖τ‖": lambda run: _mean(run["geometry"]["norms"]),
        "Largest singular value": _largest_singular_value,
        "Stable rank": lambda run: _mean(run["geometry"]["stable_ranks"]),
        "‖G − I‖": lambda run: _mean(run["geometry"]["gram_deviations"]),
        "Columns |cos|": lambda run: _mean(run["geometry"]["column_cosines"]),
        "Task vectors |cos|": task_cosine,
    }
    rows = tuple(
        (
            method.label,
            method.strength_text,
            *(number_estimate(method.over_seeds(measure)) for measure in measures.values()),
        )
        for method in methods
    )
    note = (
        "Means over tasks. Largest singular value: over all weight updates of a task. Stable rank: "
        "‖ΔW‖² Frobenius over spectral, mean over matrices; ‖G − I‖: what the penalty sums, mean "
        "over matrices. Columns: mean |cosine| between two columns of one weight update; 0 is "
        "orthogonal. Task vectors: mean |cosine| between two tasks."
    )
    header = ("Method", "λ", *measures)
    return Table("Shape of the task vectors", header, rows, (note, *seeds_note(methods)))


def features_table(results: Results) -> Table | None:
    """Overlap of the features that tasks use, and J tau; None if they were not measured."""
    methods = group_methods(results)
    pretrained = results["features"]
    if pretrained is None or any(run["features"] is None for run in results["runs"]):
        return None
    measures: dict[str, Callable[[Run], float]] = {
        "Feature overlap": lambda run: _features(run)["overlap"],
        "‖J τ‖ own": lambda run: float(np.mean(np.diag(_features(run)["tau_jacobian"]))),
        "‖J τ‖ others": lambda run: _off_diagonal(np.array(_features(run)["tau_jacobian"])),
    }
    zero_shot = ("Zero-shot", "", number_estimate(Estimate(pretrained["overlap"], None)), "", "")
    rows = [
        (
            method.label,
            method.strength_text,
            *(number_estimate(method.over_seeds(measure)) for measure in measures.values()),
        )
        for method in methods
    ]
    note = (
        "Feature overlap: weighted Jaccard index of two tasks' sensitivities to a layer's "
        "features, each in its own model; 1: both use the features equally, 0: they use disjoint "
        "ones; mean over pairs and layers. ‖J τ‖: how far a task vector moves the linearised "
        "features of its own task's images, and of the other tasks' images."
    )
    header = ("Method", "λ", *measures)
    notes = (note, *seeds_note(methods))
    return Table("Features that tasks use", header, (zero_shot, *rows), notes)


WITHIN_NOISE, ONE_SEED = "within noise", "one seed"  # verdicts that decide nothing
# Claim -> the number that it is about, which should be lower with OrthoReg.
CLAIMS: dict[str, Callable[[Run], float | None]] = {
    "Columns of an update are closer to orthogonal (mean |cos|)": lambda run: _mean(
        run["geometry"]["column_cosines"]
    ),
    "Updates are closer to orthonormal (‖G − I‖)": lambda run: _mean(
        run["geometry"]["gram_deviations"]
    ),
    "Task vectors are closer to orthogonal (mean |cos|)": lambda run: task_cosine(run),
    "Tasks use more separate features (overlap)": lambda run: (
        run["features"]["overlap"] if run["features"] else None
    ),
    "A task vector acts less on other tasks' inputs (‖J τ‖, others / own)": lambda run: _leakage(
        run["features"]
    ),
    "Adding a vector changes fewer predictions on the other task (mean ξ)": lambda run: (
        float(np.mean([each["error"] for each in run["disentanglement"]]))
        if run["disentanglement"]
        else None
    ),
}


def claims_table(results: Results) -> Table | None:
    """Tests each claim of the paper in each mode; None without pairs of methods.

    The claims are about OrthoReg, so methods with other penalties are left out.
    """
    pairs = [pair for pair in penalty_pairs(results) if list(pair[1].strengths) == ["orthoreg"]]
    if not pairs:
        return None
    share = control_shares(results)[0]
    accuracies = {
        "One model for all tasks is better (Abs)": ("added", 1),
        f"Negation forgets more (target at {share_text(share)} of control)": (
            f"negated/{share}",
            -1,
        ),
    }
    rows = [
        (claim, *(_accuracy_verdict(results, pair, *which) for pair in pairs))
        for claim, which in accuracies.items()
    ]
    rows += [
        (claim, *(_verdict(pair, measure) for pair in pairs)) for claim, measure in CLAIMS.items()
    ]
    note = (
        "The paper's claims about training with OrthoReg rather than without, tested in this run. "
        f"{_rule(max(len(other.runs) for _, other in pairs))} The paper's theory covers overlap, "
        "‖J τ‖ and ξ, but it does not measure them. At equal α, ξ compares edits of unequal length "
        "where the penalty makes vectors longer."
    )
    header = ("Claim", *(plain.label for plain, _ in pairs))
    return Table("The paper's claims, put to the test", header, tuple(rows), (note,), len(header))


def _rule(seeds: int) -> str:
    """When a claim counts as decided."""
    if seeds < 2:
        return (
            "One seed decides no claim, because another might show the opposite: run several. "
            "Numbers: without → with."
        )
    return (
        "Accuracies: yes or no if the 95 % confidence interval over test images excludes 0 and the "
        "difference exceeds two standard errors over seeds. Others: yes or no if all seeds agree, "
        f"as {seeds} would by chance in one of {2 ** (seeds - 1)} claims; without → with; no "
        "change: equal at the digits shown."
    )


def _accuracy_verdict(
    results: Results, pair: tuple[MethodRuns, MethodRuns], measure: str, sign: int
) -> str:
    plain, other = pair
    found = find_comparison(results, plain.name, other.name, measure)
    if found is None:
        return NONE
    difference, deviation = points(found["difference"]), found["deviation"]
    if deviation is None:
        return f"{ONE_SEED}: {difference}"
    low, high = sorted((sign * found["low"], sign * found["high"]))
    clear = abs(found["difference"]) > 2 * deviation / math.sqrt(len(other.runs))  # over seeds, too
    return f"{_word(clear and low > 0, clear and high < 0)}: {difference}"


def _verdict(pair: tuple[MethodRuns, MethodRuns], measure: Callable[[Run], float | None]) -> str:
    before, after = ({run["seed"]: measure(run) for run in method.runs} for method in pair)
    changes = [
        (old, new)
        for seed, old in before.items()
        if old is not None and (new := after.get(seed)) is not None
    ]
    if not changes:
        return NONE
    old, new = (statistics.fmean(values) for values in zip(*changes, strict=True))
    first, second = f"{old:.3g}", f"{new:.3g}"
    if len(changes) < 2:
        return f"{ONE_SEED}: {first} → {second}"
    word = _word(all(new < old for old, new in changes), all(new > old for old, new in changes))
    if first == second and word != WITHIN_NOISE:
        return f"no change: {first}"
    return f"{word}: {first} → {second}"


def _word(yes: bool, no: bool) -> str:
    return "yes" if yes else "no" if no else WITHIN_NOISE


def _leakage(features: Features | None) -> float | None:
    """How far vectors move other tasks' features, relative to their own task's."""
    if features is None or not features["tau_jacobian"]:
        return None
    sizes = np.array(features["tau_jacobian"])
    return _off_diagonal(sizes) / float(np.mean(np.diag(sizes)))


def task_cosine(run: Run) -> float:
    """Mean |cosine| between the task vectors of two tasks."""
    return _off_diagonal(np.abs(run["geometry"]["cosines"]))


def _features(run: Run) -> Features:
    features = run["features"]
    assert features is not None
    return features


def _mean(by_task: dict[str, float]) -> float:
    """Mean over tasks; NaN for vectors without weight matrices."""
    return statistics.fmean(by_task.values()) if by_task else math.nan


def _largest_singular_value(run: Run) -> float:
    return _mean(
        {
            task: max(layer[0] for layers in leaves.values() for layer in layers)
            for task, leaves in run["geometry"]["singular_values"].items()
        }
    )


def _off_diagonal(values: Float[np.ndarray, "t t"]) -> float:
    """Mean over pairs of different tasks; 0 if there is only one task."""
    count = len(values)
    return float(values.sum() - values.trace()) / max(1, count * (count - 1))
