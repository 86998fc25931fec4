"""Scales of layers: what they multiply, and that the search finds what it says."""

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


def test_refusals(finished, merged):
    with pytest.raises(ValueError, match=r"2 scales for \d layers; give one for each of embedd"):
        oj.scale_layers(merged, [1.0, 1.0])
    with pytest.raises(ValueError, match="expected {'visual'"):
        oj.scale_layers(merged["visual"], [1.0])
    with pytest.raises(ValueError, match="1 accuracy for 0 tasks"):
        oj.search_layer_scales(pretrained(finished), merged, {}, [1.0])
    with pytest.raises(ValueError, match="not finite|finite"):
        oj.layer_names({"visual": {"blocks": {"scale": jnp.full((2, 3), jnp.nan)}}})
