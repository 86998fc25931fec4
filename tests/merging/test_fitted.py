"""Mergers that see data, against their formulas in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj

RULES = {"stack": oj.Matrix()}


def vector(seed):
    rng = np.random.default_rng(seed)
    shapes = {"stack": (2, 4, 3), "w": (5, 2), "bias": (3,), "scalar": ()}
    return {name: jnp.asarray(rng.normal(size=s), jnp.float32) for name, s in shapes.items()}


def test_fisher_weighs_entries():
    rows = {"a": vector(0), "b": vector(1)}
    weights = {name: jax.tree.map(jnp.square, vector(n)) for n, name in enumerate(rows, 5)}
    weights = jax.tree.map(lambda leaf: jnp.where(leaf < 0.1, 0, leaf), weights)
    found = oj.fisher(rows, dict(reversed(weights.items())))
    for name, leaf in found.items():
        values = [np.asarray(row[name], np.float64) for row in rows.values()]
        own = [np.asarray(weights[task][name], np.float64) for task in rows]
        total = own[0] + own[1]
        with np.errstate(invalid="ignore"):
            expected = (own[0] * values[0] + own[1] * values[1]) / total
        expected = np.where(total > 0, expected, (values[0] + values[1]) / 2)
        np.testing.assert_allclose(leaf, expected, rtol=2e-5, atol=1e-6)


def test_diagonal_fisher_of_a_softmax_regression():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.zeros(3)}
    inputs = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    found = oj.diagonal_fisher(lambda p, x: jax.nn.log_softmax(x @ p["w"] + p["b"]), params, inputs)
    x, w = np.asarray(inputs, np.float64), np.asarray(params["w"], np.float64)
    chances = np.exp(x @ w)
    chances /= chances.sum(axis=1, keepdims=True)
    # d log p_y / d logit_j = [y = j] - p_j: its square, averaged over y, is p_j (1 - p_j).
    square = chances * (1 - chances)
    np.testing.assert_allclose(found["b"], square.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found["w"], (x**2).T @ square / len(x), rtol=1e-5)


def inputs(seed, count, shape):
    return np.random.default_rng(seed).normal(size=(count, *shape))


@pytest.mark.parametrize("alpha", [0.0, 0.9, 1.0])
def test_regmean_solves_its_equations(alpha):
    rows = [vector(0), vector(1), vector(2)]
    stacks = [inputs(t, 9, (2, 4)) for t in range(3)]  # inputs of both layers
    grams = [{"stack": jnp.asarray(np.einsum("bki,bkj->kij", x, x))} for x in stacks]
    found = oj.regmean(rows, grams, alpha, matrices=RULES)
    for layer in range(2):
        total, target = np.zeros((4, 4)), np.zeros((4, 3))
        for row, x in zip(rows, stacks, strict=True):
            gram = x[:, layer].T @ x[:, layer]
            gram = np.where(np.eye(4) > 0, gram, alpha * gram)
            total, target = total + gram, target + gram @ np.asarray(row["stack"][layer])
        np.testing.assert_allclose(
            found["stack"][layer], np.linalg.solve(total, target), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_allclose(found["w"], sum(row["w"] for row in rows) / 3, rtol=1e-5)


def test_regmean_is_least_squares_and_bears_dead_inputs():
    rows = [{"w": vector(t)["w"]} for t in range(2)]
    xs = [inputs(t, 8, (5,)) for t in range(2)]
    for x in xs:
        x[:, 3] = 0
    grams = [{"w": jnp.asarray(x.T @ x, jnp.float32)} for x in xs]
    found = np.asarray(oj.regmean(rows, grams, 1.0)["w"])
    both = np.concatenate(xs)
    wanted = np.concatenate([x @ np.asarray(r["w"]) for x, r in zip(xs, rows, strict=True)])
    best = np.linalg.lstsq(both, wanted, rcond=None)[0]
    np.testing.assert_allclose(both @ found, both @ best, atol=1e-4)
    np.testing.assert_allclose(found[3], 0, atol=1e-6)


# Adam of optax promotes types by itself.
@jax.numpy_dtype_promotion("standard")
def test_adamerging_finds_the_coefficients_that_lower_the_loss():
    rows = {"a": vector(0), "b": vector(1)}
    target = {
        "stack": jnp.stack([rows["a"]["stack"][0], 0.5 * rows["b"]["stack"][1]]),
        "w": rows["a"]["w"] + rows["b"]["w"],
        "bias": rows["b"]["bias"],
        "scalar": rows["a"]["scalar"],
    }

    def loss(tau, batch):
        return batch * sum(jnp.sum(jnp.square(tau[k] - target[k])) for k in target)

    found = oj.adamerging(rows, loss, [jnp.ones(())], 1500, 2e-2, matrices=RULES)
    for name in target:  # one coefficient for each task and layer is enough for all of it
        np.testing.assert_allclose(found[name], target[name], atol=2e-3)
    start = oj.adamerging(rows, loss, [jnp.ones(())], 0, matrices=RULES)
    for name, leaf in start.items():
        expected = 0.3 * (rows["a"][name] + rows["b"][name])
        np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-7)


@jax.numpy_dtype_promotion("standard")
def test_adamerging_takes_batches_in_turn():
    rows = [{"w": jnp.ones(2)}]
    seen = oj.adamerging(
        rows, lambda tau, batch: jnp.sum(tau["w"] * batch), [jnp.ones(2), -jnp.ones(2)], 2, 0.1
    )
    first = oj.adamerging(rows, lambda tau, b: jnp.sum(tau["w"] * b), [jnp.ones(2)], 1, 0.1)
    np.testing.assert_allclose(first["w"], 0.2, atol=1e-6)  # Adam's first step is its rate
    assert 0.2 < float(seen["w"][0]) < 0.3


def test_entropy():
    np.testing.assert_allclose(oj.entropy(jnp.zeros((3, 8))), np.log(8), rtol=1e-6)
    np.testing.assert_allclose(oj.entropy(jnp.array([[0.0, 200.0]])), 0, atol=1e-6)
    chances = np.array([0.2, 0.3, 0.5])
    expected = -(chances * np.log(chances)).sum()
    np.testing.assert_allclose(oj.entropy(jnp.log(jnp.asarray(chances))), expected, rtol=1e-6)


W = {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}
EYE = jnp.eye(2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: oj.fisher([W], []), "1 vector and 0 fishers; give one for each"),
        (lambda: oj.fisher({"a": W}, {"b": W}), r"vectors are for \['a'\], fishers for \['b'\]"),
        (lambda: oj.fisher({"a": W}, [W]), "give both as lists, or both as dicts"),
        (lambda: oj.fisher([W], [{"w": EYE}]), r"only in vectors\[0\]: b"),
        (
            lambda: oj.regmean([W], [{"w": EYE}], 1.5),
            "alpha is 1.5; give the factor for off-diagonal",
        ),
        (lambda: oj.regmean([W], [{"v": EYE}]), "'v' is not a leaf; the leaves are b, w"),
        (lambda: oj.regmean([W], [{"b": EYE}]), "leaf 'b' is not a matrix"),
        (lambda: oj.regmean([W], [{"w": jnp.eye(3)}]), r"shape \(1, 3, 3\), expected \(1, 2, 2\)"),
        (lambda: oj.adamerging([W], lambda t, b: t["b"][0], []), "give at least one"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_grams_are_of_the_same_leaves():
    vectors = [{"w": jnp.ones((2, 2))}] * 2
    for grams in ([{}, {"w": jnp.eye(2)}], [{"w": jnp.eye(2)}, {}]):
        with pytest.raises(ValueError, match="grams: vectors"):
            oj.regmean(vectors, grams)
