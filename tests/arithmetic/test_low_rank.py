"""Updates in factors: the penalty by r x r algebra equals the one of the product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from orthoreg_jax import (
    Adapter,
    LowRank,
    Matrix,
    add_orthogonality_penalty,
    dense,
    describe_matrices,
    orthogonality_penalty,
)

# (layers, m, n, rank): tall, wide, square, rank 1, one stack of several.
SHAPES = [((), 40, 12, 3), ((), 12, 40, 3), ((2,), 16, 16, 8), ((3,), 9, 30, 1), ((2, 2), 8, 6, 5)]


def random_update(stack, m, n, rank, scale=0.5, size=0.4):
    draw = np.random.default_rng(rank + m).normal
    left, right = draw(size=(*stack, m, rank)) * size, draw(size=(*stack, rank, n)) * size
    return LowRank(jnp.asarray(left, jnp.float32), jnp.asarray(right, jnp.float32), scale)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("form", ["released", "paper"])
@pytest.mark.parametrize("size", [1e-3, 0.4, 2.0])
def test_penalty_equals_the_dense_one(shape, form, size):
    update = random_update(*shape, size=size)
    rules = {"w": Matrix()}

    def factored(update):
        return orthogonality_penalty({"w": update}, matrices=rules, form=form)

    def multiplied(update):
        # The product in plain jax.numpy: an oracle that shares nothing but the dense penalty.
        product = update.scale * jnp.einsum("...mr,...rn->...mn", update.left, update.right)
        return orthogonality_penalty({"w": product}, matrices=rules, form=form)

    (value, gradient), (expected, slope) = (
        jax.jit(jax.value_and_grad(f))(update) for f in (factored, multiplied)
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for ours, theirs in ((gradient.left, slope.left), (gradient.right, slope.right)):
        assert jnp.linalg.norm(ours - theirs) < 1e-5 * jnp.linalg.norm(theirs)


@pytest.mark.parametrize("form", ["released", "paper"])
def test_a_fresh_adapter_has_value_of_zero_update_and_no_gradient_into_left(form):
    left = jax.random.normal(jax.random.key(0), (6, 2))
    update = LowRank(left, jnp.zeros((2, 9)), 4.0)
    value, gradient = jax.value_and_grad(lambda u: orthogonality_penalty(u, form=form))(update)
    assert np.isclose(value, np.sqrt(6) if form == "released" else 9)
    assert not np.any(gradient.left) and not np.any(gradient.right)


def test_the_product_is_never_formed():
    """No array of the update's size in the compiled value and gradient."""
    update = LowRank(jnp.ones((512, 4)), jnp.ones((4, 768)))
    jaxpr = str(jax.make_jaxpr(jax.value_and_grad(orthogonality_penalty))(update))
    assert "f32[512,4]" in jaxpr
    assert not any(size in jaxpr for size in ("[512,768]", "[768,768]", "[512,512]"))


def test_a_rank_that_saves_nothing_is_multiplied_out():
    """Orthonormal update of full rank: the kink, where only the dense form knows the answer 0."""
    update = LowRank(jnp.eye(8, 4), jnp.eye(4))
    value, gradient = jax.value_and_grad(orthogonality_penalty)(update)
    assert value == 0
    assert not np.any(gradient.left) and not np.any(gradient.right)


def test_dense_and_describe():
    tree = {"a": LowRank(jnp.ones((3, 2, 1)), jnp.ones((3, 1, 5)), 0.5), "b": jnp.ones((2, 2))}
    product = dense(tree)
    np.testing.assert_array_equal(product["a"], 0.5 * np.ones((3, 2, 5)))
    assert product["b"] is tree["b"]
    assert "3 x (2 rows, 5 columns)" in describe_matrices(tree, {"a": Matrix()})


def test_other_axes_read_the_product():
    update = random_update((2,), 6, 4, 2)
    rules = {"w": Matrix(rows=(-1,), columns=(-2,))}
    expected = orthogonality_penalty({"w": dense(update)}, matrices=rules, form="paper")
    value = orthogonality_penalty({"w": update}, matrices=rules, form="paper")
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_shown_by_its_shapes():
    assert (
        repr(random_update((2,), 6, 4, 3)) == "LowRank(left=(2, 6, 3), right=(2, 3, 4), scale=0.5)"
    )


def exact(left, right, old_left, old_right):
    """Value and gradient of || D^T D - I || for D = A B - A_0 B_0, rows >= columns, in float64."""
    a, b, a0, b0 = (np.asarray(each, np.float64) for each in (left, right, old_left, old_right))
    change = a @ b - a0 @ b0
    deviation = change.T @ change - np.eye(change.shape[1])
    value = np.linalg.norm(deviation)
    slope = 2 * change @ deviation / value
    return value, slope @ b.T, a.T @ slope


@pytest.mark.parametrize("size, rank", [((64, 16), 4), ((768, 96), 8), ((9, 9), 2)])
@pytest.mark.parametrize("moved", [1e-6, 1e-4, 1e-2, 1.0])
def test_a_small_change_of_factors_keeps_its_digits(size, rank, moved):
    """LoRA that goes on from factors whose product is not 0: A B - A_0 B_0 would cancel."""
    draw = np.random.default_rng(3).normal
    old = {
        "lora_a": jnp.asarray(draw(size=(size[0], rank)), jnp.float32),
        "lora_b": jnp.asarray(draw(size=(rank, size[1])), jnp.float32),
    }
    new = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(moved * draw(size=leaf.shape), jnp.float32), old
    )
    optimizer = add_orthogonality_penalty(1.0, matrices={"*": Adapter("lora_a", "lora_b")})
    state = optimizer.init(old)
    still, _ = optimizer.update(jax.tree.map(jnp.zeros_like, old), state, old)
    assert not any(np.any(leaf) for leaf in still.values())
    found, state = optimizer.update(jax.tree.map(jnp.zeros_like, old), state, new)
    value, *slopes = exact(*new.values(), *old.values())
    np.testing.assert_allclose(state.penalty, value, rtol=2e-5)
    for name, slope in zip(new, slopes, strict=True):
        assert np.linalg.norm(found[name] - slope) < 1e-4 * np.linalg.norm(slope)


@pytest.mark.parametrize("size", [1e2, 2e4, 1e6, 1e8])
def test_large_factors_keep_value_and_gradient(size):
    draw = np.random.default_rng(4).normal
    left, right = (jnp.asarray(size * draw(size=shape), jnp.float32) for shape in ((12, 2), (2, 7)))
    penalty = lambda update: orthogonality_penalty({"w": update})  # noqa: E731
    value, gradient = jax.value_and_grad(penalty)(LowRank(left, right))
    expected, *slopes = exact(left, right, np.zeros((12, 2)), np.zeros((2, 7)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for found, slope in zip((gradient.left, gradient.right), slopes, strict=True):
        assert np.linalg.norm(found - slope) < 1e-4 * np.linalg.norm(slope)
