"""The same step in PyTorch, if it is installed; nothing here uses JAX's device."""

from __future__ import annotations

import gc
import importlib.util
import time
from typing import Any

from cost import CLASSES
from measuring import queued_seconds

from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.config import ORTHOREG
from orthoreg_jax.reporting.tables import markdown_rows

from .part import PAIR, SETTINGS, Cell, Part, Parts, Row, done, number
from .steps import batch_of, key, names, step_cell


def has_torch() -> bool:
    """Whether PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def cells(dry: bool) -> list[Cell]:
    """Cells for full fine-tuning; none if PyTorch is not installed."""
    if not has_torch():
        return []
    if dry:
        found = [step_cell("tiny", "full" + plus, "default", 8, 2) for plus in PAIR]
        return [cell | {"by": "PyTorch eager"} for cell in found]
    wanted = [
        ("PyTorch eager", "ViT-L/14", "default"),
        ("PyTorch eager", "ViT-B/32", "default"),
        ("torch.compile", "ViT-L/14", "bfloat16"),
        ("PyTorch eager", "ViT-L/14", "bfloat16"),
        ("torch.compile", "ViT-B/32", "default"),
        ("torch.compile", "ViT-L/14", "default"),
        ("PyTorch eager", "ViT-B/32", "bfloat16"),
        ("torch.compile", "ViT-B/32", "bfloat16"),
        ("PyTorch eager", "ViT-B/16", "default"),
        ("torch.compile", "ViT-B/16", "default"),
        ("PyTorch eager", "ViT-B/32", "highest"),
        ("PyTorch eager", "ViT-L/14", "highest"),
    ]
    return [
        step_cell(model, "full" + plus, setting, *batch_of(model)) | {"by": by}
        for by, model, setting in wanted
        for plus in PAIR
    ]


def measure(cell: Cell, _: Any) -> list[Row]:
    """Time and memory; the first step compiles."""
    import torch
    from torch_step import torch_training

    gpu = torch.cuda.is_available()
    if not gpu and cell["model"] != "tiny":
        raise RuntimeError("PyTorch sees no GPU here")
    wait = (lambda _: torch.cuda.synchronize()) if gpu else (lambda _: None)
    torch.compiler.reset()
    gc.collect()
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    precision, dtype = SETTINGS[cell["setting"]]
    step = torch_training(
        PRESETS[cell["model"]],
        cell["batch"],
        CLASSES,
        penalised=cell["method"].endswith(ORTHOREG),
        compiled=cell["by"] == "torch.compile",
        precision="highest" if precision == "highest" else "high",
        dtype=dtype,
        accumulate=cell["accumulate"],
        device="cuda" if gpu else "cpu",
    )
    began = time.perf_counter()
    wait(step())
    first = time.perf_counter() - began
    seconds = queued_seconds(step, 3, 4, wait)
    held = torch.cuda.max_memory_allocated() / 2**20 if gpu else None
    return [cell | {"seconds": seconds, "held_megabytes": held, "compile_seconds": first - seconds}]


def table(parts: Parts) -> list[str]:
    """PyTorch's steps, next to ours."""
    ours = {key(row): row["seconds"] for row in done(parts, "steps")}
    rows = []
    for row in done(parts, "torch"):
        own = ours.get(key(row))
        rows.append(
            [
                row["by"],
                *names(row),
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
        markdown_rows(header, rows, left=5),
    ]


PART = Part("The same in PyTorch", cells, measure, table, 120, 75)
