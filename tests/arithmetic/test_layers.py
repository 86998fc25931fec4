"""Rules of stock layers against the layers themselves, and two leaves that are one update."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.matrices import select_matrices

HEADS = dict.fromkeys(("query", "key", "value", "out"), (1, 16, 16))


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, _=None):
        x = linen.MultiHeadDotProductAttention(num_heads=2, name="attn")(x)
        x = linen.Dense(16, name="dense")(linen.LayerNorm(name="norm")(x))
        return linen.Conv(16, (3,), name="conv")(x), None


class Images(linen.Module):
    @linen.compact
    def __call__(self, ids, images):
        x = linen.Embed(10, 16)(ids)
        y = linen.ConvTranspose(5, (3, 3))(linen.Conv(6, (3, 3), use_bias=False)(images))
        return Block()(x)[0], linen.BatchNorm(use_running_average=True)(y)


def sizes(library, tree, spatial=None):
    rules = oj.layer_rules(library, tree, spatial)
    return {path: leaf.shape for path, leaf in select_matrices(tree, rules).items()}


def linen_params(module, *inputs):
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)["params"])
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)


def test_linen():
    params = linen_params(Images(), jnp.zeros((1, 4), int), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="(?s)'Conv_0/kernel' of shape .* has no rule.*spatial=2"):
        sizes("linen", params)
    assert sizes("linen", params, spatial=2) == {
        **{f"Block_0/attn/{name}/kernel": shape for name, shape in HEADS.items()},
        "Block_0/conv/kernel": (1, 48, 16),
        "Block_0/dense/kernel": (1, 16, 16),
        "Conv_0/kernel": (1, 27, 6),
        "ConvTranspose_0/kernel": (1, 54, 5),
    }


def test_linen_stacked_by_scan():
    scanned = linen.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
    params = linen_params(scanned(), jnp.zeros((1, 4, 16)), None)
    assert sizes("linen", params) == {
        **{f"attn/{name}/kernel": (3, *shape[1:]) for name, shape in HEADS.items()},
        "conv/kernel": (3, 48, 16),
        "dense/kernel": (3, 16, 16),
    }


class Model(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(10, 16, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(2, 16, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.lora = nnx.LoRALinear(16, 8, lora_rank=2, rngs=rngs)
        self.conv = nnx.Conv(3, 6, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)  # whose keys are leaves, too


def test_nnx():
    state = nnx.state(Model(nnx.Rngs(0)))
    assert sizes("nnx", state) == {
        **{f"attn/{name}/kernel/value": shape for name, shape in HEADS.items()},
        "conv/kernel/value": (1, 27, 6),
        "lora/kernel/value": (1, 16, 8),
        "lora/lora": (1, 16, 8),
    }


def test_equinox():
    keys = iter(jax.random.split(jax.random.key(0), 9))
    stack = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 5, key=key))
    model = {
        "attn": eqx.nn.MultiheadAttention(2, 8, key=next(keys)),
        "conv": eqx.nn.Conv2d(3, 4, 3, key=next(keys)),
        "table": eqx.nn.Embedding(10, 6, key=next(keys)),
        "shift": eqx.nn.LayerNorm((3, 4)),
        "mlp": eqx.nn.MLP(3, 4, 5, 1, key=next(keys)),
        "cell": eqx.nn.GRUCell(3, 4, key=next(keys)),
        "stack": stack(jax.random.split(next(keys), 7)),
    }
    arrays = eqx.filter(model, eqx.is_inexact_array)
    # Kernels are (outputs, inputs) there, columns are outputs here.
    assert sizes("equinox", arrays) == {
        **{f"attn/{name}_proj/weight": (1, 8, 8) for name in ("query", "key", "value", "output")},
        "cell/weight_hh": (1, 4, 12),
        "cell/weight_ih": (1, 3, 12),
        "conv/weight": (1, 27, 4),
        "mlp/layers/0/weight": (1, 3, 5),
        "mlp/layers/1/weight": (1, 5, 4),
        "stack/weight": (7, 4, 5),
    }


def test_haiku():
    """By the names and shapes that its modules give; it is not installed here."""
    shapes = {
        "net/~/conv2_d": {"w": (3, 3, 3, 6), "b": (6,)},
        "net/~/conv2_d_transpose": {"w": (3, 3, 5, 6), "b": (5,)},
        "net/~/conv1_d": {"w": (3, 4, 6), "b": (6, 1)},
        "net/~/linear": {"w": (8, 4), "b": (4,)},
        "net/~/embed": {"embeddings": (10, 8)},
        "net/~/layer_norm": {"scale": (8,), "offset": (8,)},
        "net/~/batch_norm": {"scale": (1, 1, 1, 8), "offset": (1, 1, 1, 8)},
        "stack/linear": {"w": (5, 8, 4), "b": (5, 4)},
    }
    params = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda node: isinstance(node, tuple))
    del params["net/~/conv1_d"]["b"]
    assert sizes("haiku", params) == {
        "net/~/conv1_d/w": (1, 12, 6),
        "net/~/conv2_d/w": (1, 27, 6),
        "net/~/conv2_d_transpose/w": (1, 54, 5),
        "net/~/linear/w": (1, 8, 4),
        "stack/linear/w": (5, 8, 4),
    }


KERNELS = [  # shape, bias, name, spatial -> count of matrices, rows, columns; None: ambiguous
    ((3, 3, 16, 32), (32,), "layers_0", None, (1, 144, 32)),  # in a Sequential
    ((3, 3, 16, 32), (32,), "down", None, (1, 144, 32)),
    ((5, 3, 3, 4, 6), (5, 6), "down", None, (5, 36, 6)),
    ((3, 16, 16), None, "conv1", None, (1, 48, 16)),
    ((3, 3, 16, 16), None, "Conv_0", None, None),  # an image's, or three of sequences stacked
    ((3, 3, 16, 16), None, "Conv_0", 2, (1, 144, 16)),
    ((3, 3, 16, 16), None, "Conv_0", 1, (3, 48, 16)),
    ((2, 3, 3, 4, 5), None, "conv", 2, (2, 36, 5)),
    ((16, 4, 6), None, "conversation", None, None),  # of DenseGeneral
    ((16, 4, 6), None, "unconv", 2, None),
    ((3, 3, 1, 16), (16,), "Conv_0", None, None),  # of one channel, or channel by channel
    ((3, 3, 1, 16), None, "Conv_0", 2, None),
    ((16, 4, 6), (4, 6), "general", None, (1, 16, 24)),
    ((4, 6, 16), (16,), "general", None, (1, 24, 16)),
    ((3, 8, 4), (3, 4), "dense", None, (3, 8, 4)),
    ((3, 3, 4), (3, 4), "general", None, None),  # three layers, or outputs (3, 4)
]


@pytest.mark.parametrize("shape, bias, name, spatial, expected", KERNELS)
def test_a_kernel_is_read_by_its_bias_and_left_open_where_that_does_not_tell(
    shape, bias, name, spatial, expected
):
    layer = {"kernel": jnp.zeros(shape)} | ({"bias": jnp.zeros(bias)} if bias else {})
    if expected is None:
        with pytest.raises(ValueError, match="has no rule"):
            sizes("linen", {name: layer}, spatial)
    else:
        assert sizes("linen", {name: layer}, spatial) == {f"{name}/kernel": expected}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("features", [16, (4, 6)])
def test_dense_general_of_linen(bias, features):
    params = linen_params(linen.DenseGeneral(features, axis=(-2, -1), use_bias=bias, name="unconv"),
                          jnp.zeros((2, 5, 7)))  # fmt: skip
    if bias:
        assert sizes("linen", {"unconv": params}) == {"unconv/kernel": (1, 35, np.prod(features))}
    else:
        with pytest.raises(ValueError, match="'unconv/kernel' of shape .* has no rule"):
            sizes("linen", {"unconv": params})


def test_groups_of_equinox_are_left_to_a_rule():
    model = {"conv": eqx.nn.Conv2d(4, 8, 3, groups=2, key=jax.random.key(0))}
    with pytest.raises(ValueError, match="'conv/weight' of shape .* has no rule"):
        sizes("equinox", eqx.filter(model, eqx.is_inexact_array))


def test_what_names_leave_open_is_left_to_a_rule():
    # A kernel called query is of several heads only if an output of as many heads says so.
    dense = {"query": {"kernel": jnp.zeros((2, 8, 8))}, "out": {"kernel": jnp.zeros((2, 8, 8))}}
    with pytest.raises(ValueError, match="'query/kernel' of shape .* has no rule"):
        sizes("linen", dense)
    with pytest.raises(ValueError, match="library is 'torch'; allowed: 'linen', 'nnx', 'haiku'"):
        oj.layer_rules("torch", dense)
    with pytest.raises(ValueError, match="spatial is 0; give a number of axes from 1"):
        oj.layer_rules("linen", dense, spatial=0)


# Two leaves that are one update


def factors(seed=0, shape=(6, 9), rank=2):
    draw = np.random.default_rng(seed).normal
    return np.float32(draw(size=(shape[0], rank))), np.float32(draw(size=(rank, shape[1])))


@pytest.mark.parametrize("form", ["released", "paper"])
def test_factors_are_their_product(form):
    a, b = factors()
    expected = oj.orthogonality_penalty(2.0 * jnp.asarray(a @ b), form=form)
    cases = [
        ({"q": {"lora_a": a, "lora_b": b}}, {"*": oj.Adapter("lora_a", "lora_b", 2.0)}),
        # peft's: A is (r, inputs), B is (outputs, r).
        (
            {"q": {"lora_A": {"weight": a.T}, "lora_B": {"weight": b.T}}},
            {"*": oj.Adapter("lora_B/weight", "lora_A/weight", 2.0, transposed=True)},
        ),
        ({"q": oj.LowRank(jnp.asarray(a), jnp.asarray(b), 2.0)}, None),
    ]
    for tree, rules in cases:
        tree = jax.tree.map(jnp.asarray, tree)
        value = oj.orthogonality_penalty(tree, matrices=rules, form=form)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
        # Nothing of the product's size is made.
        jaxpr = str(
            jax.make_jaxpr(lambda t, r=rules: oj.orthogonality_penalty(t, matrices=r, form=form))(
                tree
            )
        )
        assert not any(size in jaxpr for size in ("[6,9]", "[9,6]", "[6,6]", "[9,9]"))


def test_fresh_factors_of_nnx_have_the_value_of_a_zero_update():
    state = nnx.state(nnx.LoRA(6, 2, 9, rngs=nnx.Rngs(0)), nnx.LoRAParam)
    with pytest.raises(ValueError, match="(?s)'lora_a/value'.*LoRA's two factors.*Adapter"):
        oj.orthogonality_penalty(state)
    value = oj.orthogonality_penalty(state, matrices=oj.layer_rules("nnx", state))
    np.testing.assert_allclose(value, np.sqrt(6), rtol=1e-6)


@pytest.mark.parametrize("form", ["released", "paper"])
def test_the_optax_form_sees_what_the_product_changed(form):
    (a0, b0), (a, b) = factors(0), factors(1)
    rules = {"lora": oj.Adapter("a", "b", 0.5)}
    anchor, params = (
        {"lora": {"a": jnp.asarray(x), "b": jnp.asarray(y)}} for x, y in ((a0, b0), (a, b))
    )

    def dense(params):
        change = params["lora"]["a"] @ params["lora"]["b"] - a0 @ b0
        return oj.orthogonality_penalty(0.5 * change, form=form)

    expected, slope = jax.value_and_grad(dense)(params)
    term = oj.add_orthogonality_penalty(1.0, anchor, matrices=rules, form=form)
    zeros = jax.tree.map(jnp.zeros_like, params)
    found, state = term.update(zeros, term.init(params), params)
    np.testing.assert_allclose(state.penalty, expected, rtol=1e-5)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, slope)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_training_factors_in_a_chain_equals_training_the_dense_update():
    """Started from B = 0, both forms and the dense product's loss give the same factors."""
    a, b = factors()
    start = {"layer": {"lora_a": jnp.asarray(a), "lora_b": jnp.zeros_like(b)}}
    target, rules = jnp.asarray(b), {"layer": oj.Adapter("lora_a", "lora_b", 1.5)}

    def loss(params):
        return jnp.mean((params["layer"]["lora_b"] - target) ** 2)

    def train(optimizer, extra):
        params, state = start, optimizer.init(start)
        step = jax.jit(
            lambda p, s: optimizer.update(jax.grad(lambda q: loss(q) + extra(q))(p), s, p)
        )
        for _ in range(20):
            updates, state = step(params, state)
            params = optax.apply_updates(params, updates)
        return jax.tree.leaves(params)

    rest = optax.sgd(0.05)
    runs = [
        train(optax.chain(oj.add_orthogonality_penalty(0.1, matrices=rules), rest), lambda p: 0.0),
        train(rest, lambda p: 0.1 * oj.orthogonality_penalty(p, matrices=rules)),
        train(
            rest,
            lambda p: (
                0.1 * oj.orthogonality_penalty(1.5 * p["layer"]["lora_a"] @ p["layer"]["lora_b"])
            ),
        ),
    ]
    for other in runs[1:]:
        for ours, theirs in zip(runs[0], other, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert not np.allclose(runs[0][0], a)


def test_factors_that_do_not_belong_together():
    rules = {"*": oj.Adapter("a", "b")}
    with pytest.raises(ValueError, match="'q/b' is missing; the leaves are q/a"):
        oj.orthogonality_penalty({"q": {"a": jnp.ones((3, 2))}}, matrices=rules)
    with pytest.raises(ValueError, match="'q/a' of shape .3, 2. and 'q/b' of shape .3, 4. cannot"):
        oj.orthogonality_penalty(
            {"q": {"a": jnp.ones((3, 2)), "b": jnp.ones((3, 4))}}, matrices=rules
        )
    report = oj.describe_matrices({"q": {"a": jnp.ones((3, 2))}}, rules)
    assert "ERROR" in report and "'q/b' is missing" in report
    with pytest.raises(ValueError, match="leaves q/lora_a, q/lora_b are LoRA factors"):
        tree = {"q": {"lora_a": jnp.ones((3, 2)), "lora_b": jnp.ones((2, 3))}}
        oj.task_vector(tree, tree)
