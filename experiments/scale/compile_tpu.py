r"""Compiles the real train step for TPU pods, without having one, and reports what it contains.

    pip install libtpu
    python experiments/scale/compile_tpu.py --topology v5e:2x2 --models ViT-B/32 ViT-L/14

For each model and method: memory per chip as XLA reports it, the collectives in one step, and the
CPU seconds of compiling. Only shapes matter: there are no weights and no images. Writes
experiments/results/tpu_TOPOLOGY.md and .json, row by row. A row of an earlier call is kept if its
program, identified by hash, and its compiler are the same; every other row is compiled again, or
dropped from the page if it is not requested.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import re
import time
from importlib import metadata
from typing import Any

# Set before jax is imported: they describe TPUs to a process that has none.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU is used, so none is disturbed

import jax
import jax.numpy as jnp
import numpy as np
from hlo import collectives
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.preprocessing import Normalization
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, PRECISIONS, default_config
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.training.modes import MODES, make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.sharding import Shardings
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

RESULTS = pathlib.Path(__file__).parents[1] / "results"
CLASSES = 397  # in the task with the most classes


def lower_step(
    model: str, method: str, mesh: Mesh, batch_per_chip: int, dtype: str, remat: bool
) -> Any:
    """The train step, lowered for the compiler."""
    config, shardings = PRESETS[model], Shardings(mesh)
    mode_name, plus, _ = method.partition(ORTHOREG)
    mode = make_mode(mode_name, default_config())
    size = config.visual.image_size
    tower = VisionTransformer(config.visual, config.projection)
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params = jax.eval_shape(tower.init, jax.random.key(0), pixels)["params"]
    optimizer = make_optimizer(1e-5, 500, 5000, 0.1, 1.0)
    state = jax.eval_shape(
        lambda p, key: init_state(mode, optimizer, p, key), params, jax.random.key(0)
    )
    normalize = Normalization((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    penalty = (orthogonality(10.0, "released", VISUAL_MATRICES),) if plus else ()
    encoder = image_encoder(config, jnp.dtype(dtype), remat, shardings.gather)
    step = make_train_step(mode, encoder, optimizer, normalize, penalty, shardings)

    def placed(tree: Any, placement: Any) -> Any:
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            tree,
            placement,
        )

    batch = batch_per_chip * mesh.size
    everywhere = shardings.replicated
    weights: Any = jax.ShapeDtypeStruct(
        (CLASSES, config.projection), jnp.float32, sharding=everywhere
    )
    count: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    head = Head(weights, count)
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=shardings.batch)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=shardings.batch)
    arguments = (
        placed(state, shardings.weights(state)),
        placed(params, shardings.weights(params)),
        head,
        images,
        labels,
    )
    return step.lower(*arguments)  # type: ignore[attr-defined]


def compile_step(lowered: Any) -> dict[str, Any]:
    """Facts about the compiled step."""
    began = time.process_time()
    compiled = lowered.compile()
    seconds = time.process_time() - began
    usage = compiled.memory_analysis()
    return {
        "arguments": usage.argument_size_in_bytes,
        "temporaries": usage.temp_size_in_bytes,
        "collectives": {kind: list(each) for kind, each in collectives(compiled.as_text()).items()},
        "compile_cpu_seconds": seconds,
    }


HEADER = (
    *("model", "method", "arguments", "temporaries", "all-gather", "reduce-scatter", "all-reduce"),
    *("other", "compile, CPU s"),
)


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the table."""

    def cell(*kinds: str) -> str:
        found = [row["collectives"][kind] for kind in kinds if kind in row["collectives"]]
        count, size = (sum(numbers) for numbers in zip(*found, strict=True)) if found else (0, 0)
        return f"{count}, {size / 2**20:.0f} MB" if count else "–"

    return [
        *(row["model"], row["method"]),
        *(f"{row[kind] / 2**20:.0f}" for kind in ("arguments", "temporaries")),
        *(cell(kind) for kind in ("all-gather", "reduce-scatter", "all-reduce")),
        *(cell("all-to-all", "collective-permute"), f"{row['compile_cpu_seconds']:.0f}"),
    ]


def added(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Costs of the penalty, by model and mode."""
    found = {(row["model"], row["method"]): row for row in rows}
    table = []
    for (model, method), plain in found.items():
        if (row := found.get((model, method + ORTHOREG))) is None:
            continue
        kinds = {*row["collectives"], *plain["collectives"]}
        sent = [
            sum(each["collectives"].get(kind, (0, 0))[1] for kind in chosen)
            for chosen in ({"all-reduce"}, kinds - {"all-reduce"})
            for each in (plain, row)
        ]
        changes = [row[kind] - plain[kind] for kind in ("arguments", "temporaries")]
        changes += [sent[1] - sent[0], sent[3] - sent[2]]
        table.append([model, method, *(f"{change / 2**20:+.0f}" for change in changes)])
    return table


def page(
    rows: list[dict[str, Any]], missing: list[tuple[str, str]], options: argparse.Namespace
) -> str:
    """Page of the results."""
    penalty_header = (
        "model",
        "mode",
        "arguments",
        "temporaries",
        "all-reduce",
        "other collectives",
    )
    lines = [
        f"# The train step compiled for {options.topology}, {rows[0]['chips']} chips\n",
        f"    python experiments/scale/compile_tpu.py --topology {options.topology} "
        f"--models {' '.join(options.models)}\n",
        f"Weights split over {options.fsdp} chips, {options.batch} images a chip, "
        f"{options.dtype} computation, matmul_precision={options.precision}, float32 parameters "
        "and penalty, "
        f"remat for {', '.join(options.remat) or 'none'}. Arguments and temporaries: MB a "
        "chip. Collectives: how many in a step, and MB of the larger of operand and "
        "result on one chip.\n",
        markdown_rows(HEADER, [cells(row) for row in rows], left=2),
        "\nWhat the penalty adds, MB a chip:\n",
        markdown_rows(penalty_header, added(rows), left=2),
    ]
    if missing:
        lines.append(f"\nNot compiled yet: {', '.join(map(' '.join, missing))}.")
    return "\n".join(lines) + "\n"


def program_hash(lowered: Any, topology: str) -> str:
    """Hash of everything a row depends on: the program, the chips, and the compiler."""
    versions = [metadata.version(name) for name in ("jaxlib", "libtpu")]
    return hashlib.sha256("\n".join([topology, *versions, lowered.as_text()]).encode()).hexdigest()


def main() -> None:
    """Compiles all requested steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [mode + plus for mode in MODES for plus in ("", ORTHOREG)]
    parser.add_argument("--topology", default="v5e:2x2", help="as TPUs are ordered, e.g. v5e:16x16")
    parser.add_argument("--models", nargs="+", default=["ViT-B/32"], choices=list(PRESETS))
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    parser.add_argument("--batch", type=int, default=32, help="images a chip")
    parser.add_argument("--fsdp", type=int, default=4)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    # The default of configs is "highest", which takes several times as long to compile.
    parser.add_argument("--precision", default="default", choices=PRECISIONS)
    parser.add_argument(
        "--remat", nargs="*", default=[], help="models that compute whole layers again"
    )
    options = parser.parse_args()
    description = topologies.get_topology_desc(platform="tpu", topology_name=options.topology)
    devices: np.ndarray = np.array(description.devices).reshape(-1, options.fsdp)
    mesh = Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))
    name = "tpu_" + re.sub(r"\W", "_", options.topology)
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    known = {row.get("program"): row for row in old}
    asked = [(model, method) for model in options.models for method in options.methods]
    steps, rows = {}, {}
    for model, method in asked:
        remat = model in options.remat
        with jax.default_matmul_precision(options.precision):
            lowered = lower_step(model, method, mesh, options.batch, options.dtype, remat)
        program = program_hash(lowered, options.topology)
        facts = {"model": model, "method": method, "chips": mesh.size, "program": program}
        if program in known:
            rows[model, method] = known[program]
        else:
            steps[model, method] = facts, lowered
    print(f"{options.topology}: {len(steps)} of {len(asked)} steps to compile", flush=True)
    while steps:
        next_one = next(iter(steps))
        facts, lowered = steps.pop(next_one)
        rows[next_one] = facts | compile_step(lowered)
        print(rows[next_one], flush=True)
        made = [rows[each] for each in asked if each in rows]
        write_text(path.with_suffix(".md"), page(made, list(steps), options))
        write_json(path, made)


if __name__ == "__main__":
    main()
