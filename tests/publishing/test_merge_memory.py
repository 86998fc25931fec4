"""Merging models takes the memory of two of them and one layer of all."""

import dataclasses
import math
import os
import tracemalloc

import jax
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.paths import unflatten
from orthoreg_jax.clip.config import ClipConfig
from orthoreg_jax.clip.weights import param_shapes
from orthoreg_jax.publishing.merge import merge_models, merge_vectors
from orthoreg_jax.publishing.merger_choice import MergerChoice

EXPERTS = 8


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A base of 36 MB, most of it image tower; an expert and its vector, under several names."""
    folder = tmp_path_factory.mktemp("models")
    like = oj.load_checkpoint("embedded")
    sizes = {"width": 384, "layers": 5, "heads": 6, "mlp_width": 1536}
    visual = dataclasses.replace(like.config.visual, **sizes)
    text = dataclasses.replace(like.config.text, width=16, layers=1, heads=1, mlp_width=16)
    config = ClipConfig(visual=visual, text=text, projection=64)
    rng = np.random.default_rng(0)
    params = unflatten(
        {path: rng.normal(size=shape).astype(np.float32)
         for path, shape in param_shapes(config).items()}
    )  # fmt: skip
    like = dataclasses.replace(like, config=config)
    base = oj.save_checkpoint(folder / "base", params, like)
    tuned = params | {"visual": jax.tree.map(lambda leaf: leaf + 1, params["visual"])}
    tuned["visual"]["projection"] = params["visual"]["projection"]
    expert = oj.save_checkpoint(folder / "expert0", tuned, like, layout="vision")
    vector = oj.load_task_vector(expert, base)
    about = {"pretrained_sha256": oj.load_checkpoint(base).sha256}
    oj.save_tree(folder / "vector0.safetensors", vector, about)
    for number in range(1, EXPERTS):
        (folder / f"expert{number}").mkdir()
        for file in expert.iterdir():
            os.link(file, folder / f"expert{number}" / file.name)
        os.link(folder / "vector0.safetensors", folder / f"vector{number}.safetensors")
    return folder, param_shapes(config)


@pytest.mark.parametrize("kind", ["expert", "vector"])
@pytest.mark.parametrize("merger", ["task_arithmetic", "ties", "tsv_m"])
def test_two_models_and_one_layer_of_all(kind, merger, models, tmp_path):
    """What NumPy and Python hold; JAX's own buffers are not counted."""
    folder, shapes = models
    choice = MergerChoice(merger, {"rank": "2"} if merger == "tsv_m" else {})
    names = sorted(folder.glob(f"{kind}*"))

    def merge(out):
        common = (out, str(folder / "base"), choice, 0.5)
        if kind == "expert":
            return merge_models(list(map(str, names)), *common)
        return merge_vectors(names, *common)

    merge(tmp_path / "first")  # what is compiled or imported once is not counted
    tracemalloc.start()
    try:
        out = merge(tmp_path / "second")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    model = 4 * sum(map(math.prod, shapes.values()))
    layer = 4 * max(math.prod(shape[1:]) for path, shape in shapes.items() if "blocks" in path)
    wide = 2 if merger == "tsv_m" else 1  # in float64
    assert model < peak < 2 * model + wide * EXPERTS * layer
    assert (out / "model.safetensors").stat().st_size > model
