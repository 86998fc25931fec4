r"""What XLA makes of a train step for a GPU, read without one.

    pip install 'orthoreg-jax[experiments,cuda12]'
    python experiments/scale/compile_gpu.py --target h100_sxm.txtpb

The compiler of JAX's CUDA plug-in needs a description of the GPU, not the GPU: a file of
`xla/backends/gpu/target_config/specs` in XLA's sources. It chooses no kernels by timing then, so
that nothing here says how long a step takes. Writes experiments/results/gpu_step.md.
"""

from __future__ import annotations

import argparse
import math
import os
import pathlib
import re
from collections import Counter
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from orthoreg_jax.clip.checkpoint import image_encoder
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.config import ORTHOREG, default_config
from orthoreg_jax.reporting.tables import markdown_rows
from orthoreg_jax.storage import write_text
from orthoreg_jax.training.modes import make_mode
from orthoreg_jax.training.penalties import orthogonality
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

MODEL, BATCH, CLASSES = "ViT-B/32", 128, 100
SETTINGS = (("full" + ORTHOREG, "float32"), ("full", "bfloat16"))
LARGE = 2**20  # elements from which an array that is moved counts


def compiled_step(target: str, method: str, dtype: str) -> Any:
    """The step of full fine-tuning, float32 products at the default precision."""
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name="", target_config=target, topology="1x1x1"
    )
    place = NamedSharding(Mesh(np.array(topology.devices), ("one",)), PartitionSpec())
    config = PRESETS[MODEL]
    tower, size = VisionTransformer(config.visual, config.projection), config.visual.image_size
    pixels, key = jnp.zeros((1, size, size, 3)), jax.random.key(0)
    params = jax.eval_shape(lambda: tower.init(key, pixels)["params"])
    mode, optimizer = (
        make_mode("full", default_config()),
        make_optimizer(1e-5, 500, 10**4, 0.1, 1.0),
    )
    state = jax.eval_shape(lambda params: init_state(mode, optimizer, params, key), params)
    weights: Any = jax.ShapeDtypeStruct((CLASSES, config.projection), jnp.float32)
    count: Any = jax.ShapeDtypeStruct((), jnp.int32)
    head = Head(weights, count)
    images = jax.ShapeDtypeStruct((BATCH, size, size, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    own = orthogonality(10.0, "released", VISUAL_MATRICES, "default")
    step = make_train_step(
        mode,
        image_encoder(config, jnp.dtype(dtype)),
        optimizer,
        lambda images: images.astype(jnp.float32) / 255,
        (own,) if method.endswith(ORTHOREG) else (),
    )
    given = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        (state, params, head, images, labels),
    )
    with jax.default_matmul_precision("default"):
        return step.trace(*given).lower(lowering_platforms=("cuda",)).compile()  # type: ignore


def products(text: str) -> Counter[str]:
    """Types of the factors of matrix products, with their number."""
    types, found = _types(text), Counter[str]()
    for left, right in re.findall(r" dot\(%([\w.\-]+), %([\w.\-]+)\)", text):
        found[" x ".join(types[name].partition("[")[0] for name in (left, right))] += 1
    return found


def transposes(text: str) -> Counter[str]:
    """Shapes of large arrays that are written in another order, outside of products' kernels."""
    found = Counter[str]()
    for name, body in re.findall(r"\n(?:ENTRY )?%?([\w.\-]+) \(.*?\{\n(.*?)\n\}", text, re.DOTALL):
        if name.startswith("gemm"):
            continue
        for kind, shape in re.findall(r"= (\w+)\[([\d,]*)\]\S* transpose\(", body):
            if math.prod(map(int, shape.split(","))) >= LARGE:
                found[f"{kind}[{shape}]"] += 1
    return found


def _types(text: str) -> dict[str, str]:
    return dict(re.findall(r"%([\w.\-]+) = (\w+\[[\d,]*\])", text))


def main() -> None:
    """Compiles and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=pathlib.Path, required=True, help="of XLA's sources")
    arguments = parser.parse_args()
    target, rows = arguments.target.read_text(), []
    for method, dtype in SETTINGS:
        done = compiled_step(target, method, dtype)
        text, usage = done.as_text(), done.memory_analysis()
        listed = [
            ", ".join(f"{count} {name}" for name, count in found.most_common())
            for found in (products(text), transposes(text))
        ]
        share = usage.alias_size_in_bytes / usage.output_size_in_bytes
        rows.append(
            [
                method,
                dtype,
                *listed,
                f"{100 * share:.1f}",
                f"{usage.temp_size_in_bytes / 2**20:.0f}",
            ]
        )
    header = ("method", "activations", "products by their factors", "large transposes",
              "of the state reused, %", "temporary, MB")  # fmt: skip
    name = re.findall(r'device_description_str: "(.*?)"', target)
    lines = (
        "# What XLA makes of a train step for a GPU",
        f"    python experiments/scale/compile_gpu.py --target {arguments.target.name}",
        f"{MODEL}, {BATCH} images, float32 products at the default precision, compiled for one "
        f"{name[0]} without one, jax {jax.__version__}. A loop's body counts once.",
        markdown_rows(header, rows, left=4),
        WORDS,
    )
    write_text(
        pathlib.Path(__file__).parents[1] / "results" / "gpu_step.md", "\n\n".join(lines) + "\n"
    )


WORDS = """\
- The state is updated in place: none of it is copied.
- Weights of the blocks are never transposed, neither for the layers nor for the penalty, whose Gram
  matrices and their gradients take one product for each shape, over all layers at once. The
  patches' kernel is put in another order once a step.
- Of the activations, queries, keys and values of all layers are transposed once between the forward
  and the backward pass.
- With bfloat16 activations, the layers' products are of bfloat16. Two of the gradient of
  attention's scores stay float32, as scores and softmax do; so do those with the head.
- Attention's probabilities are written to memory: no fused attention is used."""

if __name__ == "__main__":
    main()
