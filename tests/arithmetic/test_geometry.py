import jax.numpy as jnp
import numpy as np

from orthoreg_jax.arithmetic.geometry import column_cosines, singular_values
from orthoreg_jax.arithmetic.matrices import Matrix

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
