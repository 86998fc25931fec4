import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj


def tree(seed, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    return {
        "visual": {
            "kernel": jnp.asarray(rng.normal(size=(3, 4)), dtype),
            "bias": jnp.asarray(rng.normal(size=4), dtype),
        },
        "scale": jnp.asarray(rng.normal(), dtype),
    }


def assert_trees_close(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_allclose(left, right, **(tolerance or {"rtol": 1e-6, "atol": 1e-7}))


def test_difference_and_application_are_inverse():
    pretrained, finetuned = tree(0), tree(1)
    vector = oj.task_vector(finetuned, pretrained)
    assert_trees_close(oj.apply_task_vector(pretrained, vector), finetuned)
    assert_trees_close(oj.apply_task_vector(pretrained, vector, 0.0), pretrained)
    back = oj.apply_task_vector(finetuned, vector, -1.0)
    assert_trees_close(back, pretrained)
    forgotten = oj.apply_task_vector(finetuned, oj.negate_task_vector(vector))
    assert_trees_close(forgotten, pretrained)


def test_part_of_a_model_may_be_edited_and_types_stay():
    pretrained = tree(0, jnp.bfloat16)
    vector = {"visual": {"kernel": jnp.ones((3, 4))}}
    edited = jax.jit(oj.apply_task_vector)(pretrained, vector, 0.5)
    assert edited["visual"]["kernel"].dtype == jnp.bfloat16
    expected = pretrained["visual"]["kernel"].astype(jnp.float32) + 0.5
    np.testing.assert_allclose(edited["visual"]["kernel"].astype(jnp.float32), expected, rtol=1e-2)
    assert edited["visual"]["bias"] is not None
    np.testing.assert_array_equal(edited["visual"]["bias"], pretrained["visual"]["bias"])


def test_sum_and_analogy():
    a, b, c = tree(1), tree(2), tree(3)
    assert_trees_close(
        oj.add_task_vectors([a, b, c]), jax.tree.map(lambda x, y, z: x + y + z, a, b, c)
    )
    assert_trees_close(oj.add_task_vectors({"a": a, "b": b}), oj.add_task_vectors([a, b]))
    assert_trees_close(oj.analogy(a, b, c), jax.tree.map(lambda x, y, z: z + (y - x), a, b, c))
    assert_trees_close(oj.analogy(a, b, a), b)


def test_norm_and_cosines_against_flat_vectors():
    vectors = {"a": tree(1), "b": tree(2), "zero": jax.tree.map(jnp.zeros_like, tree(0))}
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(v)]) for v in vectors.values()]
    np.testing.assert_allclose(oj.norm(vectors["a"]), np.linalg.norm(flat[0]), rtol=1e-6)
    cosines = oj.cosine_matrix(vectors)
    expected = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    np.testing.assert_allclose(cosines[0, 1], expected, rtol=1e-5)
    np.testing.assert_allclose(cosines, cosines.T)
    np.testing.assert_allclose(np.diag(cosines), 1.0)
    assert cosines[0, 2] == 0 and np.isfinite(cosines).all()
    np.testing.assert_array_equal(cosines, oj.cosine_matrix(list(vectors.values())))


def test_sums_over_low_precision_leaves_keep_their_digits():
    vector = {"w": jnp.ones((512, 513), jnp.bfloat16)}
    np.testing.assert_allclose(oj.norm(vector), np.sqrt(512 * 513), rtol=1e-6)
    np.testing.assert_allclose(oj.cosine_matrix([vector, vector])[0, 1], 1.0, rtol=1e-6)


def test_errors_name_the_leaf():
    pretrained = tree(0)
    without = {"visual": {"kernel": pretrained["visual"]["kernel"]}, "scale": pretrained["scale"]}
    with pytest.raises(ValueError, match="only in finetuned: visual/bias"):
        oj.task_vector(pretrained, without)
    misshapen = {**pretrained, "scale": jnp.ones(2)}
    with pytest.raises(ValueError, match=r"scale: \(2,\) and \(\)"):
        oj.task_vector(misshapen, pretrained)
    with pytest.raises(ValueError, match="leaves text/kernel, which the weights lack.*visual/"):
        oj.apply_task_vector(pretrained, {"text": {"kernel": jnp.ones(3)}})
    with pytest.raises(ValueError, match=r"visual/bias: \(3,\) and \(4,\)"):
        oj.apply_task_vector(pretrained, {"visual": {"bias": jnp.ones(3)}})
    with pytest.raises(ValueError, match=r"vectors\[1\]"):
        oj.add_task_vectors([pretrained, without])
    with pytest.raises(ValueError, match="at least one"):
        oj.add_task_vectors([])
    listed = [pretrained["scale"]]
    with pytest.raises(ValueError, match="other containers"):
        oj.task_vector({"0": pretrained["scale"]}, listed)


def test_low_rank_updates_count_as_their_product():
    rng = np.random.default_rng(0)

    def update(scale):
        left, right = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 2), (2, 3)))
        return {"w": oj.LowRank(left, right, scale)}

    low = [update(0.5), update(2.0)]
    full = [{"w": update["w"].scale * update["w"].left @ update["w"].right} for update in low]
    weights = {"w": jnp.ones((4, 3))}
    for function in (
        oj.add_task_vectors,
        oj.cosine_matrix,
        lambda vectors: oj.negate_task_vector(vectors[0]),
        lambda vectors: oj.norm(vectors[1]),
        lambda vectors: oj.analogy(*vectors, vectors[0]),
        lambda vectors: oj.apply_task_vector(weights, vectors[1], 0.3),
        lambda vectors: oj.merge_task_vectors(vectors, oj.ties(50)),
    ):
        assert_trees_close(function(low), function(full), rtol=1e-5, atol=1e-6)


def test_numbers_are_leaves_like_any_other():
    assert float(oj.norm({"a": 3.0, "b": jnp.array([4.0])})) == 5
    assert float(oj.apply_task_vector({"a": 1.0}, {"a": 2.0}, 0.5)["a"]) == 2


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, 1e20])
def test_cosines_of_what_is_not_finite_are_nan(bad):
    good, worse = tree(0), tree(1)
    worse["visual"]["bias"] = worse["visual"]["bias"].at[0].set(bad)
    cosines = np.asarray(oj.cosine_matrix([good, worse, tree(2)]))
    np.testing.assert_array_equal(np.isnan(cosines), [[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    assert not np.isfinite(oj.norm(worse))
    for sum_ in (oj.add_task_vectors([good, worse]), oj.apply_task_vector(good, worse)):
        assert not np.isfinite(sum_["visual"]["bias"][0]) or bad == 1e20


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("library", [jnp, np])
def test_sums_do_not_lose_what_is_small(dtype, library):
    rows = [{"w": library.full(4, 0.001, dtype)}] * 1000
    found = oj.add_task_vectors(rows)["w"]
    assert found.dtype == dtype and isinstance(found, jax.Array if library is jnp else np.ndarray)
    np.testing.assert_allclose(np.float32(found), 1000 * np.float32(dtype(0.001)), rtol=5e-3)


def test_types_of_sums():
    double = [{"w": np.array([1.0, 1e-12])}, {"w": np.array([1.0, 1e-12])}]
    np.testing.assert_array_equal(oj.add_task_vectors(double)["w"], [2.0, 2e-12])
    with jax.numpy_dtype_promotion("standard"):
        added = oj.add_task_vectors([double[0], {"w": np.ones(2, np.float32)}])["w"]
    assert added.dtype == np.float64
    np.testing.assert_array_equal(added, [2.0, 1 + 1e-12])
    mixed = [{"w": jnp.ones(2, jnp.bfloat16)}, {"w": jnp.full(2, 2.0**-12)}]
    with jax.numpy_dtype_promotion("standard"):
        np.testing.assert_array_equal(oj.add_task_vectors(mixed)["w"], 1 + 2.0**-12)


def test_complex_leaves_are_refused_by_name():
    wrong, right = {"w": {"k": jnp.ones(2, jnp.complex64)}}, {"w": {"k": jnp.ones(2)}}
    for function in (
        lambda: oj.add_task_vectors([wrong]),
        lambda: oj.add_task_vectors([right, wrong]),
        lambda: oj.task_vector(wrong, right),
        lambda: oj.apply_task_vector(right, wrong),
        lambda: oj.apply_task_vector(wrong, right),
        lambda: oj.cosine_matrix([wrong, wrong]),
        lambda: oj.norm(wrong),
        lambda: oj.analogy(right, right, wrong),
        lambda: oj.negate_task_vector(wrong),
        lambda: oj.merge_task_vectors([right, wrong], oj.ties()),
    ):
        with pytest.raises(ValueError, match="1 leaves are complex \\(first: 'w/k'"):
            function()
