"""Compares a device's results with those of this process's CPU in float32.

Errors are relative, for each precision of float32 matrix products. Compiling takes most of the
time, so all precisions, the CPU's version and several cells are compiled in parallel.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cost import random_model

from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.arithmetic.rules import Matrix
from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.penalties.orthoreg import orthogonality_penalty
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.training.modes import MODES, make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

from .part import PAIR, Cell, Part, Parts, Row, done, number

CLASSES, BATCH = 10, 32
PRECISIONS = ("highest", "default")
# Square, tall and wide; one row, one column; sides that no GPU tile size divides.
SHAPES = ((3, 64, 64), (1, 200, 63), (2, 37, 1000), (1, 1, 7), (1, 7, 1), (4, 129, 50))
# Random updates, and updates whose value and gradient are known.
UPDATES = ("of size 1e-3", "of singular values near 1", "1e-2 from orthonormal")
EXACT = ("zero", "orthonormal")
# The largest relative errors to expect from sums in another order.
BOUNDS = {"features": 2e-5, "value": 1e-5, "gradient": 1e-4, "update": 2e-3, "loss": 1e-4}

Errors = dict[str, dict[str, float]]  # a quantity -> a precision -> the relative error


def relative_error(found: Any, expected: Any) -> float:
    """The norm of the difference, relative to the norm of `expected`; 0 for two zeros."""
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    double = [(np.asarray(one, np.float64), np.asarray(two, np.float64)) for one, two in pairs]
    off = math.sqrt(sum(np.sum((one - two) ** 2) for one, two in double))
    size = math.sqrt(sum(np.sum(two**2) for _, two in double))
    return off / size if off and size else off


def compare(compute: Callable[[str], dict[str, Any]]) -> Errors:
    """Errors of `compute(precision)` on the device, for each precision."""

    def on(device: jax.Device, precision: str) -> dict[str, Any]:
        # Both settings are thread-local.
        with jax.default_device(device), jax.default_matmul_precision(precision):
            return jax.device_get(compute(precision))

    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = {precision: pool.submit(on, device, precision) for precision in PRECISIONS}
        expected = pool.submit(on, cpu, "highest").result()
        found = {precision: job.result() for precision, job in jobs.items()}
    return {
        quantity: {
            precision: relative_error(own[quantity], expected[quantity])
            for precision, own in found.items()
        }
        for quantity in expected
    }


def cells(dry: bool) -> list[Cell]:
    """Cells for features, penalties, and steps of all methods."""
    towers = [("embedded", 64), ("ViT-B/32", 8)] if not dry else [("tiny", 4)]
    model, steps = ("tiny", 3) if dry else ("embedded", 20)
    methods = ["full" + ORTHOREG] if dry else [mode + plus for mode in MODES for plus in PAIR]
    return [
        *({"kind": "features", "model": model, "images": images} for model, images in towers),
        *({"kind": "penalty", "form": form} for form in ("released", "paper")[: 1 if dry else 2]),
        *({"kind": "training", "model": model, "steps": steps, "method": m} for m in methods),
    ]


def prepare(cell: Cell) -> list[Row]:
    """Relative errors, and whether they are within their bounds."""
    if cell["kind"] == "features":
        return judged(f"{cell['model']}: features", features(cell["model"], cell["images"]))
    if cell["kind"] == "penalty":
        return [
            row
            for updates in (*UPDATES, *EXACT)
            for row in judged(
                f"penalty, {cell['form']} form, updates {updates}",
                penalty(cell["form"], updates),
                updates in EXACT,
            )
        ]
    found = training(cell["model"], cell["method"], cell["steps"])
    return judged(f"{cell['steps']} steps, {cell['method']}", found)


def features(model: str, images: int) -> Errors:
    """Errors of an image tower's features: the embedded one, or one with random weights."""
    if model == "embedded":
        checkpoint = load_checkpoint(model)
        config, params = checkpoint.config, checkpoint.params["visual"]
    else:
        config, params = random_model(model)
    params, size = jax.device_get(params), config.visual.image_size
    pixels = np.random.default_rng(0).normal(size=(images, size, size, 3)).astype(np.float32)
    apply = image_encoder(config)
    return compare(lambda _: {"features": jax.jit(apply)(params, pixels)})


def random_updates(kind: str) -> list[np.ndarray]:
    """Stacks of random matrices of the shapes above."""
    rng, found = np.random.default_rng(0), []
    for shape in SHAPES:
        update = rng.normal(size=shape)
        left, _, right = np.linalg.svd(update, full_matrices=False)
        if kind == UPDATES[0]:
            update *= 1e-3
        elif kind == UPDATES[1]:
            update = left * rng.uniform(0.5, 1.5, (len(left), 1, left.shape[2])) @ right
        else:
            update = left @ right + 1e-2 * update / math.sqrt(max(shape))
        found.append(update.astype(np.float32))
    return found


def exact_updates(kind: str) -> list[np.ndarray]:
    """The same shapes of zeros, or with one 1 or -1 per row or column: without rounding error."""
    found = []
    for stack, rows, columns in SHAPES:
        signs = np.where(np.arange(rows) % 2, -1, 1)[:, None]
        one = np.roll(np.eye(rows, columns), 1, axis=0) * signs * (kind == "orthonormal")
        found.append(np.tile(one, (stack, 1, 1)).astype(np.float32))
    return found


@functools.cache  # all kinds of updates have the same shapes, so it is compiled once
def _penalties(form: str, precision: str) -> Callable[[list[np.ndarray]], Any]:
    """Value and gradient of each stack separately."""
    function = functools.partial(
        orthogonality_penalty, matrices={"*": Matrix()}, form=form, precision=precision
    )
    return jax.jit(lambda stacks: [jax.value_and_grad(function)({"update": s}) for s in stacks])


def penalty(form: str, kind: str) -> Errors:
    """Errors of the penalty's value and gradient; the largest over the shapes."""
    updates = (exact_updates if kind in EXACT else random_updates)(kind)

    def compute(precision: str) -> dict[str, Any]:
        found = _penalties(form, precision)(updates)
        return {f"{quantity} {n}": pair for n, pairs in enumerate(found)
                for quantity, pair in zip(("value", "gradient"), pairs, strict=True)}  # fmt: skip

    errors = compare(compute)
    return {
        quantity: {
            precision: max(errors[f"{quantity} {n}"][precision] for n in range(len(SHAPES)))
            for precision in PRECISIONS
        }
        for quantity in ("value", "gradient")
    }


def training(model: str, method: str, steps: int) -> Errors:
    """Errors of the update by some steps of fine-tuning, and of their losses."""
    if model == "embedded":
        checkpoint = load_checkpoint(model)
        config, params0 = checkpoint.config, checkpoint.params["visual"]
    else:
        config, params0 = random_model(model)
    params0, size, rng = jax.device_get(params0), config.visual.image_size, np.random.default_rng(0)
    mode_name, plus, _ = method.partition(ORTHOREG)
    mode = make_mode(mode_name, default_config())
    optimizer = make_optimizer(1e-3, 5, 2 * steps, 0.1, 1.0)
    weights = rng.normal(size=(CLASSES, config.projection)).astype(np.float32)
    head = Head(jnp.asarray(weights), jnp.int32(CLASSES))
    images = rng.integers(0, 256, (steps, BATCH, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, (steps, BATCH)).astype(np.int32)

    def compute(precision: str) -> dict[str, Any]:
        step = make_train_step(
            mode,
            image_encoder(config),
            optimizer,
            lambda images: images.astype(jnp.float32) / 255,
            (orthogonality(10.0, "released", VISUAL_MATRICES, precision),) if plus else (),
        )
        here = jax.device_put(params0, jax.config.jax_default_device)  # type: ignore[attr-defined]
        state, losses = init_state(mode, optimizer, here, jax.random.key(0)), []
        for batch in zip(images, labels, strict=True):
            state, metrics = step(state, here, head, *batch)
            losses.append(metrics.loss)
        update = dense(mode.delta(state.trainable, here))
        return {"update": update, "loss": jnp.stack(losses)}

    return compare(compute)


def judged(label: str, errors: Errors, exact: bool = False) -> list[Row]:
    """One row for each quantity, with its bound and whether "highest" is within it.

    With `exact`, for updates without rounding error, the gradient must be correct to the last bit,
    at every precision.
    """

    def finite(error: float) -> float | None:
        return error if math.isfinite(error) else None  # JSON has no NaN

    found = []
    for quantity, own in errors.items():
        bound = BOUNDS[quantity]
        if exact:
            bound = 0.0 if quantity == "gradient" else 1e-6  # the value is a square root
        checked: Sequence[str] = PRECISIONS if exact else ("highest",)
        found.append(
            {
                "of": label if label.endswith(quantity) else f"{label}: {quantity}",
                "errors": {precision: finite(error) for precision, error in own.items()},
                "bound": bound,
                "passed": all(own[precision] <= bound for precision in checked),  # False for NaN
            }
        )
    return found


def table(parts: Parts) -> list[str]:
    """The errors, and a verdict."""
    rows = done(parts, "numerics")
    passed = sum(row["passed"] for row in rows)
    missing = len(parts["numerics"]["rows"]) - len(rows) + len(parts["numerics"]["left"])
    verdict = "FAIL" if passed < len(rows) else "INCOMPLETE" if missing else "PASS"
    lines = [
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
        'CPU of the same machine in float32 at "highest". "update" is the change of the weights '
        "by all steps; the penalty of a step is computed at the same precision. A dash: not "
        "finite. For zero and orthonormal updates the gradient is 0 and must be 0 at every "
        "precision.",
        markdown_rows(("", *PRECISIONS, "bound", ""), lines),
    ]


PART = Part(
    "What it computes, against the CPU",
    cells,
    lambda cell, rows: [{"cell": cell} | row for row in rows],
    table,
    180,
    150,
    prepare,
    6,
)
