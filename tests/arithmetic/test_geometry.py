import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.geometry import (
    column_angles,
    column_cosines,
    gram_deviations,
    singular_values,
    stable_ranks,
)
from orthoreg_jax.arithmetic.rules import Matrix

RULES = {"stack": Matrix()}


def test_singular_values_and_cosines_against_numpy():
    rng = np.random.default_rng(0)
    tree = {"stack": rng.normal(size=(2, 5, 3)).astype(np.float32), "wide": rng.normal(size=(2, 6))}
    values, cosines = singular_values(tree, RULES), column_cosines(tree, RULES)
    assert values["stack"].shape == (2, 3) and values["wide"].shape == (1, 2)
    for layer in range(2):
        matrix = tree["stack"][layer]
        expected = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(values["stack"][layer], expected, rtol=1e-5)
        pairs = [
            abs(matrix[:, i] @ matrix[:, j])
            / np.linalg.norm(matrix[:, i])
            / np.linalg.norm(matrix[:, j])
            for i in range(3)
            for j in range(i)
        ]
        np.testing.assert_allclose(cosines["stack"][layer], np.mean(pairs), rtol=1e-5)


def test_orthogonal_and_zero_columns_have_cosine_zero():
    assert column_cosines({"w": jnp.diag(jnp.array([1.0, 5.0, 0.0]))})["w"] == 0
    np.testing.assert_allclose(column_cosines({"w": jnp.ones((4, 3))})["w"], 1.0, rtol=1e-6)


def test_stable_ranks_gram_deviations_and_angles_against_numpy():
    rng = np.random.default_rng(1)
    tree = {"stack": rng.normal(size=(2, 5, 3)).astype(np.float32), "wide": rng.normal(size=(2, 6))}
    ranks, deviations = stable_ranks(tree, RULES), gram_deviations(tree, RULES)
    angles = column_angles(tree, RULES, bins=12)
    for path, matrices in (("stack", tree["stack"]), ("wide", tree["wide"][None])):
        for layer, matrix in enumerate(matrices):
            expected = np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2
            np.testing.assert_allclose(ranks[path][layer], expected, rtol=1e-5)
            small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
            gram = small.T @ small - np.eye(small.shape[1])
            np.testing.assert_allclose(deviations[path][layer], np.linalg.norm(gram), rtol=1e-4)
            columns = matrix / np.linalg.norm(matrix, axis=0)
            pairs = [
                np.degrees(np.arccos(columns[:, i] @ columns[:, j]))
                for i in range(matrix.shape[1])
                for j in range(i)
            ]
            shares = np.histogram(pairs, 12, (0, 180))[0] / len(pairs)
            np.testing.assert_allclose(angles[path][layer], shares, atol=1e-6)


def test_zero_update_has_stable_rank_zero_and_the_penalty_s_value():
    zero = {"w": jnp.zeros((4, 3))}
    assert stable_ranks(zero)["w"] == 0
    np.testing.assert_allclose(gram_deviations(zero)["w"], 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(stable_ranks({"w": jnp.eye(4)})["w"], 4, rtol=1e-6)
    # Orthogonal columns: all in the bin that holds 90 degrees.
    assert column_angles({"w": jnp.eye(4)}, bins=3)["w"].tolist() == [[0.0, 1.0, 0.0]]


def test_matrices_of_no_entries_and_those_that_are_not_finite():
    tree = {"none": jnp.zeros((0, 3)), "stack": jnp.stack([jnp.eye(3), jnp.full((3, 3), jnp.inf)])}
    rules = {"stack": Matrix()}
    values, ranks = singular_values(tree, rules), stable_ranks(tree, rules)
    assert values["none"].shape == (1, 0) and ranks["none"] == 0
    np.testing.assert_array_equal(values["stack"], [[1, 1, 1], [np.nan] * 3])
    np.testing.assert_array_equal(ranks["stack"], [3, np.nan])
    np.testing.assert_array_equal(gram_deviations(tree, rules)["stack"], [0, np.nan])


def test_measures_of_spectra_can_be_traced():
    tree = {"w": jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)), jnp.float32)}
    for measure in (singular_values, stable_ranks, gram_deviations):
        np.testing.assert_allclose(jax.jit(measure)(tree)["w"], measure(tree)["w"], rtol=1e-5)
