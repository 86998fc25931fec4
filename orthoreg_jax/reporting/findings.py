"""Findings in plain words, computed from the numbers and neutral whatever they show."""

from __future__ import annotations

from collections.abc import Callable

from orthoreg_jax.evaluation.results import Results, Run
from orthoreg_jax.words import counted

from .summary import (
    MethodRuns,
    control_mean,
    control_shares,
    find_comparison,
    group_methods,
    images_tested,
    penalty_pairs,
    single_mean,
    span,
    standard_error,
    target_mean,
    tasks_at_edge,
    zero_shot_mean,
)
from .tables import percent, points, share_text


def describe_findings(results: Results) -> list[str]:
    """Paragraphs on what the run shows; the first gives seeds and test images."""
    paragraphs = [_footing(results)]
    pairs = penalty_pairs(results)
    for plain, with_penalty in pairs:
        paragraphs.append(_compare(results, plain, with_penalty))
    for method in group_methods(results):
        if not any(method in pair for pair in pairs):
            paragraphs.append(_describe(results, method))
    return paragraphs + _edges(results)


def _footing(results: Results) -> str:
    """Describes the basis of the numbers: seeds, images, and zero-shot accuracy."""
    images = images_tested(results)
    counts = [images[task] for task in results["tasks"]]
    seeds = sorted({run["seed"] for run in results["runs"]})
    given = all(method.is_given for method in group_methods(results))
    made = "one given model for each task" if given else counted(len(seeds), "seed")
    error = standard_error(
        {task: results["zero_shot"]["test"][task] for task in results["tasks"]}, images
    )
    text = (
        f"These numbers come from {made} and {sum(counts)} test images of "
        f"{counted(len(counts), 'task')} ({span(counts)} each). Zero-shot accuracy is "
        f"{percent(zero_shot_mean(results))} % (mean over tasks, standard error "
        f"{percent(error)} points)."
    )
    if given:
        text += " The variation between trainings is unknown."
    elif len(seeds) == 1:
        text += " With one seed, the variation between seeds is unknown."
    return text


def _compare(results: Results, plain: MethodRuns, other: MethodRuns) -> str:
    """Compares a method with penalties to the same method without them."""
    zero_shot = zero_shot_mean(results)

    def both(value: Callable[[Run], float | None]) -> tuple[float, float]:
        return other.over_seeds(value).mean, plain.over_seeds(value).mean

    added, added_plain = both(lambda run: run["addition"]["absolute"])
    norm, norm_plain = both(lambda run: run["addition"]["normalised"])
    alone, alone_plain = both(single_mean)
    sentences = [
        f"{plain.label}: with {other.penalty} (λ = {other.strength_text}), the added model's "
        f"accuracy is {percent(added)} %, against {percent(added_plain)} % without "
        f"({_difference(results, plain, other, 'added')}).",
        f"Single-task accuracy is {percent(alone)} % against {percent(alone_plain)} % "
        f"({_difference(results, plain, other, 'single')}), so "
        f"Norm, which divides by it, is {percent(norm)} % against {percent(norm_plain)} %.",
    ]
    if norm > norm_plain and added <= added_plain:
        sentences.append(
            "Norm is higher only because single-task accuracy is lower: the added model itself is "
            "not better."
        )
    for method, value in ((other, added), (plain, added_plain)):
        if value <= zero_shot:
            sentences.append(f"The added model of {method.label} does not beat zero-shot.")
    share = control_shares(results)[0]
    target, target_plain = both(lambda run: target_mean(run, share))
    control, control_plain = both(lambda run: control_mean(run, share))
    sentences.append(
        f"Negation that keeps {share_text(share)} of control accuracy leaves {percent(target)} % "
        f"on the forgotten task, against {percent(target_plain)} % "
        f"({_difference(results, plain, other, f'negated/{share}')}; lower is better), and "
        f"{percent(control)} % against {percent(control_plain)} % on the control task."
    )
    return " ".join(sentences)


def _difference(results: Results, plain: MethodRuns, other: MethodRuns, measure: str) -> str:
    """Formats a difference as "+2.30 points, 95 % confidence interval +1.10 to +3.50"."""
    found = find_comparison(results, plain.name, other.name, measure)
    if found is None:
        return "not compared"
    low, high = points(found["low"]), points(found["high"])
    text = f"{points(found['difference'])} points, 95 % confidence interval {low} to {high}"
    if found["low"] <= 0 <= found["high"]:
        text += ", within noise"
    return text


def _describe(results: Results, method: MethodRuns) -> str:
    """Describes a method without a counterpart."""
    share = control_shares(results)[0]
    return (
        f"{method.label}: the added model's accuracy is "
        f"{percent(method.over_seeds(lambda run: run['addition']['absolute']).mean)} % (zero-shot "
        f"{percent(zero_shot_mean(results))} %) and single-task accuracy "
        f"{percent(method.over_seeds(single_mean).mean)} %, which gives a Norm of "
        f"{percent(method.over_seeds(lambda run: run['addition']['normalised']).mean)} %. "
        f"Negation that keeps {share_text(share)} of control accuracy leaves "
        f"{percent(method.over_seeds(lambda run: target_mean(run, share)).mean)} % on the "
        "forgotten task."
    )


def _edges(results: Results) -> list[str]:
    """Warns if a larger alpha might have changed a number."""
    concerned = []
    for method in group_methods(results):
        if any(run["addition"]["at_edge"] for run in method.runs):
            concerned.append(f"{method.label} (addition)")
        shares = [share for share in control_shares(results) if tasks_at_edge(method, share)]
        if shares:
            concerned.append(f"{method.label} (negation {', '.join(map(share_text, shares))})")
    if not concerned:
        return []
    return [
        f"Some α are the largest tried, marked * in the table: {'; '.join(concerned)}. "
        "Larger ones might change those numbers."
    ]
