r"""Compiles the real train step for TPU pods, on a machine without one, and reports what it holds.

    pip install libtpu
    python experiments/scale/compile_tpu.py --topology v5e:2x2 --models ViT-B/32 ViT-L/14

For each model and method: memory per chip by XLA's own account, the collectives in the compiled
program with the bytes that a chip takes part in (those inside the scan over layers counted once
for each layer), and the seconds that compiling took. Shapes alone matter: there are no weights and
no images. Writes experiments/results/tpu_TOPOLOGY.md and .json.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
import time
from collections import defaultdict
from typing import Any

# Before jax is imported: describe TPUs to a process that has none.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.preprocessing import Normalization
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.storage import write_json, write_text
from orthoreg_jax.training.modes import MODES
from orthoreg_jax.training.sharding import Shardings
from orthoreg_jax.training.step import Penalty, init_state, make_optimizer, make_train_step

RESULTS = pathlib.Path(__file__).parents[1] / "results"
CLASSES = 397  # of the task with the most
BYTES = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "u8": 1, "pred": 1, "f16": 2, "s8": 1, "s64": 8}
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def collectives(hlo: str) -> dict[str, dict[str, int]]:
    """Kind -> count and bytes of results, of a compiled program.

    A computation that a loop calls counts as often as the loop turns, where XLA knows it.
    """
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in hlo.splitlines():
        if match := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line):
            name = match.group(1)
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    times: dict[str, int] = defaultdict(lambda: 1)
    for lines in bodies.values():
        for line in lines:
            body = re.search(r"while\(.*body=%?([\w.\-]+)", line)
            turns = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
            if body and turns:
                times[body.group(1)] = int(turns.group(1))
    found: dict[str, dict[str, int]] = {}
    for name, lines in bodies.items():
        for line in lines:
            match = re.search(rf"= (.+?) ({'|'.join(COLLECTIVES)})(-start)?\(", line)
            if not match or "-done(" in line:
                continue
            shapes = re.findall(r"(\w+)\[([\d,]*)\]", match.group(1))
            if match.group(3):  # an asynchronous start returns operands and results
                shapes = shapes[len(shapes) // 2 :]
            size = sum(
                BYTES.get(kind, 4) * int(np.prod([int(n) for n in dims.split(",") if n]))
                for kind, dims in shapes
            )
            entry = found.setdefault(match.group(2), {"count": 0, "bytes": 0})
            entry["count"] += times[name]
            entry["bytes"] += times[name] * size
    return found


def compile_step(
    model: str, method: str, mesh: Mesh, batch_per_chip: int, dtype: str, remat: bool
) -> dict[str, Any]:
    """One row."""
    config, shardings = PRESETS[model], Shardings(mesh)
    mode_name, plus, _ = method.partition(ORTHOREG)
    mode = MODES[mode_name](default_config().lora)
    size = config.visual.image_size
    tower = VisionTransformer(config.visual, config.projection)
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params = jax.eval_shape(tower.init, jax.random.key(0), pixels)["params"]
    optimizer = make_optimizer(1e-5, 500, 5000, 0.1, 1.0)
    state = jax.eval_shape(
        lambda p, key: init_state(mode, optimizer, p, key), params, jax.random.key(0)
    )
    normalize = Normalization((0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    penalty = Penalty(10.0, "released", VISUAL_MATRICES) if plus else None
    encoder = image_encoder(config, jnp.dtype(dtype), remat)
    step = make_train_step(mode, encoder, optimizer, normalize, penalty, shardings)

    def placed(tree: Any, placement: Any) -> Any:
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            tree,
            placement,
        )

    batch = batch_per_chip * mesh.size
    head = Head(
        jax.ShapeDtypeStruct(
            (CLASSES, config.projection), jnp.float32, sharding=shardings.replicated
        ),
        jax.ShapeDtypeStruct((), jnp.int32, sharding=shardings.replicated),
    )
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8, sharding=shardings.batch)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=shardings.batch)
    arguments = (
        placed(state, shardings.weights(state)),
        placed(params, shardings.weights(params)),
        head,
        images,
        labels,
    )
    began = time.perf_counter()
    compiled = step.lower(*arguments).compile()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - began
    usage = compiled.memory_analysis()
    return {
        "model": model,
        "method": method,
        "chips": mesh.size,
        "fsdp": mesh.shape["fsdp"],
        "batch": batch,
        "arguments": usage.argument_size_in_bytes,
        "temporaries": usage.temp_size_in_bytes,
        "collectives": collectives(compiled.as_text()),
        "compile_seconds": seconds,
    }


def markdown(rows: list[dict[str, Any]], options: argparse.Namespace) -> str:
    """The rows as a table."""
    lines = [
        f"# The train step compiled for {options.topology}\n",
        f"    python {' '.join(sys.argv)}\n",
        f"{options.batch} images a chip, {options.dtype} computation, float32 parameters and "
        f"penalty, {'with' if options.remat else 'without'} remat. MB per chip; collectives: "
        "count x MB of results per chip and step.\n",
        "| model | method | chips (fsdp) | arguments | temporaries | all-gather | all-reduce "
        "| reduce-scatter | other | compile, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        found = row["collectives"]

        def cell(*kinds: str, found: dict[str, dict[str, int]] = found) -> str:
            count = sum(found[kind]["count"] for kind in kinds if kind in found)
            size = sum(found[kind]["bytes"] for kind in kinds if kind in found)
            return f"{count}, {size / 2**20:.0f} MB" if count else "–"

        lines.append(
            f"| {row['model']} | {row['method']} | {row['chips']} ({row['fsdp']}) "
            f"| {row['arguments'] / 2**20:.0f} | {row['temporaries'] / 2**20:.0f} "
            f"| {cell('all-gather')} | {cell('all-reduce')} | {cell('reduce-scatter')} "
            f"| {cell('all-to-all', 'collective-permute')} | {row['compile_seconds']:.0f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Compiles everything asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [mode + plus for mode in MODES for plus in ("", ORTHOREG)]
    parser.add_argument("--topology", default="v5e:2x2", help="as TPUs are ordered, e.g. v5e:16x16")
    parser.add_argument("--models", nargs="+", default=["ViT-B/32"], choices=list(PRESETS))
    parser.add_argument("--methods", nargs="+", default=names, choices=names)
    parser.add_argument("--batch", type=int, default=32, help="images a chip")
    parser.add_argument("--fsdp", type=int, default=4)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--remat", action="store_true")
    options = parser.parse_args()
    description = topologies.get_topology_desc(platform="tpu", topology_name=options.topology)
    devices = np.array(description.devices).reshape(-1, options.fsdp)
    mesh = Mesh(devices, ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))
    rows = []
    for model in options.models:
        for method in options.methods:
            row = compile_step(model, method, mesh, options.batch, options.dtype, options.remat)
            rows.append(row)
            print(row, flush=True)
    name = "tpu_" + re.sub(r"\W", "_", options.topology)
    write_text(RESULTS / f"{name}.md", markdown(rows, options))
    write_json(RESULTS / f"{name}.json", rows)
    print(markdown(rows, options))


if __name__ == "__main__":
    main()
