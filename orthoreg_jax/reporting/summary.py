"""Numbers of results.json by method: means over tasks and seeds, with their uncertainty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

from orthoreg_jax.config import GIVEN, split_method
from orthoreg_jax.evaluation.results import Comparison, Results, Run

DEFAULT_SHARE = "0.95"


class Estimate(NamedTuple):
    """A mean over seeds and their sample standard deviation; None for a single seed."""

    mean: float
    deviation: float | None


class MethodRuns(NamedTuple):
    """A method and its runs, one for each seed; `strengths` are by penalty."""

    name: str
    label: str
    strengths: dict[str, float]
    runs: tuple[Run, ...]

    @property
    def penalty(self) -> str:
        """Labels of its penalties, as "OrthoReg + TAK"; empty if it has none."""
        return self.label.partition(" + ")[2]

    @property
    def strength_text(self) -> str:
        """Lambda of each penalty, as "0.1 / 10"; "0" without, a dash if it is not known."""
        return "–" if self.is_given else strength_text(self.strengths)

    @property
    def is_given(self) -> bool:
        """Whether its models were fine-tuned elsewhere."""
        return self.name == GIVEN

    def over_seeds(self, value: Callable[[Run], float | None]) -> Estimate:
        """Estimates a number over the method's runs."""
        return estimate(value(run) for run in self.runs)


def estimate(values: Iterable[float | None]) -> Estimate:
    """Mean and sample standard deviation (divisor n - 1); NaN if a value is undefined."""
    found = list(values)
    numbers = [value for value in found if value is not None]
    if len(numbers) < len(found):
        return Estimate(math.nan, None)
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else None
    return Estimate(statistics.fmean(numbers), deviation)


def group_methods(results: Results) -> list[MethodRuns]:
    """Methods in the file's order, each with all its seeds."""
    runs: dict[str, list[Run]] = {}
    for run in results["runs"]:
        runs.setdefault(run["method"], []).append(run)
    return [
        MethodRuns(name, group[0]["label"], run_strengths(group[0]), tuple(group))
        for name, group in runs.items()
    ]


def run_strengths(run: Run) -> dict[str, float]:
    """Lambda of each penalty of a run; files of older versions have only OrthoReg's."""
    alone = {"orthoreg": run["strength"]} if run["strength"] else {}
    return run.get("strengths", alone)


def strength_text(strengths: Mapping[str, float]) -> str:
    """Formats strengths as "0.1 / 10"."""
    return " / ".join(f"{value:g}" for value in strengths.values()) or "0"


def penalty_pairs(results: Results) -> list[tuple[MethodRuns, MethodRuns]]:
    """Pairs (without, with) of methods that were run with and without penalties."""
    methods = {method.name: method for method in group_methods(results)}
    return [
        (methods[mode], method)
        for name, method in methods.items()
        if (mode := split_method(name)[0]) != name and mode in methods
    ]


def find_comparison(
    results: Results, baseline: str, method: str, measure: str
) -> Comparison | None:
    """The paired difference of two methods on the same test images, if it was measured."""
    wanted = (baseline, method, measure)
    for each in results["comparisons"]:
        if (each["baseline"], each["method"], each["measure"]) == wanted:
            return each
    return None


def control_shares(results: Results) -> list[str]:
    """Shares of control accuracy to keep: the default first, then in descending order."""
    shares = {
        share
        for run in results["runs"]
        for negation in run["negation"].values()
        for share in negation["shares"]
    }
    return sorted(shares, key=lambda share: (share != DEFAULT_SHARE, -float(share)))


def zero_shot_mean(results: Results, split: str = "test") -> float:
    """Mean zero-shot accuracy over the tasks, without the control task."""
    return statistics.fmean(results["zero_shot"][split][task] for task in results["tasks"])


def control_name(results: Results) -> str:
    """The name of the control task in `zero_shot`."""
    return next(name for name in results["zero_shot"]["test"] if name not in results["tasks"])


def control_title(results: Results) -> str:
    """The title of the control task, without the word "control"."""
    return results["control"].removeprefix("Control: ")


def single_mean(run: Run) -> float:
    """Mean test accuracy of the single-task models."""
    return statistics.fmean(run["single"]["test"].values())


def target_mean(run: Run, share: str) -> float:
    """Mean test accuracy on the tasks to forget."""
    return statistics.fmean(each["shares"][share]["target"] for each in run["negation"].values())


def control_mean(run: Run, share: str) -> float:
    """Mean test accuracy on the control task, over the negated models."""
    return statistics.fmean(each["shares"][share]["control"] for each in run["negation"].values())


def tasks_at_edge(method: MethodRuns, share: str) -> list[str]:
    """Tasks whose negation chose the largest alpha tried, for any seed."""
    return [
        task
        for task in method.runs[0]["negation"]
        if any(run["negation"][task]["shares"][share]["at_edge"] for run in method.runs)
    ]


class ImageCount(NamedTuple):
    """How many images of a split were used, and how many it has."""

    used: int
    there: int

    def __str__(self) -> str:
        """The number used, as "60 of 1000" if these are not all."""
        return f"{self.used} of {self.there}" if self.is_limited else f"{self.used}"

    @property
    def is_limited(self) -> bool:
        """Whether images were left out."""
        return self.used < self.there


def count_images(results: Results, split: str = "test") -> dict[str, ImageCount]:
    """Number of images by task, including the control task; `split` is "val" or "test"."""
    inputs = cast(dict[str, Any], results["provenance"]["inputs"])["tasks"]
    limit = cast(int, results["config"][f"evaluation.max_{split}_images"])
    counts = {
        name: int(inputs[name]["splits"][split]["images"]) for name in results["zero_shot"][split]
    }
    return {name: ImageCount(min(count, limit or count), count) for name, count in counts.items()}


def images_tested(results: Results) -> dict[str, int]:
    """Number of test images used, by task, including the control task."""
    return {name: count.used for name, count in count_images(results).items()}


def describe_images(results: Results) -> str:
    """Sentences on how many images the accuracies and the choice of alpha rest on."""
    counts = count_images(results).values()
    text = f"Measured on {span(each.used for each in counts)} test images of each task"
    if any(each.is_limited for each in counts):
        limit, there = (
            results["config"]["evaluation.max_test_images"],
            span(c.there for c in counts),
        )
        text += f" (evaluation.max_test_images is {limit}; the splits have {there})"
    return f"{text}. {describe_validation(results)}".rstrip()


def describe_validation(results: Results) -> str:
    """A sentence on the limit of validation images; "" if all of them were used."""
    if not any(count.is_limited for count in count_images(results, "val").values()):
        return ""
    limit = results["config"]["evaluation.max_val_images"]
    return (
        f"α is chosen on at most {limit} validation images of each task "
        "(evaluation.max_val_images)."
    )


def span(numbers: Iterable[int]) -> str:
    """The least and the largest number, as "60 to 80"; one number if they are equal."""
    found = {*numbers}
    least, most = min(found), max(found)
    return f"{least}" if least == most else f"{least} to {most}"


def standard_error(accuracies: dict[str, float], images: dict[str, int]) -> float:
    """Binomial standard error of the mean accuracy of several test sets.

    sqrt(sum_t p_t (1 - p_t) / n_t) / T. More seeds do not lower it, because they share the images.
    """
    variance = sum(p * (1 - p) / images[task] for task, p in accuracies.items())
    return math.sqrt(variance) / len(accuracies)
