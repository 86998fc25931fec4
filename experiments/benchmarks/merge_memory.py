"""Peak memory of `orthoreg merge` on many large models, as files of random numbers.

    python experiments/benchmarks/merge_memory.py --out experiments/results

Experts are image towers as transformers saves them, from two files of different numbers that are
linked under as many names as wanted: disk holds the base, two experts and the merged model. They
are deleted at the end. The bound is two whole models and one layer of all experts; the overhead of
the interpreter and its libraries is the peak of the same command on the embedded model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

MIB = 2**20
KEPT = "vision_model."


def make(folder: pathlib.Path, size: str) -> None:
    """Writes the base and two image towers."""
    import dataclasses

    import numpy as np
    import safetensors.numpy

    from orthoreg_jax import load_checkpoint, save_checkpoint
    from orthoreg_jax.arithmetic.paths import unflatten
    from orthoreg_jax.clip.config import PRESETS
    from orthoreg_jax.clip.weights import param_shapes

    embedded = load_checkpoint("embedded")
    config = embedded.config if size == "embedded" else PRESETS[size]
    rng = np.random.default_rng(0)
    params = unflatten(
        {
            path: 0.02 * rng.standard_normal(shape, np.float32)
            for path, shape in param_shapes(config).items()
        }
    )
    texts = folder / "texts"  # which has no preprocessing of another size
    texts.mkdir()
    for file in embedded.directory.glob("tokenizer*"):
        shutil.copy(file, texts)
    like = dataclasses.replace(embedded, config=config, directory=texts)
    base = save_checkpoint(folder / "base", params, like)
    del params
    vision = json.loads((base / "config.json").read_text())["vision_config"]
    with safetensors.safe_open(base / "model.safetensors", "numpy") as file:
        for number in range(2):
            tower = folder / f"tower{number}"
            tower.mkdir()
            (tower / "config.json").write_text(json.dumps(vision))
            tensors = {}
            for key in file.keys():  # noqa: SIM118
                if key.startswith(KEPT):
                    tensor = file.get_tensor(key)
                    noise = rng.standard_normal(tensor.shape, np.float32)
                    tensors[key] = tensor + np.float32(1e-3) * noise
            safetensors.numpy.save_file(tensors, tower / "model.safetensors")


def facts(size: str) -> tuple[int, int]:
    """Bytes of a whole model, and of its image tower's largest layer."""
    from orthoreg_jax import load_checkpoint
    from orthoreg_jax.clip.config import PRESETS
    from orthoreg_jax.clip.weights import param_shapes

    config = load_checkpoint("embedded").config if size == "embedded" else PRESETS[size]
    shapes = param_shapes(config)
    layers = [shape[1:] if "/blocks/" in path else shape for path, shape in shapes.items()
              if path.startswith("visual/")]  # fmt: skip
    return 4 * sum(map(math.prod, shapes.values())), 4 * max(map(math.prod, layers))


def peak(folder: pathlib.Path, experts: int, merger: str) -> tuple[int, float]:
    """Peak resident bytes of the command, and its seconds."""
    names = []
    for number in range(experts):
        name = folder / f"expert{number}"
        if not name.exists():
            name.mkdir()
            for file in (folder / f"tower{number % 2}").iterdir():
                os.link(file, name / file.name)
        names.append(str(name))
    command = [
        *(sys.executable, "-m", "orthoreg_jax", "merge", "--merger", merger, "--alpha", "0.3"),
        *("--models", *names, "--base", str(folder / "base"), "--out", str(folder / "merged")),
        "--overwrite",
    ]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(said)
    return usage.ru_maxrss * 1024, time.monotonic() - start


Row = dict[str, float]


def measure(
    size: str, experts: int, mergers: list[str], place: str | None = None
) -> Iterator[tuple[str, Row]]:
    """Makes the files, measures each merger and deletes them. All sizes in MiB."""
    model, layer = (each / MIB for each in facts(size))
    bound = 2 * model + experts * layer
    with tempfile.TemporaryDirectory(dir=place) as name:
        folders = {each: pathlib.Path(name) / each.replace("/", "") for each in ("embedded", size)}
        for each, folder in folders.items():
            folder.mkdir()
            # In a process of its own: a child's peak begins with what its parent held.
            options = ["--make", str(folder), "--size", each]
            subprocess.run([sys.executable, __file__, *options], check=True)
        for merger in mergers:
            overhead, _ = peak(folders["embedded"], experts, merger)
            most, seconds = peak(folders[size], experts, merger)
            used = (most - overhead) / MIB
            yield merger, {
                "peak": most / MIB, "overhead": overhead / MIB, "model": model, "layer": layer,
                "used": used, "bound": bound, "share": used / bound, "seconds": seconds,
            }  # fmt: skip


def main() -> None:
    """Writes merge_memory.json and merge_memory.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="ViT-L/14")
    parser.add_argument("--experts", type=int, default=20)
    parser.add_argument("--mergers", default="task_arithmetic,ties")
    parser.add_argument("--place", help="a folder on a disk with room; default: the system's")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--make", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(options.make, options.size)
        return
    rows: dict[str, Row] = {}
    mergers = options.mergers.split(",")
    for merger, row in measure(options.size, options.experts, mergers, options.place):
        rows[merger] = row
        text = page(options.size, options.experts, rows)
        print(text, flush=True)
        if options.out:
            (options.out / "merge_memory.md").write_text(text)
            found = {"size": options.size, "experts": options.experts, "rows": rows}
            (options.out / "merge_memory.json").write_text(json.dumps(found, indent=1) + "\n")


def page(size: str, experts: int, rows: dict[str, Row]) -> str:
    """The table, with how it was made."""
    lines = [
        f"# Memory of merging {experts} x {size}",
        "",
        "    python experiments/benchmarks/merge_memory.py --out experiments/results",
        "",
        "Peak resident memory of `orthoreg merge --models` on image towers of random float32 "
        "numbers, in MiB. Used: the peak less that of the same command on the embedded model "
        "(overhead). Bound: two whole models and the largest layer of all experts. Seconds are "
        "those of a busy machine.",
        "",
        "| merger | peak | overhead | used | bound | used / bound | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for merger, row in rows.items():
        sizes = " | ".join(f"{row[key]:.0f}" for key in ("peak", "overhead", "used", "bound"))
        lines.append(f"| {merger} | {sizes} | {row['share']:.2f} | {row['seconds']:.0f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
