"""The report's pictures with what models say of them, and accuracies by class, folded away."""

from __future__ import annotations

from collections.abc import Mapping

from orthoreg_jax.evaluation.comparisons import ZERO_SHOT
from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.experiment.samples import EDITS, Samples, TaskSamples

from .html_elements import escape, format_html, method_key, prose
from .summary import MethodRuns, group_methods
from .tables import NONE, Table

WORDS = dict(zip(EDITS, ("fine-tuned", "all tasks added", "subtracted"), strict=True))
CLASSES = 30  # in a table; of more, those that change most
NOT_MEASURED = (
    "This run was evaluated by a version that kept no pictures and no accuracies by class; the "
    "stage evaluate adds them."
)


def samples_html(samples: Samples | None, results: Results) -> str:
    """A folded part for each task; a sentence where the run has none."""
    if samples is None:
        return f'<p class="note">{escape(NOT_MEASURED)}</p>'
    methods = group_methods(results)
    kept = f"{100 * float(samples['share']):g} % of the zero-shot control accuracy"
    note = (
        f"Test images chosen by a fixed seed, and answers of the models of seed {samples['seed']}; "
        "a wrong answer is struck through. Accuracies are of all test images that were measured, "
        f"mean over seeds, in per cent. Subtracted: the task's own vector, keeping {kept}."
    )
    parts = []
    for task, found in samples["tasks"].items():
        if task in results["tasks"]:
            table = format_html(class_table(found, methods), kind="classes")
            title = f"<summary>{escape(results['tasks'][task])}</summary>"
            strip = _strip(found, methods)
            parts.append(f'<details class="task">{title}{strip}{table}</details>')
    return "\n".join([f'<p class="note">{prose(note)}</p>', *parts])


def _models(methods: list[MethodRuns]) -> dict[str, tuple[str, str]]:
    """By the name that samples.json has: how a row is called, before and in plain text."""
    found = {ZERO_SHOT: ("", "Zero-shot")}
    for method in methods:
        for edit, words in WORDS.items():
            found[f"{method.name}/{edit}"] = (method_key(method.name), f"{method.label}, {words}")
    return found


def _strip(found: TaskSamples, methods: list[MethodRuns]) -> str:
    """The pictures in a row, and below each what every model takes it for."""
    head = "".join(
        f'<th scope="col"><img class="sample" src="{escape(image["picture"])}" alt="">'
        f"<br>{escape(_name(found, image['label']))}</th>"
        for image in found["images"]
    )
    rows = []
    for model, (key, words) in _models(methods).items():
        cells = "".join(_answer(found, image["answers"].get(model), image["label"])
                        for image in found["images"])  # fmt: skip
        rows.append(f'<tr><td class="word">{key}{prose(words)}</td>{cells}</tr>')
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="Test images and answers">'
        f'<table class="strip"><thead><tr><th scope="col" class="word">Test image</th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _name(found: TaskSamples, label: int) -> str:
    return found["classes"][label] if label >= 0 else "not finite"


def _answer(found: TaskSamples, answer: int | None, label: int) -> str:
    if answer is None:
        return f"<td>{NONE}</td>"
    name = escape(_name(found, answer))
    return f"<td>{name}</td>" if answer == label else f"<td><del>{name}</del></td>"


def class_table(found: TaskSamples, methods: list[MethodRuns]) -> Table:
    """Accuracies by class; of many classes, those that the sum or the subtraction changes most."""
    models = {model: words for model, (_, words) in _models(methods).items()
              if model in found["accuracies"]}  # fmt: skip
    shown = [place for place, count in enumerate(found["counts"]) if count]
    notes: tuple[str, ...] = ()
    if len(shown) > CLASSES:
        notes = (f"The {CLASSES} of {len(shown)} classes whose accuracy changes most.",)
        changes = _changes(found["accuracies"])
        shown = sorted(sorted(shown, key=lambda place: -changes[place])[:CLASSES])
    rows = [
        (
            found["classes"][place],
            str(found["counts"][place]),
            *(_percent(found["accuracies"][model][place]) for model in models),
        )
        for place in shown
    ]
    return Table("", ("Class", "Images", *models.values()), tuple(rows), notes)


def _changes(accuracies: Mapping[str, list[float | None]]) -> list[float]:
    """By class, the largest difference of any model from zero-shot."""
    before = accuracies[ZERO_SHOT]
    return [
        max(abs((each[place] or 0.0) - (value or 0.0)) for each in accuracies.values())
        for place, value in enumerate(before)
    ]


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f}"
