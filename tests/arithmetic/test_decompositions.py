"""Decompositions against LAPACK's in float64, of numbers that are there and of traced ones."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl

from orthoreg_jax.arithmetic.decompositions import pseudo_inverse, svd, svdvals

WAYS = {"on the host": lambda f: f, "traced": lambda f: jax.jit(f)}
# Largest errors, relative to the largest singular value.
EXACT = {"on the host": 5e-7, "traced": 1e-5}


def turned(values, rows, columns, seed=0):
    """A float32 matrix of nearly these singular values, in random directions."""
    rng, size = np.random.default_rng(seed), min(rows, columns)
    left = np.linalg.qr(rng.normal(size=(rows, rows)))[0][:, :size]
    right = np.linalg.qr(rng.normal(size=(columns, columns)))[0][:size]
    return (left * np.asarray(values, np.float64) @ right).astype(np.float32)


CASES = {
    "tall": turned(np.linspace(3, 0.5, 4), 7, 4),
    "wide": turned(np.linspace(3, 0.5, 4), 4, 7),
    "graded": turned(np.logspace(0, -4, 9), 9, 30),
    "tiny": turned(np.linspace(3, 0.5, 4), 4, 7) * np.float32(1e-30),
    "huge": turned(np.linspace(3, 0.5, 4), 4, 7) * np.float32(1e37),
    "deficient": turned([5, 3, 1, 0, 0, 0], 6, 8),
    "repeated": turned([2, 2, 2, 1, 1], 5, 8),
    "orthogonal": turned([1] * 6, 6, 6),
    "row": turned([3], 1, 7),
    "column": turned([3], 7, 1),
    "number": np.full((1, 1), -2, np.float32),
    "zeros": np.zeros((3, 5), np.float32),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_decompositions_are_lapack_s(case, way):
    matrix = CASES[case]
    found, exact = WAYS[way](svd)(matrix[None]), EXACT[way]
    left, values, right = (np.asarray(part[0], np.float64) for part in found)
    matrix = matrix.astype(np.float64)
    expected = np.linalg.svd(matrix, full_matrices=False)
    largest = expected.S[0] or 1.0
    np.testing.assert_allclose(values / largest, expected.S / largest, atol=exact)
    alone = np.asarray(WAYS[way](svdvals)(CASES[case][None])[0], np.float64)
    np.testing.assert_allclose(alone / largest, expected.S / largest, atol=exact)
    np.testing.assert_allclose((left * (values / largest)) @ right, matrix / largest, atol=exact)
    there = expected.S > 1e-6 * largest
    for ours, theirs in ((left, expected.U), (right.T, expected.Vh.T)):
        own = ours[:, there]
        # Those that are there are orthonormal; and each space between gaps is LAPACK's, which is
        # what is well defined: vectors have a sign, and those of equal values any rotation.
        np.testing.assert_allclose(own.T @ own, np.eye(there.sum()), atol=1e-6)
        for end in range(1, there.sum() + 1):
            below = expected.S[end] if end < len(values) else 0
            gap = (expected.S[end - 1] - below) / largest
            if gap > 1e-2:
                space = ours[:, :end] @ ours[:, :end].T
                theirs_too = theirs[:, :end] @ theirs[:, :end].T
                np.testing.assert_allclose(space, theirs_too, atol=exact / gap)


def test_polar_factors_of_graded_matrices_are_those_of_lapack_in_float64():
    """Where LAPACK in float32 is off by 1e-3: small directions count as large ones do."""
    matrix = turned(np.logspace(0, -4, 60), 60, 240)
    left, _, right = svd(matrix[None])
    expected = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    np.testing.assert_allclose(left[0] @ right[0], expected.U @ expected.Vh, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_leading_ones_of_a_stack(way):
    matrices = np.random.default_rng(0).normal(size=(3, 8, 5)).astype(np.float32)
    whole = svd(matrices)
    found = WAYS[way](lambda matrices: svd(matrices, 2))(matrices)
    assert [part.shape for part in found] == [(3, 8, 2), (3, 2), (3, 2, 5)]
    products = (found.left * found.values[:, None]) @ found.right
    expected = (whole.left[..., :2] * whole.values[:, None, :2]) @ whole.right[:, :2]
    np.testing.assert_allclose(products, expected, atol=1e-5)
    assert [part.shape for part in svd(matrices, 9)] == [(3, 8, 5), (3, 5), (3, 5, 5)]


def test_float64_takes_lapack_s_own():
    matrix = np.random.default_rng(0).normal(size=(2, 9, 6)) * np.logspace(0, -10, 6)
    expected = np.linalg.svd(matrix, full_matrices=False)
    left, values, right = svd(matrix)
    # To the smallest of them: no Gram matrix, whose eigenvalues are squares, would tell it.
    np.testing.assert_allclose(values, expected.S, rtol=1e-5)
    np.testing.assert_allclose(svdvals(matrix), expected.S, rtol=1e-5)
    np.testing.assert_allclose(left @ right, expected.U @ expected.Vh, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 4, 0), (1, 0, 0)])
def test_nothing_has_no_singular_values(shape, way):
    nothing, size = np.zeros(shape, np.float32), min(shape[1:])
    assert WAYS[way](svdvals)(nothing).shape == (shape[0], size)
    left, values, right = WAYS[way](svd)(nothing)
    assert left.shape == (*shape[:2], size) and right.shape == (shape[0], size, shape[2])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_nan_and_nothing_else(bad, way):
    matrices = np.stack([CASES["wide"]] * 3)
    matrices[1, 2, 3] = bad
    for part in (*WAYS[way](svd)(matrices), WAYS[way](svdvals)(matrices)):
        assert np.isnan(part[1]).all() and np.isfinite(np.asarray(part)[[0, 2]]).all()
    squares = matrices @ np.swapaxes(matrices, 1, 2)
    squares[1] = bad
    inverses = np.asarray(WAYS[way](pseudo_inverse)(squares))
    assert np.isnan(inverses[1]).all() and np.isfinite(inverses[[0, 2]]).all()


@pytest.mark.parametrize("way", WAYS)
def test_pseudo_inverses(way):
    low = np.random.default_rng(0).normal(size=(2, 6, 3)).astype(np.float32)
    full = CASES["orthogonal"] + CASES["orthogonal"].T + 3 * np.eye(6, dtype=np.float32)
    squares = np.stack([*(low @ np.swapaxes(low, 1, 2)), full, 0 * full])
    expected = np.linalg.pinv(squares.astype(np.float64), rcond=1e-5, hermitian=True)
    np.testing.assert_allclose(WAYS[way](pseudo_inverse)(squares), expected, atol=2e-5)
    assert WAYS[way](pseudo_inverse)(squares[:0]).shape == (0, 6, 6)


def test_the_nuclear_norm_s_gradient_is_the_polar_factor():
    matrices = jnp.stack([CASES["wide"], turned([4, 3, 2, 1], 4, 7, seed=1)])
    left, _, right = svd(np.asarray(matrices))
    expected = left @ right
    found = jax.grad(lambda matrices: svdvals(matrices).sum())(matrices)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    mapped = jax.vmap(jax.grad(lambda matrix: svdvals(matrix[None]).sum()))(matrices)
    np.testing.assert_allclose(mapped, expected, atol=1e-5)


@pytest.mark.parametrize("decompose", [svd, pseudo_inverse])
def test_vectors_have_no_derivative_and_say_so(decompose):
    with pytest.raises(NotImplementedError, match=r"cannot be differentiated here .*stop_gradient"):
        jax.grad(lambda matrices: jax.tree.leaves(decompose(matrices))[0].sum())(jnp.eye(3)[None])


@pytest.mark.parametrize("decompose", [svd, svdvals, pseudo_inverse])
def test_no_batch_reaches_xla_s_lapack(decompose):
    """However it is mapped: batches are what XLA's CPU client was seen to stop at for ever."""
    mapped = jax.jit(jax.vmap(jax.vmap(decompose)))
    text = mapped.lower(jnp.zeros((2, 3, 4, 5, 5))).as_text()
    calls = re.findall(r"custom_call @lapack.*: \(tensor<([\dx]+)xf32>", text)
    assert calls and set(calls) == {"5x5"}


def test_threads_of_lapack_are_as_before():
    before = [each["num_threads"] for each in threadpoolctl.threadpool_info()]
    svd(CASES["wide"][None])
    assert [each["num_threads"] for each in threadpoolctl.threadpool_info()] == before
