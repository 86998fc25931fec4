"""The penalty as an optax transformation: equal to the loss form, and what it refuses."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from orthoreg_jax import Matrix, Skip, add_orthogonality_penalty, orthogonality_penalty


def random_update(shape, scale, dtype=jnp.float32, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape) * scale, dtype)


def small_problem():
    """A two-layer network with stacked blocks, its rules and a batch."""
    rng = np.random.default_rng(0)
    params = {
        "first": {"kernel": random_update((6, 8), 0.4), "bias": jnp.zeros(8)},
        "blocks": {"kernel": random_update((2, 8, 8), 0.3, seed=1), "bias": jnp.zeros((2, 8))},
    }
    rules = {"blocks/kernel": Matrix(), "blocks/bias": Skip("biases, stacked")}
    x, y = rng.normal(size=(32, 6)), rng.normal(size=(32, 8))

    def loss(params):
        hidden = jnp.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
        for kernel, bias in zip(params["blocks"]["kernel"], params["blocks"]["bias"], strict=True):
            hidden = jnp.tanh(hidden @ kernel + bias)
        return jnp.mean((hidden - y) ** 2)

    return params, rules, loss


def optimise(loss, optimizer, params, steps):
    @jax.jit
    @jax.numpy_dtype_promotion("standard")  # optax's AdamW promotes its own step count
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


@pytest.mark.parametrize("form", ["released", "paper"])
def test_optax_form_equals_loss_form_over_a_training_run(form):
    params, rules, loss = small_problem()
    rest = (optax.clip_by_global_norm(1.0), optax.adamw(1e-2, weight_decay=0.1))

    def penalised(new):
        delta = jax.tree.map(jnp.subtract, new, params)
        return loss(new) + 0.5 * orthogonality_penalty(delta, matrices=rules, form=form)

    in_loss, _ = optimise(penalised, optax.chain(*rest), params, 60)
    term = add_orthogonality_penalty(0.5, matrices=rules, form=form)
    in_chain, state = optimise(loss, optax.chain(term, *rest), params, 60)
    plain, _ = optimise(loss, optax.chain(*rest), params, 60)
    for a, b, c in zip(*map(jax.tree.leaves, (in_loss, in_chain, plain)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
        assert not np.allclose(a, c, atol=1e-3)
    assert state[0].count == 60 and state[0].penalty > 0


def test_strength_may_be_a_schedule_of_the_updates_made():
    params, _, _ = small_problem()
    params = {"w": params["first"]["kernel"]}
    moved = {"w": params["w"] + 0.1}
    optimizer = add_orthogonality_penalty(lambda count: jnp.where(count < 1, 0.0, 2.0))
    state, zero = optimizer.init(params), jax.tree.map(jnp.zeros_like, params)
    first, state = optimizer.update(zero, state, moved)
    second, _ = optimizer.update(zero, state, moved)
    expected = jax.grad(orthogonality_penalty)({"w": moved["w"] - params["w"]})
    assert not np.any(first["w"])
    np.testing.assert_allclose(second["w"], 2 * expected["w"], rtol=1e-6)


def test_strength_may_be_traced():
    params = {"w": jnp.ones((4, 3))}
    zeros = jax.tree.map(jnp.zeros_like, params)

    @jax.jit
    def first_update(strength):
        penalty = add_orthogonality_penalty(strength, anchor=zeros)
        return penalty.update(zeros, penalty.init(params), params)[0]["w"]

    ours, expected = first_update(0.5), jax.grad(orthogonality_penalty)(params)["w"]
    np.testing.assert_allclose(ours, 0.5 * expected, rtol=1e-5)


def test_explicit_anchor_and_donation():
    params, rules, loss = small_problem()
    anchor = jax.tree.map(lambda leaf: leaf + 0.05, params)
    term = add_orthogonality_penalty(1.0, anchor, matrices=rules)
    state = term.init(params)
    assert isinstance(state.anchor["first"]["bias"], optax.MaskedNode)  # no copy without need
    update = jax.jit(term.update, donate_argnums=(1, 2))
    updates, _ = update(jax.grad(loss)(params), term.init(params), jax.tree.map(jnp.copy, params))
    delta = jax.tree.map(jnp.subtract, params, anchor)
    expected = jax.tree.map(
        jnp.add,
        jax.grad(loss)(params),
        jax.grad(lambda tree: orthogonality_penalty(tree, matrices=rules))(delta),
    )
    for a, b in zip(jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strength", [-1, float("nan"), float("inf"), jnp.float32(-1)])
def test_strengths_that_are_none(strength):
    with pytest.raises(ValueError, match="a penalty needs a finite number, 0 or more"):
        add_orthogonality_penalty(strength)


@pytest.mark.parametrize(
    "strength, came",
    [(None, "None"), ("0.1", "'0.1'"), (np.ones(3), "ndarray of shape"), ([0.1], "list of shape")],
)
def test_strengths_that_are_no_number(strength, came):
    with pytest.raises(ValueError, match=f"strength is {came}.*give lambda as one finite number"):
        inspect.unwrap(add_orthogonality_penalty)(strength)  # ahead of the tests' own check


def masked_problem():
    params = {
        "tower": {"kernel": random_update((6, 4), 0.4), "conv": random_update((2, 2, 3, 4), 0.3)},
        "head": {"kernel": random_update((4, 3), 0.5, seed=2)},
    }
    rules = {"tower/conv": Matrix((0, 1, 2), (3,)), "head/*": Skip("a head"), "*/kernel": Matrix()}
    return params, jax.tree.map(lambda leaf: leaf * 0.9, params), rules


@pytest.mark.parametrize(
    "mask",
    [
        {"tower": {"kernel": True, "conv": True}, "head": {"kernel": False}},
        {"tower": True, "head": False},  # a whole part at once
    ],
)
def test_masks_pass_over_anchor_and_rules_of_the_whole_model(mask):
    params, anchor, rules = masked_problem()
    expected = jax.grad(
        lambda tree: orthogonality_penalty(jax.tree.map(jnp.subtract, tree, anchor), matrices=rules)
    )(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    term = add_orthogonality_penalty(1.0, anchor, matrices=rules)
    labels = jax.tree.map(lambda keep: "penalised" if keep else "plain", mask)
    either = (
        optax.masked(term, mask),
        optax.multi_transform({"penalised": term, "plain": optax.identity()}, labels),
    )
    for optimizer in either:
        updates, _ = jax.jit(optimizer.update)(zeros, optimizer.init(params), params)
        for ours, theirs in zip(*map(jax.tree.leaves, (updates, expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_rules_beyond_a_mask_are_still_checked():
    params, anchor, rules = masked_problem()
    mask = {"tower": True, "head": False}
    for typo, wrong in (("tower/cnov", True), ("head/kernle", False), ("*/kernle", False)):
        # What is masked out cannot be told from what was never there.
        term = add_orthogonality_penalty(1.0, anchor, matrices={**rules, typo: Matrix()})
        optimizer = optax.masked(term, mask)
        if wrong:
            with pytest.raises(ValueError, match=f"no leaf matches '{typo}'"):
                optimizer.init(params)
        else:
            optimizer.init(params)


def test_the_anchor_may_stay_outside_of_the_state():
    params, anchor, rules = masked_problem()
    gradients = jax.tree.map(jnp.ones_like, params)
    kept = add_orthogonality_penalty(0.5, anchor, matrices=rules)
    outside = add_orthogonality_penalty(0.5, matrices=rules, keep_anchor=False)
    expected, _ = kept.update(gradients, kept.init(params), params)
    for optimizer in (outside, optax.chain(outside, optax.identity())):
        state = optimizer.init(params)
        assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 2
        update = jax.jit(lambda state, anchor, each=optimizer: each.update(
            gradients, state, params, anchor=anchor
        ))  # fmt: skip
        found, state = update(state, anchor)
        for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    with pytest.raises(ValueError, match="call optimizer.update\\(.*anchor=pretrained"):
        outside.update(gradients, outside.init(params), params)
    with pytest.raises(ValueError, match="the state already has the anchor"):
        kept.update(gradients, kept.init(params), params, anchor=anchor)
    with pytest.raises(ValueError, match="pass the anchor to each `update`"):
        add_orthogonality_penalty(0.5, anchor, keep_anchor=False)
    with pytest.raises(ValueError, match="params and anchor differ in shape: tower/kernel"):
        wrong = {**anchor, "tower": {**anchor["tower"], "kernel": jnp.ones((6, 5))}}
        outside.update(gradients, outside.init(params), params, anchor=wrong)


def test_initialising_again_after_donation():
    params = {"w": jnp.ones((3, 2))}
    optimizer = add_orthogonality_penalty(1.0)
    later = add_orthogonality_penalty(1.0, anchor=params)
    jax.jit(lambda tree: jax.tree.map(jnp.add, tree, tree), donate_argnums=0)(params)
    with pytest.raises(ValueError, match="params: the memory of 1 leaves was donated .*'w'"):
        optimizer.init(params)
    with pytest.raises(ValueError, match="anchor: the memory of 1 leaves was donated"):
        later.init({"w": jnp.ones((3, 2))})


def test_optax_form_refuses_bad_input():
    params = {"w": jnp.ones((3, 2))}
    with pytest.raises(ValueError, match="strength -1.0"):
        add_orthogonality_penalty(-1.0)
    with pytest.raises(ValueError, match="call\\s+optimizer.update"):
        optimizer = add_orthogonality_penalty(1.0)
        optimizer.update(params, optimizer.init(params))
    with pytest.raises(ValueError, match="params and anchor differ in shape: w"):
        add_orthogonality_penalty(1.0, {"w": jnp.ones((2, 2))}).init(params)
    with pytest.raises(ValueError, match="only in anchor: v"):
        add_orthogonality_penalty(1.0, {"v": params["w"]}).init(params)


def test_updates_keep_their_type_under_a_schedule():
    params = {"w": jnp.eye(4, 2, dtype=jnp.bfloat16)}
    for strength in (0.5, optax.linear_schedule(1.0, 0.5, 10)):
        optimizer = add_orthogonality_penalty(strength)
        updates, _ = optimizer.update(params, optimizer.init(params), {"w": params["w"] * 2})
        assert updates["w"].dtype == jnp.bfloat16


def test_what_the_parameters_lack_is_said_by_name():
    params = {"a": {"kernel": jnp.ones((4, 8))}, "b": jnp.ones(8)}
    optimizer = add_orthogonality_penalty(1.0)
    state = optimizer.init(params)
    with pytest.raises(ValueError, match="params and updates differ in structure; .* a/kernel"):
        optimizer.update({"c": {"kernel": jnp.ones((4, 8))}, "b": jnp.ones(8)}, state, params)
    other = {"a": {"kernel": jnp.ones((8, 4))}, "b": jnp.ones(8)}
    with pytest.raises(ValueError, match=r"'a/kernel' had the shape \(4, 8\) when .* \(8, 4\)"):
        optimizer.update(other, state, other)
    other = {"c": {"kernel": jnp.ones((4, 8))}, "b": jnp.ones(8)}
    with pytest.raises(ValueError, match="'a/kernel' .* params have no such leaf"):
        optimizer.update(other, state, other)
