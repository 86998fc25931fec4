"""Tables of accuracies: the summary, each task, differences to the baseline, alphas, analogies."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

from orthoreg_jax.config import split_method
from orthoreg_jax.evaluation.results import Added, Comparison, Results, Run

from .summary import (
    MethodRuns,
    control_mean,
    control_name,
    control_shares,
    control_title,
    describe_images,
    estimate,
    find_comparison,
    group_methods,
    images_tested,
    single_mean,
    target_mean,
    tasks_at_edge,
    zero_shot_mean,
)
from .tables import (
    EDGE,
    NONE,
    Table,
    number_estimate,
    percent,
    percent_estimate,
    points,
    share_text,
)


def summary_table(results: Results) -> Table:
    """One row for each method below the zero-shot row: single-task, Abs, Norm, alpha, negation."""
    shares = control_shares(results)
    zero_shot = percent(zero_shot_mean(results))
    control = percent(results["zero_shot"]["test"][control_name(results)])
    rows = [
        ("Zero-shot", zero_shot, zero_shot, NONE, NONE, *[f"{zero_shot} / {control}"] * len(shares))
    ]
    notes = [
        "Test accuracy in per cent. Single-task: mean over the fine-tuned models, each on its "
        "own task. Abs: mean accuracy of the added model over tasks. Norm: mean over tasks of "
        "its accuracy divided by the same method's single-task accuracy. Negation: mean accuracy "
        f"on the forgotten task / on the control task ({control_title(results)}), keeping that "
        "share of zero-shot control accuracy on the validation set.",
        describe_images(results),
    ]
    methods = sorted(group_methods(results), key=_knows_others)
    for method in methods:
        cells, edges = _summary_cells(method, shares)
        rows.append(cells)
        notes += edges
    knowing = [method.label for method in methods if _knows_others(method)]
    if knowing and len(knowing) < len(methods):
        notes.append(
            f"Fine-tuned with knowledge of the other tasks, another problem than that of the rows "
            f"above: {', '.join(knowing)}."
        )
    return Table(
        "Summary",
        (
            "Method",
            "Single-task",
            "Abs",
            "Norm",
            "α",
            *(f"Negation {share_text(s)}" for s in shares),
        ),
        tuple(rows),
        (*notes, *seeds_note(methods)),
    )


def _knows_others(method: MethodRuns) -> bool:
    """Whether its fine-tuning on one task uses the other tasks."""
    from orthoreg_jax.training.penalties import PENALTIES

    return any(PENALTIES[name].others for name in split_method(method.name)[1])


def other_search_table(results: Results) -> Table | None:
    """The summary with the alphas of the other search; None if it was not measured."""
    runs: Any = [{**run, **run["other_search"]} for run in results["runs"] if "other_search" in run]
    if len(runs) < len(results["runs"]):
        return None
    table = summary_table({**results, "runs": runs})
    if results["config"]["evaluation.alpha_search"] == "grid":
        title, how = "refined", "first on a grid of relative length, then between neighbours"
    else:
        title, how = "from the grid", "on `evaluation.alphas` alone"
    note = f"As in the summary, but α is searched for {how}."
    return table._replace(title=f"Summary, α {title}", notes=(note, *table.notes[1:]))


def _summary_cells(method: MethodRuns, shares: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """A method's row, and a note for each number that a larger alpha might have changed."""
    notes = failures(method)
    edge = any(run["addition"]["at_edge"] for run in method.runs)
    if edge:
        notes.append(
            f"{EDGE} {method.label}: the α of addition is the largest tried; a larger one might "
            "change this row."
        )
    negation = []
    for share in shares:
        target = percent_estimate(method.over_seeds(functools.partial(target_mean, share=share)))
        control = percent_estimate(method.over_seeds(functools.partial(control_mean, share=share)))
        at_edge = tasks_at_edge(method, share)
        if at_edge:
            notes.append(
                f"{EDGE} {method.label}, negation {share_text(share)}: α is the largest tried for "
                f"{', '.join(at_edge)}."
            )
        negation.append(f"{target} / {control}{EDGE if at_edge else ''}")
    cells = (
        method.label,
        percent_estimate(method.over_seeds(single_mean)),
        percent_estimate(method.over_seeds(lambda run: run["addition"]["absolute"])),
        percent_estimate(method.over_seeds(lambda run: run["addition"]["normalised"])),
        number_estimate(method.over_seeds(lambda run: run["addition"]["alpha"]), ".3f")
        + (EDGE if edge else ""),
        *negation,
    )
    return cells, notes


def failures(method: MethodRuns) -> list[str]:
    """A sentence for each seed in which fine-tuning failed on a task."""
    remedy = (
        "Check that each model is named for its own task, and the order of the classes."
        if method.is_given
        else "See its metrics.jsonl; a lower training.learning_rate or penalty strength, in a new "
        "--workdir, may help."
    )
    return [
        f"{method.label}, seed {run['seed']}: the model fine-tuned on {', '.join(failed)} has "
        f"accuracy 0 on it, so Norm ({NONE}) is undefined, and α is chosen by plain accuracy "
        f"there. {remedy}"
        for run in method.runs
        if (failed := run["addition"]["failed"])
    ]


def task_table(results: Results) -> Table:
    """Every task with every method: zero-shot, single-task, added, negated at the default share."""
    share = control_shares(results)[0]
    images, methods = images_tested(results), group_methods(results)
    rows = []
    for task, title in results["tasks"].items():
        for position, method in enumerate(methods):
            numbers = [_task_numbers(run, task, share) for run in method.runs]
            *accuracies, alpha = map(estimate, zip(*numbers, strict=True))
            facts = (f"{images[task]}", percent(results["zero_shot"]["test"][task]))
            edge = EDGE if task in tasks_at_edge(method, share) else ""
            rows.append(
                (
                    title if position == 0 else "",
                    method.label,
                    *(facts if position == 0 else ("", "")),
                    *map(percent_estimate, accuracies),
                    number_estimate(alpha, ".2f") + edge,
                )
            )
    notes = [
        "Test accuracy in per cent. Target and control: with the task subtracted, at the α that "
        f"keeps {share_text(share)} of zero-shot control accuracy on the validation set."
    ]
    if any(EDGE in row[-1] for row in rows):
        notes.append(f"{EDGE} α is the largest tried.")
    if any(row[-1] == "0.00" for row in rows):
        notes.append("α = 0.00: no larger α tried forgets more and keeps control accuracy.")
    return Table(
        "Every task",
        ("Task", "Method", "Images", "Zero-shot", "Single-task", "Added", "Target", "Control", "α"),
        tuple(rows),
        (*notes, *seeds_note(methods)),
        left=2,
    )


def _task_numbers(run: Run, task: str, share: str) -> tuple[float, float, float, float, float]:
    chosen = run["negation"][task]["shares"][share]
    return (
        run["single"]["test"][task],
        run["addition"]["test"][task],
        chosen["target"],
        chosen["control"],
        chosen["alpha"],
    )


def difference_table(results: Results) -> Table:
    """Accuracies with a penalty minus without, and minus zero-shot, on the same images."""
    share = control_shares(results)[0]
    measures = {
        "Single-task": "single",
        "Abs": "added",
        f"Negation {share_text(share)}: target": f"negated/{share}",
        "control": f"control/{share}",
    }
    labels = {method.name: method.label for method in group_methods(results)}
    found = [(each["baseline"], each["method"]) for each in results["comparisons"]]
    # The effect of penalties first, then differences to zero-shot.
    pairs = sorted(dict.fromkeys(found), key=lambda pair: pair[0] not in labels)
    rows = [
        (
            labels[method],
            labels.get(baseline, "Zero-shot"),
            *(
                difference_text(find_comparison(results, baseline, method, measure))
                for measure in measures.values()
            ),
        )
        for baseline, method in pairs
    ]
    note = (
        "Points of test accuracy: the method minus the other. In brackets: the 95 % confidence "
        "interval from 2000 bootstrap resamples of the test images (the same for both models); if "
        "it excludes 0, the difference is beyond sampling noise. A lower target is better. ±: "
        "sample standard deviation over seeds, where there are several."
    )
    header = ("Method", "Against", *measures)
    return Table("Differences with confidence intervals", header, tuple(rows), (note,), left=2)


def difference_text(comparison: Comparison | None) -> str:
    """Formats a difference in points, as "+0.45 ± 0.30 [−0.70, +1.60]"."""
    if comparison is None:
        return NONE
    spread = comparison["deviation"]
    between = "" if spread is None else f" ± {percent(spread)}"
    low, high = points(comparison["low"]), points(comparison["high"])
    return f"{points(comparison['difference'])}{between} [{low}, {high}]"


def alpha_table(results: Results) -> Table:
    """The effect of the choice of alpha: its flat range, alpha = 1, and one alpha per task."""
    methods, rows = group_methods(results), []
    per_task = any(run["addition"]["per_task"] for run in results["runs"])
    for method in methods:
        additions = [run["addition"] for run in method.runs]
        low, high = (estimate(each["flat"][end] for each in additions).mean for end in (0, 1))
        variants: list[Sequence[Added]] = [additions, [each["at_one"] for each in additions]]
        if per_task:
            variants.append([each["per_task"] for each in additions if each["per_task"]])
        rows.append(
            (
                method.label,
                number_estimate(estimate(each["alpha"] for each in additions)),
                f"{low:.3g} to {high:.3g}",
                number_estimate(estimate(each["alpha"] * each["length"] for each in additions)),
                *(
                    percent_estimate(estimate(of(added) for added in variant)) if variant else NONE
                    for variant in variants
                    for of in (operator.itemgetter("absolute"), operator.itemgetter("normalised"))
                ),
            )
        )
    header = ["Method", "α", "Flat", "Length", "Abs", "Norm", "Abs, α = 1", "Norm, α = 1"]
    note = (
        "Flat: the α tried around the chosen one that lose at most one point of mean validation "
        "accuracy. Length: ‖α Σ τ‖ / ‖θ₀‖. α = 1 needs no validation data."
    )
    if per_task:
        header += ["Abs, per task", "Norm, per task"]
        note += " Per task: one α for each task vector, by coordinate search on validation."
    return Table("The choice of α", tuple(header), tuple(rows), (note, *seeds_note(methods)))


def analogy_table(results: Results) -> Table | None:
    """Every analogy with every method; None without analogies."""
    methods = group_methods(results)
    rows = [
        (
            f"{a} : {b} = {c} : {d}" if method is methods[0] else "",
            method.label,
            percent(results["zero_shot"]["test"][d]),
            *(
                percent_estimate(method.over_seeds(functools.partial(measure, number)))
                for measure in (_third_alone, _by_analogy, _fine_tuned)
            ),
        )
        for number, first in enumerate(results["runs"][0]["analogies"])
        for a, b, c, d in [first["tasks"]]
        for method in methods
    ]
    if not rows:
        return None
    note = (
        "Test accuracy in per cent on d, a task whose images the edit never saw. Third alone: "
        "θ₀ + α τ_c. Analogy: θ₀ + α (τ_c + τ_b − τ_a). Both use the α that is best on d's "
        "validation images. Fine-tuned: on d itself."
    )
    header = ("a : b = c : d", "Method", "Zero-shot", "Third alone", "Analogy", "Fine-tuned")
    notes = (note, *seeds_note(methods))
    return Table("Task analogies", header, tuple(rows), notes, left=2)


def _third_alone(number: int, run: Run) -> float:
    return run["analogies"][number]["third_alone"]["test"]


def _by_analogy(number: int, run: Run) -> float:
    return run["analogies"][number]["analogy"]["test"]


def _fine_tuned(number: int, run: Run) -> float:
    return run["analogies"][number]["fine_tuned"]


def seeds_note(methods: Sequence[MethodRuns]) -> tuple[str, ...]:
    """A note on ±, if there is more than one seed."""
    seeds = max(len(method.runs) for method in methods)
    if seeds == 1:
        return ()
    return (f"±: sample standard deviation over {seeds} seeds.",)
