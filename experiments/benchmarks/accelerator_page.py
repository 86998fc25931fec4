"""The page that `accelerator.py` writes: a section for each part that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orthoreg_jax.config import PRECISIONS
from orthoreg_jax.reporting.tables import NONE, markdown_rows

Row = Mapping[str, Any]
Parts = Mapping[str, Any]


OUT_OF_TIME = "the time of this part was over"  # as errors of cells that it ended begin


def number(value: float | None, form: str = ".1f", factor: float = 1) -> str:
    """A number, or a dash for what there is not."""
    return NONE if value is None else f"{factor * value:{form}}"


def page(name: str, parts: Parts) -> str:
    """The file's text."""
    lines = [f"# Measured on one accelerator: {name.replace('_', ' ')}"]
    if name == "dry":
        lines.append("A dry run, tiny and on any machine: it proves the script. No number counts.")
    lines.append(
        'Precisions are of float32 matrix products: "highest", "high" and "default" as JAX has '
        'them (on a GPU the latter two are TF32); "bfloat16" stands for bfloat16 activations with '
        "float32 weights, the rest of the products by default. Times are medians, of calls that "
        "are queued, as in training. Weights and images are random."
    )
    for part, (title, table) in SECTIONS.items():
        if part in parts:
            lines += section(title, parts[part], table(parts))
    return "\n\n".join(lines) + "\n"


def section(title: str, part: Any, body: list[str]) -> list[str]:
    """A part's heading, where it was measured, its tables, and what is missing."""
    facts = part["machine"]
    shown = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "device")
    lines = [f"## {title}", f"    {part['command']}", f"{facts['device']} ({shown}).", *body]
    errors = [row for row in part["rows"] if "error" in row]
    failed = [row for row in errors if not row["error"].startswith(OUT_OF_TIME)]
    if failed:
        lines.append("Failed:")
        lines.append("\n".join(f"- {_words(row)}: `{_line(row['error'])}`" for row in failed))
    left = len(part["left"]) + len(errors) - len(failed)
    if left:
        lines.append(f"{left} cells not measured: {OUT_OF_TIME}.")
    return lines


def _words(row: Row) -> str:
    """A cell, by its texts."""
    texts = (row[key] for key in row if key not in ("error", "cell_seconds"))
    return " ".join(text for text in texts if isinstance(text, str) and text)


def _line(text: str) -> str:
    return " ".join(text.replace("`", "'").split())


def _done(parts: Parts, part: str) -> list[Row]:
    return [row for row in parts.get(part, {"rows": []})["rows"] if "error" not in row]


def peaks(parts: Parts) -> list[str]:
    """Products and copies."""
    rows = [
        [row["setting"], str(row["side"]), number(row["tflops"]), number(row["copied"], ".0f")]
        for row in _done(parts, "peaks")
    ]
    return [markdown_rows(("", "side", "TFLOP/s", "read and written, GB/s"), rows)]


def numerics(parts: Parts) -> list[str]:
    """Errors, and a verdict."""
    rows = _done(parts, "numerics")
    passed = sum(row["passed"] for row in rows)
    missing = len(parts["numerics"]["rows"]) - len(rows) + len(parts["numerics"]["left"])
    verdict = "FAIL" if passed < len(rows) else "INCOMPLETE" if missing else "PASS"
    cells = [
        [
            row["of"],
            *(number(row["errors"][precision], ".1e") for precision in PRECISIONS),
            f"{row['bound']:.0e}" if row["bound"] else "0",
            "PASS" if row["passed"] else "FAIL",
        ]
        for row in rows
    ]
    return [
        f'**{verdict}**: {passed} of {len(rows)} within their bounds at "highest".',
        "Relative differences (norm of the difference over the norm) between the device and the "
        'CPU of the same machine in float32 at "highest". "update" is what all steps changed in '
        "the weights; the penalty of a step is computed at the same precision. A dash: not finite. "
        "Of zero and orthonormal updates the gradient is 0 and has to be so at every precision.",
        markdown_rows(("", *PRECISIONS, "bound", ""), cells),
    ]


def steps(parts: Parts) -> list[str]:
    """Ours, the share of the peak beside."""
    peak = {row["setting"]: row["tflops"] for row in _done(parts, "peaks")}
    plain = {_key(row): row["seconds"] for row in _done(parts, "steps")}
    cells = []
    for row in _done(parts, "steps"):
        base = plain.get(_key({**row, "method": row["method"].partition("+")[0], "penalty": ""}))
        top = peak.get(row["setting"])
        cells.append(
            [
                *_names(row),
                row["penalty"] or NONE,
                number(row["seconds"], ".2f", 1000),
                number(base and row["seconds"] / base, ".3f"),
                number(row["tflops"]),
                number(top and row["tflops"] / top, ".0f", 100),
                number(row["megabytes"], ".0f"),
                number(row["held_megabytes"], ".0f"),
                number(row["compile_seconds"]),
                "yes" if row["remat"] else "no",
            ]
        )
    header = ("model", "method", "batch", "precision", "penalty's", "ms", "/ without penalty",
              "TFLOP/s", "% of peak", "MB by XLA", "MB held", "compile, s", "remat")  # fmt: skip
    return [
        "TFLOP/s are of the matrix products in the step as it was traced, and the peak is the "
        "large product above. MB by XLA: state, pre-trained weights, inputs, outputs and "
        "temporary arrays. MB held: the most that the allocator had given out while steps ran.",
        markdown_rows(header, cells, left=5),
    ]


def torch(parts: Parts) -> list[str]:
    """PyTorch's, ours beside."""
    ours = {_key(row): row["seconds"] for row in _done(parts, "steps")}
    cells = []
    for row in _done(parts, "torch"):
        own = ours.get(_key(row))
        cells.append(
            [
                row["by"],
                *_names(row),
                number(row["seconds"], ".2f", 1000),
                number(own, ".2f", 1000),
                number(own and row["seconds"] / own, ".2f"),
                number(row["held_megabytes"], ".0f"),
                number(row["compile_seconds"]),
            ]
        )
    header = ("", "model", "method", "batch", "precision", "ms", "ours, ms", "/ ours", "MB held",
              "first step beyond the others, s")  # fmt: skip
    return [
        'Full fine-tuning: fused AdamW, PyTorch\'s own attention; "bfloat16" is autocast; the '
        "penalty by autograd through the Gram matrices, as in the authors' code.",
        markdown_rows(header, cells, left=5),
    ]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in ("model", "method", "batch", "setting", "penalty"))


def _names(row: Row) -> list[str]:
    batch = str(row["batch"])
    if row["accumulate"] > 1:
        batch = f"{row['accumulate']} x {row['batch'] // row['accumulate']}"
    return [row["model"], row["method"], batch, row["setting"]]


def penalty(parts: Parts) -> list[str]:
    """Against its products."""
    peak = {row["setting"]: row["tflops"] for row in _done(parts, "peaks")}
    cells = []
    for row in _done(parts, "penalty"):
        top = peak.get(row["setting"])
        cells.append(
            [
                row["model"],
                row["setting"],
                number(row["seconds"], ".2f", 1000),
                number(row["products"], ".2f", 1000),
                f"{row['seconds'] / row['products']:.2f}",
                number(row["autodiff"], ".2f", 1000),
                f"{row['autodiff'] / row['seconds']:.2f}",
                number(row["tflops"]),
                number(top and row["tflops"] / top, ".0f", 100),
            ]
        )
    header = ("model", "precision", "value and gradient, ms", "its two products alone, ms",
              "ours / these", "plain autodiff, ms", "/ ours", "TFLOP/s", "% of peak")  # fmt: skip
    return [markdown_rows(header, cells, left=2)]


def sweeps(parts: Parts) -> list[str]:
    """Edited and linearised."""
    cells = [
        [
            row["model"],
            "linearised" if row["mode"] == "linearized" else "edited",
            row["setting"],
            str(row["alphas"]),
            number(row["images_per_second"], ",.0f"),
            number(row["seconds"], ".3f"),
            number(row["forward_seconds"], ".3f"),
            f"{row['seconds'] / row['forward_seconds']:.2f}",
        ]
        for row in _done(parts, "sweeps")
    ]
    header = ("model", "", "precision", "alphas", "images / s", "sweep, s", "one forward pass, s",
              "sweep / this")  # fmt: skip
    note = "Images a second: each of them classified with every alpha. Images lie on the device."
    return [note, markdown_rows(header, cells, left=3)]


def mergers(parts: Parts) -> list[str]:
    """Seconds and memory."""
    cells = [
        [
            row["model"],
            row["merger"],
            number(row["first"], ".2f"),
            number(row["seconds"], ".3f"),
            number(row["megabytes"], ".0f"),
        ]
        for row in _done(parts, "mergers")
    ]
    header = ("shapes of", "merger", "first, s", "again, s", "MB beside the vectors")
    return [
        "Eight random task vectors of low rank and noise, which lie on the device. The first time "
        "compiles; one that takes over 5 s is not repeated.",
        markdown_rows(header, cells, left=2),
    ]


SECTIONS = {
    "peaks": ("What the device can do", peaks),
    "numerics": ("What it computes, against the CPU", numerics),
    "steps": ("Train steps", steps),
    "torch": ("The same in PyTorch", torch),
    "penalty": ("The penalty against its products", penalty),
    "sweeps": ("Sweeps over alpha", sweeps),
    "mergers": ("Mergers", mergers),
}
