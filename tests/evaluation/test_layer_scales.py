"""Scales of layers: what they multiply, and that the search finds what it says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.evaluation.search import ALPHA_FACTORS
from tests.small_run import pretrained

METHOD = "full+orthoreg"


@pytest.fixture(scope="module")
def merged(finished):
    files = [finished / METHOD / "seed3" / t / "vector.safetensors" for t in ("first", "second")]
    return oj.merge_task_vectors([oj.load_tree(file) for file in files], oj.task_arithmetic())


def test_each_leaf_is_scaled_by_its_layer(merged):
    names = oj.layer_names(merged)
    depth = len(names) - 2
    assert names == ["embeddings", *(f"block {n}" for n in range(depth)), "last"]
    scales = [2.0, *(10.0 + n for n in range(depth)), 0.5]
    found = flatten(oj.scale_layers(merged, scales)["visual"])
    assert jax.tree.structure(merged["visual"]) == jax.tree.structure(
        oj.scale_layers(merged, scales)["visual"]
    )
    for path, leaf in flatten(merged["visual"]).items():
        leaf = np.asarray(leaf)
        if path.startswith("blocks/"):
            expected = np.stack([own * (10.0 + n) for n, own in enumerate(leaf)])
        elif path.startswith(("post_norm", "projection")):
            expected = 0.5 * leaf
        else:
            assert "embedding" in path or path.startswith("pre_norm")
            expected = 2.0 * leaf
        np.testing.assert_allclose(found[path], expected, rtol=1e-6)


def test_the_search_is_a_coordinate_search_on_validation(finished, inputs, merged):
    checkpoint = pretrained(finished)
    tasks = oj.load_tasks(str(inputs.parent), ["first", "second"], "others")
    tasks = {name: tasks[name] for name in ("first", "second")}
    single = [0.8, 0.5]

    def quality(scales):
        params = oj.apply_task_vector(checkpoint.params, oj.scale_layers(merged, scales))
        found = oj.measure_accuracies(checkpoint, params, tasks, "val")
        return np.mean(np.array(list(found.values())) / single)

    expected = [0.5] * len(oj.layer_names(merged))
    best = quality(expected)
    for layer in range(len(expected)):
        tried = [
            [float(f"{s * factor:.4g}") if n == layer else s for n, s in enumerate(expected)]
            for factor in ALPHA_FACTORS
        ]
        qualities = [quality(scales) for scales in tried]
        if max(qualities) > best:
            best, expected = max(qualities), tried[int(np.argmax(qualities))]
    found = oj.search_layer_scales(checkpoint, merged, tasks, single, alpha=0.5)
    np.testing.assert_allclose(found, expected)


def test_refusals(finished, inputs, merged, untyped):
    with pytest.raises(ValueError, match=r"2 scales for \d layers; give one for each of embedd"):
        oj.scale_layers(merged, [1.0, 1.0])
    with pytest.raises(ValueError, match="expected {'visual'"):
        oj.scale_layers(merged["visual"], [1.0])
    with pytest.raises(ValueError, match="not finite|finite"):
        oj.layer_names({"visual": {"blocks": {"scale": jnp.full((2, 3), jnp.nan)}}})
    count = len(oj.layer_names(merged))
    with pytest.raises(ValueError, match="scales: contains nan at 0; give finite numbers"):
        oj.scale_layers(merged, [np.nan] * count)
    double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), merged)
    with pytest.raises(ValueError, match="vector: leaf .* is float64"):
        oj.scale_layers(double, [1.0] * count)
    model = pretrained(finished)
    with pytest.raises(ValueError, match="no task to measure on"):
        oj.search_layer_scales(model, merged, {}, [1.0])
    tasks = oj.load_tasks(str(inputs.parent), ["first", "second"], "others")
    tasks = {name: tasks[name] for name in ("first", "second")}
    search = functools.partial(oj.search_layer_scales, model, merged, tasks)
    for given, options, message in (
        ([0.5], {}, "1 accuracy for 2 tasks; give one for each"),
        ([90, 80], {}, "single: contains 90; give fractions from 0 to 1"),
        ([0.9, np.nan], {}, "single: contains NaN or infinity"),
        ([0.9, 0.8], {"alpha": np.nan}, "alpha is nan; give one finite number"),
        ([0.9, 0.8], {"alpha": 0}, "alpha is 0, and so every scale would stay 0"),
        ([0.9, 0.8], {"rounds": -1}, "rounds is -1; give a whole number from 0"),
        ([0.9, 0.8], {"limit": 1.5}, "limit is 1.5; give a whole number from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            search(given, **options)


def test_scales_may_be_traced():
    vector = {"visual": {"blocks": {"scale": jnp.ones((2, 1))}}}
    scale = jax.jit(lambda vector, scales: oj.scale_layers(vector, scales))
    found = scale(vector, jnp.array([1.0, 0.5, 2.0, 1.0]))
    np.testing.assert_allclose(found["visual"]["blocks"]["scale"], [[0.5], [2.0]])
