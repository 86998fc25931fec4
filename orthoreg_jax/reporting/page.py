"""Makes report.html: one file, readable without a network; its script only sorts tables."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from orthoreg_jax.config import default_config, flatten_config
from orthoreg_jax.evaluation.results import Results
from orthoreg_jax.experiment.samples import Samples

from .accuracy_tables import (
    alpha_table,
    analogy_table,
    difference_table,
    other_search_table,
    summary_table,
    task_table,
)
from .findings import describe_findings
from .geometry_tables import claims_table, features_table, geometry_table
from .html_elements import (
    SCRIPT,
    STYLE_SHEET,
    Drawing,
    escape,
    format_figure,
    format_html,
    join_words,
    prose,
    section,
)
from .samples import samples_html
from .summary import MethodRuns, control_title, group_methods, penalty_pairs
from .tables import Table

# Figure name -> heading, what it shows, and how to read it.
FIGURES = {
    "addition": (
        "Adding all task vectors",
        "Two line charts: mean validation accuracy of θ₀ + α Σ τ over the tasks, by the relative "
        "length ‖α Σ τ‖ / ‖θ₀‖, a line for each method.",
        "0 is the pre-trained model. The ringed α has the best normalised accuracy and is the one "
        "tested. A curve that stays high for longer is less sensitive to α. The normalised panel "
        "divides by each method's own single-task accuracy, so read it together with the other "
        "panel. Lengths are on a cube-root scale, because they differ widely between methods; "
        "bands: one standard deviation over seeds.",
    ),
    "tasks": (
        "Task by task",
        "Test accuracy, a panel for each task and a row for each method: a stroke for the model "
        "fine-tuned on that task alone, a symbol for the one model with all task vectors added.",
        "The line between the two is the cost of adding; a symbol left of the dotted zero-shot "
        "accuracy is a task that got worse. Thick: one standard deviation over seeds. Each panel "
        "has its own scale, which does not start at 0.",
    ),
    "negation": (
        "Subtracting one task vector",
        "Two line charts: validation accuracy of θ₀ − α τ by the relative length ‖α τ‖ / ‖θ₀‖, "
        "mean over the tasks, on the task to be forgotten (lower is better) and on the control "
        "task (higher is better).",
        "Thin dotted lines are the shares of zero-shot control accuracy to keep. For each task, "
        "the chosen α gives the lowest target accuracy among those above the line. Lengths are "
        "on a cube-root scale; bands: one standard deviation over seeds.",
    ),
    "disentanglement": (
        "Disentanglement error",
        "Heat maps of ξ(α₁, α₂), one for each method.",
        "ξ: how often adding the other task's vector changes the prediction for a task's test "
        "images, summed over both tasks of a pair (0: never, 2: always), mean over pairs. Dark is "
        "good. Along the axes only one vector is added, so one of the two terms is 0. The white "
        "square spans 0 to 1; the mean over the map is next to the method's name.",
    ),
    "cosines": (
        "Angles between task vectors",
        "Cosine of every two task vectors, a heat map for each method, on one colour scale.",
        "White is orthogonal; the mean |cosine| is next to the method's name. The paper links "
        "vectors closer to orthogonal with less interference.",
    ),
    "singular_values": (
        "Singular values of the weight updates",
        "Line charts of the singular values, largest first, a panel for each kind of matrix and a "
        "line for each method, on a logarithmic scale.",
        "Mean over tasks and layers, band from the 10th to the 90th percentile. OrthoReg is "
        "smallest where all singular values are 1 (dotted). Far below that line it mostly makes "
        "the update larger; it evens out the spectrum only near the line.",
    ),
    "angles": (
        "Angles between the columns of one matrix",
        "Share of column pairs by their angle, a panel for each kind of matrix: grey for the "
        "pre-trained weights, lines for the weight updates.",
        "Mean over tasks and layers. OrthoReg favours 90°.",
    ),
    "norms": (
        "Length of the task vectors",
        "Norm of each task vector, a panel for each task and a row for each method.",
        "A method that moves further from the pre-trained weights has a longer task vector, and "
        "the same α then means a larger step.",
    ),
    "training": (
        "Training",
        "Line charts of the loss, and of the penalty where there is one, by training step.",
        "Mean over tasks and seeds, band from minimum to maximum.",
    ),
}
# Penalty name -> the term that λ multiplies, and what the term means.
PENALTY_TEXTS = {
    "orthoreg": (
        "Σ<sub>ℓ</sub> ‖ G<sub>ℓ</sub> − I ‖<sub>F</sub>{power}",
        "G<sub>ℓ</sub> is the Gram matrix of the weight update ΔW<sub>ℓ</sub> of layer ℓ, over "
        "{side}; OrthoReg pulls the update toward orthonormal.",
    ),
    "taujp": (
        "E<sub>x</sub> ‖ J(x) τ ‖<sup>2</sup>",
        "x are training images of the other tasks; τJp keeps their linearised features unchanged.",
    ),
    "tak": (
        "Σ<sub>ℓ</sub> tr(ΔW<sub>ℓ</sub><sup>⊤</sup> A<sub>ℓ</sub> ΔW<sub>ℓ</sub> B<sub>ℓ</sub>)",
        "A<sub>ℓ</sub> and B<sub>ℓ</sub> are Kronecker factors of the other tasks' curvature; TAK "
        "has the aim of τJp but needs no images of those tasks.",
    ),
    "drift": (
        "Σ<sub>ℓ</sub> tr(ΔW<sub>ℓ</sub><sup>⊤</sup> A<sub>ℓ</sub> ΔW<sub>ℓ</sub> B<sub>ℓ</sub>)",
        "A<sub>ℓ</sub> and B<sub>ℓ</sub> are Kronecker factors of the curvature on the control "
        "task's validation images; nothing is known of the other tasks.",
    ),
}
# Nothing may be loaded, because the page is self-contained.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def make_page(
    results: Results,
    figures: Mapping[str, Drawing],
    folder: pathlib.Path,
    samples: Samples | None = None,
) -> str:
    """The whole page.

    Args:
      results: the run's results.
      figures: drawings by name, in the order of `FIGURES`.
      folder: the run folder, named in the page.
      samples: test images with answers, and accuracies by class; None: the run has none.
    """
    methods = {method.label: method.name for method in group_methods(results)}
    # The anchor, title and content of each section.
    sections: list[tuple[str, str, tuple[str, ...]]] = []

    def add(table: Table | None, anchor: str, *more: str) -> None:
        if table is not None:  # it was measured
            sections.append((anchor, table.title, (format_html(table, methods, anchor), *more)))

    words = "".join(f"<p>{_lead(paragraph)}</p>" for paragraph in describe_findings(results))
    add(summary_table(results), "summary", f'<div class="reading">{words}</div>')
    add(other_search_table(results), "other-search")
    add(difference_table(results), "differences")
    add(alpha_table(results), "alphas")
    add(claims_table(results), "claims")
    # Tables are below the figure that shows their numbers.
    tables = {"tasks": task_table, "norms": geometry_table}
    for name, (heading, seen, caption) in FIGURES.items():
        if name in figures:
            below = [format_html(tables[name](results), methods)] if name in tables else []
            figure = format_figure(name, seen, caption, figures[name])
            sections.append((name, heading, (figure, *below)))
    add(features_table(results), "features")
    add(analogy_table(results), "analogies")
    sections.append(("classes", "Classes and pictures", (samples_html(samples, results),)))
    links = "".join(
        f'<li><a href="#{anchor}">{escape(title)}</a></li>'
        for anchor, title, _ in (*sections, ("provenance", "Provenance", ()))
    )
    name = escape(folder.resolve().name)
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>OrthoReg: {name}</title>\n<style>\n{STYLE_SHEET}</style>\n</head>\n<body>",
            "<main>",
            "<h1>Task arithmetic with OrthoReg</h1>",
            f'<p class="under">Run <code>{name}</code></p>',
            _introduction(results),
            f'<nav aria-label="Contents"><ol>{links}</ol></nav>',
            *(section(anchor, title, *body) for anchor, title, body in sections),
            _provenance(results),
            f"</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _lead(paragraph: str) -> str:
    """A paragraph with its method in bold."""
    method, colon, rest = paragraph.partition(": ")
    return f"<b>{prose(method)}</b>: {prose(rest)}" if colon else prose(paragraph)


def _introduction(results: Results) -> str:
    """What was run, in one paragraph and one formula."""
    config, methods = results["config"], group_methods(results)
    model, count = f"<code>{escape(config['model'])}</code>", len(results["tasks"])
    trained = [method for method in methods if not method.is_given]
    sentences = []
    if trained:
        steps, batch = escape(_length(config)), escape(config["training.batch_size"])
        sentences.append(
            f"The image tower of the CLIP model {model} was fine-tuned on each of {count} tasks "
            f"separately, for {steps} of {batch} images, with {_labelled(results, trained)}."
        )
    if len(trained) < len(methods):
        whose = "Given models" if trained else f"Models made of the CLIP model {model}"
        sentences.append(
            f"{whose} were fine-tuned elsewhere, one for each of {count} tasks. How is not known "
            "here, so no training curve or strength of a penalty is shown for them; Provenance "
            "lists them."
        )
    paragraphs = [
        f"<p>{' '.join(sentences)} The change of the weights is the task vector "
        "τ = θ − θ₀. Adding all task vectors to the pre-trained weights should give one model that "
        "does every task; subtracting one should make the model forget that task and nothing else, "
        f"which the control task ({escape(control_title(results))}) checks.</p>"
    ]
    paper = config["penalty.form"] == "paper"
    for name, (formula, words) in PENALTY_TEXTS.items():
        strengths = {method.strengths[name] for method in methods if name in method.strengths}
        if strengths:
            values = join_words([f"{value:g}" for value in sorted(strengths)])
            formula = formula.format(power="<sup>2</sup>" if paper else "")
            words = words.format(side="columns" if paper else "the smaller side")
            paragraphs.append(
                f'<p class="formula">L = L<sub>task</sub> + λ {formula}, &nbsp; λ = '
                f"{escape(values)}</p><p>{words}</p>"
            )
    if config["model"] == "embedded":
        paragraphs.append(
            "<p>The embedded model is a small one that ships with the package, as do its tasks. "
            "Its accuracies are not comparable with those of ViT-B/32 or any published table; "
            "compare methods only within this page.</p>"
        )
    return "\n".join(paragraphs)


def _labelled(results: Results, methods: Sequence[MethodRuns]) -> str:
    """Ways to fine-tune, in words."""
    pairs = penalty_pairs(results)
    if 2 * len(pairs) == len(methods) and len({other.penalty for _, other in pairs}) == 1:
        labels = escape(join_words([plain.label for plain, _ in pairs]))
        return f"{labels}, without and with {escape(pairs[0][1].penalty)}"
    return escape(join_words([method.label for method in methods]))


def _length(config: Mapping[str, Any]) -> str:
    """Describes the length of training."""
    epochs = config["training.epochs"]
    if epochs < 0:
        return "the epochs of the field's recipe, in batches"
    if epochs > 0:
        return f"{epochs:g} epochs in batches"
    return f"{config['training.steps']} steps"


def _provenance(results: Results) -> str:
    """Config, versions, devices, hashes, and the command that repeats the run."""
    facts: dict[str, Any] = results["provenance"]
    versions = [
        row
        for machine in (facts, *facts["continued_with"])
        for row in (*machine["versions"].items(), ("devices", ", ".join(machine["devices"])))
    ]
    hashes = [(f"model: {name}", "", "", value) for name, value in facts["inputs"]["model"].items()]
    for name, task in facts["inputs"]["tasks"].items():
        hashes.append((name, "prompts", "", task["prompts_sha256"]))
        for split, entry in task["splits"].items():
            hashes.append((name, split, str(entry["images"]), entry["sha256"]))
    config = [(key, json.dumps(value)) for key, value in results["config"].items()]
    return "\n".join(
        [
            '<details id="provenance">',
            "<summary>Provenance: config, versions, hashes, command</summary>",
            "<h3>Repeat this run</h3>",
            "<p>Save this as <code>again.py</code>; it contains every option that differs from the "
            "defaults.</p>",
            f"<pre><code>{escape(config_file(results['config']))}</code></pre>",
            "<pre><code>orthoreg run --config again.py --workdir runs/again</code></pre>",
            "<h3>Versions and devices</h3>",
            format_html(Table("", ("Package", "Version"), _rows(versions), left=2), kind="hash"),
            "<h3>Every option</h3>",
            format_html(Table("", ("Option", "Value"), _rows(config), left=2), kind="hash"),
            *_given_models(results),
            "<h3>Inputs</h3>",
            format_html(
                Table("", ("Input", "Split", "Images", "SHA-256"), _rows(hashes), left=4),
                kind="hash",
            ),
            "</details>",
        ]
    )


def _given_models(results: Results) -> list[str]:
    """The models that were fine-tuned elsewhere, if there are any."""
    rows = [
        (task, *(model[key] or "–" for key in ("name", "revision", "sha256")))
        for run in results["runs"]
        for task, model in run.get("models", {}).items()
    ]
    table = Table("", ("Task", "Model", "Revision", "SHA-256"), _rows(rows), left=4)
    return ["<h3>Given models</h3>", format_html(table, kind="hash")] if rows else []


def _rows(rows: list[Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(map(str, row)) for row in rows)


def config_file(config: Mapping[str, Any]) -> str:
    """A Python config file that reproduces these options."""
    defaults = json.loads(json.dumps(flatten_config(default_config())))
    lines = [
        f"    config.{key} = {tuple(value) if isinstance(value, list) else value!r}"
        for key, value in config.items()
        if key not in defaults or value != defaults[key]
    ]
    return "\n".join(
        [
            "from orthoreg_jax.config import default_config",
            "",
            "",
            "def get_config():",
            "    config = default_config()",
            *lines,
            "    return config",
        ]
    )
