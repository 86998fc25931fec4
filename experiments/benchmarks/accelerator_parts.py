"""What `accelerator.py` measures: for each part its cells, and the rows that a cell becomes.

A cell is a dict of texts and numbers, which tells the process that measures it all it has to know.
The first cells of a part matter most: when its time is over the rest is left out.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numerics
import numpy as np
import penalty
from cost import CLASSES, CompiledStep, random_model
from measuring import HeldBytes, queued_seconds

from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import PRESETS, ClipConfig, VisionConfig
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator
from orthoreg_jax.merging import MERGERS, merge_task_vectors
from orthoreg_jax.penalties.orthoreg import orthogonality_penalty
from orthoreg_jax.training.modes import MODES, make_mode

Cell = dict[str, Any]
Row = dict[str, Any]

TINY = ClipConfig(
    visual=VisionConfig(
        width=32,
        layers=2,
        heads=2,
        mlp_width=64,
        activation="quick_gelu",
        eps=1e-5,
        image_size=32,
        patch_size=16,
    ),
    text=None,
    projection=32,
)  # type: ignore
PRESETS["tiny"] = TINY
VECTORS, RANK = 8, 16  # task vectors to merge
# A setting -> the precision of float32 products, and the type of activations.
SETTINGS = {
    "highest": ("highest", "float32"),
    "high": ("high", "float32"),
    "default": ("default", "float32"),
    "bfloat16": ("default", "bfloat16"),
}
PAIR = ("", ORTHOREG)


class Part(NamedTuple):
    """One part of the measurement.

    Attributes:
      cells: (dry) -> its cells.
      measure: a cell -> rows, in a process that has the device to itself.
      seconds: for all of it.
      limit: seconds for one cell, after which its process is ended.
      prepare: what does not count for the cell's time.
    """

    cells: Callable[[bool], list[Cell]]
    measure: Callable[[Cell], list[Row]]
    seconds: float
    limit: float
    prepare: Callable[[Cell], Any] = lambda cell: None


# Peaks: what the device can do at best.


def peak_cells(dry: bool) -> list[Cell]:
    """A large product in each setting, and a copy."""
    return [{"setting": name, "side": 256 if dry else 8192} for name in SETTINGS]


def measure_peak(cell: Cell) -> list[Row]:
    """Operations a second of a product of square matrices; bytes a second of a negation."""
    precision, dtype = SETTINGS[cell["setting"]]
    side = cell["side"]
    square = jax.random.normal(jax.random.key(0), (side, side), jnp.dtype(dtype))
    product = jax.jit(functools.partial(jnp.matmul, precision=precision))
    negative = jax.jit(jnp.negative)
    seconds = queued_seconds(lambda: product(square, square))
    copying = queued_seconds(lambda: negative(square), 10)
    return [
        cell | {"tflops": 2 * side**3 / seconds / 1e12, "copied": 2 * square.nbytes / copying / 1e9}
    ]


# Numerics: the device against the CPU of its machine.


def numerics_cells(dry: bool) -> list[Cell]:
    """Features, penalties, and steps of all methods."""
    towers = [("embedded", 64), ("ViT-B/32", 8)] if not dry else [("tiny", 4)]
    training = ("tiny", 3) if dry else ("embedded", 20)
    methods = [[mode + plus for plus in PAIR] for mode in MODES]
    return [
        *({"kind": "features", "model": model, "images": images} for model, images in towers),
        *({"kind": "penalty", "form": form} for form in ("released", "paper")),
        *(
            {
                "kind": "training",
                "model": training[0],
                "steps": training[1],
                "methods": pair,
            }
            for pair in ([["full" + ORTHOREG]] if dry else methods)
        ),
    ]


def measure_numerics(cell: Cell) -> list[Row]:
    """Relative errors, and whether they are as small as they should be."""
    kind = cell["kind"]
    if kind == "features":
        return numerics.rows(cell["model"], numerics.features(cell["model"], cell["images"]))
    if kind == "penalty":
        return [
            row
            for updates in (*numerics.UPDATES, *numerics.EXACT)
            for row in numerics.rows(
                f"penalty, {cell['form']} form, updates {updates}",
                numerics.penalty(cell["form"], updates),
                updates in numerics.EXACT,
            )
        ]
    found = numerics.side_by_side(cell["model"], cell["methods"], cell["steps"])
    return [
        row
        for method, errors in found.items()
        for row in numerics.rows(f"{cell['steps']} steps, {method}", errors)
    ]


# Steps: of fine-tuning, ours and PyTorch's.


def step_cells(dry: bool) -> list[Cell]:
    """What informs most comes first."""
    if dry:
        return [_step("tiny", "full" + plus, "default", 8, 2) for plus in PAIR]
    cells = []

    def add(model: str, modes: Sequence[str], settings: Sequence[str]) -> None:
        batch = (128, 2) if model == "ViT-L/14" else (128, 1)
        cells.extend(
            _step(model, mode + plus, setting, *batch)
            for setting in settings
            for mode in modes
            for plus in PAIR
        )

    add("ViT-B/32", ["full", "linearized"], ["default"])
    add("ViT-L/14", ["full"], ["default", "bfloat16"])
    add("ViT-B/32", ["full"], ["highest", "bfloat16"])
    add("ViT-L/14", ["linearized"], ["default"])
    add("ViT-B/32", ["attention", "lora"], ["default"])
    add("ViT-B/16", ["full"], ["default", "bfloat16"])
    add("ViT-L/14", ["full"], ["highest"])
    add("ViT-L/14", ["attention", "lora"], ["default"])
    add("ViT-L/14", ["linearized"], ["bfloat16"])
    add("ViT-B/32", ["linearized"], ["highest", "bfloat16"])
    add("ViT-B/16", ["linearized"], ["default"])
    add("ViT-B/16", ["full"], ["highest"])
    # The penalty as it is by default, whatever the precision of the model.
    both = [cell for cell in cells if cell["method"] == "full" + ORTHOREG]
    precise = [cell | {"penalty": "highest"} for cell in both if cell["setting"] == "default"]
    return cells[:8] + precise[:2] + cells[8:] + precise[2:]


def _step(model: str, method: str, setting: str, batch: int, accumulate: int) -> Cell:
    return {
        "model": model,
        "method": method,
        "setting": setting,
        "batch": batch,
        "accumulate": accumulate,
        "penalty": SETTINGS[setting][0] if method.endswith(ORTHOREG) else "",
    }


def measure_step(cell: Cell) -> list[Row]:
    """Time, operations and memory of one compiled step."""
    precision, dtype = SETTINGS[cell["setting"]]
    gc.collect()  # the state of the step before

    def compiled(remat: bool) -> CompiledStep:
        return CompiledStep(
            cell["model"],
            cell["method"],
            cell["batch"],
            dtype,
            remat,
            cell["accumulate"],
            cell["penalty"] or "highest",
        )

    with jax.default_matmul_precision(precision):
        try:
            remat, step = False, compiled(False)
            jax.block_until_ready(step.run())
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            step = None
            gc.collect()
            remat, step = True, compiled(True)
    with HeldBytes() as held:
        seconds = queued_seconds(step.run, 3, 4)
    return [
        cell
        | {
            "by": "JAX",
            "seconds": seconds,
            "tflops": step.operations / seconds / 1e12,
            "megabytes": step.bytes / 2**20,
            "held_megabytes": held.most and held.most / 2**20,
            "compile_seconds": step.compile_seconds,
            "remat": remat,
        }
    ]


def torch_cells(dry: bool) -> list[Cell]:
    """Full fine-tuning; none where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return []
    if dry:
        cells = [_step("tiny", "full" + plus, "default", 8, 2) for plus in PAIR]
        return [cell | {"by": "PyTorch eager"} for cell in cells]
    wanted = [
        ("PyTorch eager", "ViT-B/32", "default"),
        ("torch.compile", "ViT-B/32", "default"),
        ("PyTorch eager", "ViT-L/14", "default"),
        ("PyTorch eager", "ViT-B/32", "bfloat16"),
        ("PyTorch eager", "ViT-L/14", "bfloat16"),
        ("PyTorch eager", "ViT-B/32", "highest"),
        ("torch.compile", "ViT-L/14", "default"),
        ("PyTorch eager", "ViT-B/16", "default"),
        ("torch.compile", "ViT-B/32", "bfloat16"),
        ("torch.compile", "ViT-L/14", "bfloat16"),
    ]
    return [
        _step(model, "full" + plus, setting, 128, 2 if model == "ViT-L/14" else 1) | {"by": by}
        for by, model, setting in wanted
        for plus in PAIR
    ]


def measure_torch(cell: Cell) -> list[Row]:
    """The same of PyTorch, which has the device to itself: JAX is asked for nothing here."""
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


# The penalty, against the two matrix products that it cannot do without.


def penalty_cells(dry: bool) -> list[Cell]:
    """Each model at each precision."""
    models = ["tiny"] if dry else ["ViT-B/32", "ViT-L/14"]
    return [{"model": model, "setting": name} for name in ("highest", "default", "high")
            for model in models]  # fmt: skip


def measure_penalty(cell: Cell) -> list[Row]:
    """Value and gradient, theirs by autodiff, and the products alone."""
    precision, delta = cell["setting"], _updates(cell["model"])
    matrices = penalty.stacks(delta)
    ours = jax.jit(
        jax.value_and_grad(
            functools.partial(orthogonality_penalty, matrices=VISUAL_MATRICES, precision=precision)
        )
    )
    plain = jax.jit(
        jax.value_and_grad(functools.partial(penalty.plain_penalty, precision=precision))
    )
    products = jax.jit(functools.partial(penalty.two_products, precision=precision))
    squares = penalty.squares_like(matrices)
    ways = {
        "seconds": lambda: ours(delta),
        "products": lambda: products(matrices, squares),
        "autodiff": lambda: plain(matrices),
    }
    found = {name: queued_seconds(way) for name, way in ways.items()}
    return [cell | found | {"tflops": penalty.operations(matrices) / found["seconds"] / 1e12}]


@functools.lru_cache(maxsize=1)
def _updates(model: str) -> Any:
    return jax.device_put(penalty.updates(model))


# Sweeps over alpha: of edited models, and of linearised ones.


def sweep_cells(dry: bool) -> list[Cell]:
    """Both kinds, in each setting."""
    sizes = {"model": "tiny", "images": 16, "batch": 8} if dry else {
        "model": "ViT-B/32", "images": 1024, "batch": 128}  # fmt: skip
    settings = ("default",) if dry else ("default", "highest", "bfloat16")
    return [sizes | {"setting": setting, "mode": mode} for setting in settings
            for mode in ("full", "linearized")]  # fmt: skip


def measure_sweep(cell: Cell) -> list[Row]:
    """Images a second, each of them classified with every alpha of the grid."""
    precision, dtype = SETTINGS[cell["setting"]]
    config, params0 = random_model(cell["model"])
    options = default_config()
    alphas = np.asarray(options.evaluation.alphas, np.float32)
    images, batch, size = cell["images"], cell["batch"], config.visual.image_size
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (images // batch, batch, size, size, 3), dtype=np.uint8)
    head = rng.normal(size=(CLASSES, config.projection)).astype(np.float32)
    data = EvaluationSet(
        Head(jnp.asarray(head), jnp.int32(CLASSES)),
        [jax.device_put(one) for one in pixels],
        rng.integers(0, CLASSES, images),
    )
    vector = jax.tree.map(lambda leaf: 1e-3 * leaf, params0)
    apply = image_encoder(config, jnp.dtype(dtype))

    def normalize(images: Any) -> Any:
        return images.astype(jnp.float32) / 255

    with jax.default_matmul_precision(precision):
        evaluator = Evaluator(apply, params0, normalize, make_mode(cell["mode"], options).outputs)
        forward = jax.jit(lambda params, images: apply(params, normalize(images)))
        seconds = queued_seconds(
            lambda: evaluator.predictions([vector], alphas[:, None], data), 1, 3
        )
        alone = queued_seconds(lambda: [forward(params0, one) for one in data.batches], 1, 5)
    return [
        cell
        | {
            "alphas": len(alphas),
            "seconds": seconds,
            "images_per_second": images / seconds,
            "forward_seconds": alone,
        }
    ]


# Mergers, on vectors as large as those of the paper's models.


def merger_cells(dry: bool) -> list[Cell]:
    """Each of the table; the small model's first."""
    models = ["tiny"] if dry else ["ViT-B/32", "ViT-L/14"]
    names = ("average", "ties", "iso_c") if dry else MERGERS
    return [{"model": model, "merger": name} for model in models for name in names]


@functools.lru_cache(maxsize=1)
def vectors(model: str) -> list[Any]:
    """Task vectors of low rank and noise; the leaves that are no matrices are noise."""
    shapes = jax.eval_shape(lambda: random_model.__wrapped__(model)[1])

    def leaf(key: Any, shape: tuple[int, ...]) -> Any:
        keys = jax.random.split(key, 3)
        noise = 1e-4 * jax.random.normal(keys[0], shape)
        if len(shape) < 2:
            return noise
        left = jax.random.normal(keys[1], (*shape[:-1], RANK))
        right = jax.random.normal(keys[2], (*shape[:-2], RANK, shape[-1]))
        return noise + 1e-3 * left @ right

    leaves, structure = jax.tree.flatten(shapes)

    @jax.jit
    def make(key: Any) -> Any:
        keys = jax.random.split(key, len(leaves))
        made = [leaf(own, each.shape) for own, each in zip(keys, leaves, strict=True)]
        return jax.tree.unflatten(structure, made)

    return jax.block_until_ready([make(jax.random.key(task)) for task in range(VECTORS)])


def measure_merger(cell: Cell) -> list[Row]:
    """Seconds of the first time, which compiles, and of another; memory beyond the vectors."""
    merger = MERGERS[cell["merger"]]()
    trees, key = vectors(cell["model"]), jax.random.key(0) if merger.random else None

    def merge() -> Any:
        merged = merge_task_vectors(trees, merger, matrices=VISUAL_MATRICES, key=key)
        return jax.block_until_ready(merged)

    gc.collect()
    with HeldBytes() as held:
        before, began = held.most, time.perf_counter()
        merge()
        first = time.perf_counter() - began
        again = []
        for _ in range(3 if first < 5 else 0):
            began = time.perf_counter()
            merge()
            again.append(time.perf_counter() - began)
    more = None if before is None else (held.most - before) / 2**20
    seconds = statistics.median(again) if again else None
    return [cell | {"first": first, "seconds": seconds, "megabytes": more}]


PARTS = {
    "peaks": Part(peak_cells, measure_peak, 45, 25),
    "numerics": Part(numerics_cells, measure_numerics, 110, 90),
    "steps": Part(step_cells, measure_step, 150, 75, lambda cell: random_model(cell["model"])),
    "torch": Part(torch_cells, measure_torch, 80, 70),
    "penalty": Part(penalty_cells, measure_penalty, 40, 30, lambda cell: _updates(cell["model"])),
    "sweeps": Part(sweep_cells, measure_sweep, 30, 25, lambda cell: random_model(cell["model"])),
    "mergers": Part(merger_cells, measure_merger, 80, 30, lambda cell: vectors(cell["model"])),
}


def machine(part: str) -> dict[str, Any]:
    """What measures."""
    facts = {"cores": os.cpu_count(), "python": platform.python_version()}
    if part == "torch":
        import torch

        gpu = torch.cuda.is_available()
        device = torch.cuda.get_device_name() if gpu else jax.devices("cpu")[0].device_kind
        return facts | {"device": device, "torch": torch.__version__}
    device = jax.devices()[0]
    return facts | {
        "device": device.device_kind,
        "platform": device.platform,
        "jax": jax.__version__,
    }
