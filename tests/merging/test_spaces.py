"""Merging in a common basis: nothing is lost, and the formulas hold in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.merging.spaces import core_space, knots

TIES = oj.ties(40, over="tensor")


def adapters(tasks, shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    return np.stack(
        [
            rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
            for _ in range(tasks)
        ]
    )


def merged(values, merger, **others):
    rows = [{"w": jnp.asarray(value)} for value in values]
    return np.asarray(oj.merge_task_vectors(rows, merger, **others)["w"])


def ties_of(cores, k=40):
    rows = cores.reshape(len(cores), -1)
    count = max(1, int(rows.shape[1] * k / 100))
    limits = np.sort(np.abs(rows), axis=1)[:, -count]
    kept = np.where(np.abs(rows) >= limits[:, None], rows, 0).reshape(cores.shape)
    sign = np.sign(kept.sum(axis=0))
    agrees = (np.sign(kept) == sign) & (kept != 0)
    return np.where(agrees, kept, 0).sum(axis=0) / np.maximum(agrees.sum(axis=0), 1)


@pytest.mark.parametrize("space", [oj.knots, oj.core_space])
@pytest.mark.parametrize("inner", [oj.task_arithmetic(), oj.average()])
def test_sums_and_means_lose_nothing(space, inner):
    for values in (adapters(3, (12, 9), 2), adapters(2, (5, 4), 4), np.zeros((2, 4, 3))):
        values = values.astype(np.float32)
        np.testing.assert_allclose(merged(values, space(inner)), merged(values, inner), atol=2e-5)


def test_knots_ties_in_numpy():
    values = adapters(3, (12, 9), 2)
    # As the authors have it: layers of torch joined along their inputs; U S V_t, S V_t is merged.
    joined = np.concatenate([value.T for value in values], axis=1)
    left, scale, right = np.linalg.svd(joined, full_matrices=False)
    there = scale > 1e-5
    assert there.sum() == 6
    parts = np.split(np.diag(scale[there]) @ right[there], 3, axis=1)
    expected = (left[:, there] @ ties_of(np.stack(parts))).T
    with jax.enable_x64(True):
        np.testing.assert_allclose(merged(values, oj.knots(TIES)), expected, atol=1e-9)


def test_core_space_ties_in_numpy():
    values = adapters(3, (12, 9), 2)
    inputs = np.linalg.svd(np.concatenate(values, axis=1))[0][:, :6]
    outputs = np.linalg.svd(np.concatenate(values))[2][:6]
    cores = inputs.T @ values @ outputs.T
    with jax.enable_x64(True):
        found = merged(values, oj.core_space(TIES))
    np.testing.assert_allclose(found, inputs @ ties_of(cores) @ outputs, atol=1e-9)


def test_in_core_space_a_merger_of_matrices_sees_the_ranks_alone():
    values = adapters(3, (40, 30), 2)
    with jax.enable_x64(True):
        # TSV-M keeps (T r) / T = r directions of each: all there are.
        np.testing.assert_allclose(
            merged(values, oj.core_space(oj.tsv_m())), merged(values, oj.tsv_m(2)), atol=1e-9
        )
        np.testing.assert_allclose(
            merged(values, oj.core_space(oj.iso_c())), merged(values, oj.iso_c()), atol=1e-9
        )


def test_adapters_as_factors_are_the_same():
    rng = np.random.default_rng(0)
    rows = [
        {"w": oj.LowRank(jnp.asarray(rng.normal(size=(12, 2)), jnp.float32),
                         jnp.asarray(rng.normal(size=(2, 9)), jnp.float32), 0.5)}
        for _ in range(3)
    ]  # fmt: skip
    for merger in (oj.knots(TIES), oj.core_space(oj.tsv_m())):
        np.testing.assert_array_equal(
            oj.merge_task_vectors(rows, merger)["w"],
            oj.merge_task_vectors([oj.dense(row) for row in rows], merger)["w"],
        )


def test_random_mergers_draw_within():
    values = adapters(2, (12, 9), 2).astype(np.float32)
    draw = functools.partial(merged, values, oj.core_space(oj.dare(0.5)))
    one, same, other = (draw(key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.1
    assert np.linalg.matrix_rank(one, tol=1e-3) <= 4  # of the inputs and outputs that there are


def dc_oracle(values, rank, rho, fraction):
    tasks = len(values)
    rank = rank or min(values.shape[1:]) // tasks
    lefts, scales, rights = [], [], []
    for value in values:
        left, scale, right = np.linalg.svd(value, full_matrices=False)
        left, scale, right = left[:, :rank], scale[:rank], right[:rank]
        if rho:
            line = np.linspace(min(rho, scale[0] / scale[-1]), 1, rank)
            scale = scale.sum() * line / line.sum()
        lefts.append(left), scales.append(scale), rights.append(right)

    def polar(matrix):
        left, _, right = np.linalg.svd(matrix, full_matrices=False)
        return left @ right

    inputs, outputs = polar(np.concatenate(lefts, axis=1)), polar(np.concatenate(rights))
    cores = np.stack(
        [inputs.T @ a @ np.diag(s) @ b @ outputs.T
         for a, s, b in zip(lefts, scales, rights, strict=True)]
    )  # fmt: skip
    mask = np.kron(np.eye(tasks), np.ones((rank, rank)))
    return inputs @ (mask * ties_of(cores, 100 * fraction)) @ outputs


@pytest.mark.parametrize(
    "rank, rho, fraction", [(0, 0.0, 0.2), (2, 1.0, 0.5), (3, 5.0, 0.3), (2, 2.0, 1.0)]
)
@pytest.mark.parametrize("shape", [(13, 10), (9, 14)])
@pytest.mark.parametrize("traced", [False, True])
def test_dc_merge_in_numpy(rank, rho, fraction, shape, traced):
    values = np.random.default_rng(0).normal(size=(3, *shape))
    with jax.enable_x64(True):
        rows = [{"w": jnp.asarray(value)} for value in values]
        merge = lambda rows: oj.merge_task_vectors(rows, oj.dc_merge(rank, rho, fraction))["w"]  # noqa: E731
        found = (jax.jit(merge) if traced else merge)(rows)
    np.testing.assert_allclose(found, dc_oracle(values, rank, rho, fraction), atol=1e-9)


def test_dc_merge_of_fewer_directions_than_its_rank():
    values = adapters(2, (12, 9), 2).astype(np.float32)
    for rho in (0.0, 1.0, 3.0):
        full, cut = (merged(values, oj.dc_merge(rank, rho, 1.0)) for rank in (4, 2))
        np.testing.assert_allclose(full, cut, atol=3e-5)
        assert np.abs(full).max() > 0.1


def test_orthogonal_tasks_are_merely_added_by_dc_merge():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(8, 8)))[0]
    values = np.stack([basis[:, s] @ np.diag([4.0, 3, 2, 1]) @ basis[:, s].T
                       for s in (slice(0, 4), slice(4, 8))])  # fmt: skip
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            merged(values, oj.dc_merge(fraction=4 / 64)), values.sum(axis=0), atol=1e-9
        )


@pytest.mark.parametrize("space, name", [(knots, "knots"), (core_space, "core_space")])
def test_refusals(space, name):
    with pytest.raises(ValueError, match=rf'{name}: ties\(k=20.0, .* has over="tensor" for that'):
        space(oj.ties())
    with pytest.raises(ValueError, match="cannot be traced: merge outside of jax.jit"):
        jax.jit(lambda w: oj.merge_task_vectors([{"w": w}], space(oj.average())))(jnp.eye(3))
    with pytest.raises(ValueError, match="draws random numbers: give key="):
        merged(np.ones((2, 3, 3), np.float32), space(oj.dare()))
    assert space(TIES) == space(oj.ties(40.0, over="tensor")) != space(oj.average())
