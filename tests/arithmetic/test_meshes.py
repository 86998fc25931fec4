"""Training with the penalty on eight devices gives the parameters that one device gives."""

import os
import subprocess
import sys

from tests.small_run import virtual_devices

# In a process of its own, as the number of devices is fixed when JAX starts.
PROGRAM = """
import re
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
import orthoreg_jax as oj

draw = np.random.default_rng(0).normal
WEIGHTS = {
    "tall": draw(size=(16, 8)) * 0.3, "wide": draw(size=(8, 16)) * 0.3,
    "heads": draw(size=(8, 4, 2)) * 0.3, "stack": draw(size=(2, 8, 8)) * 0.3,
    "lora_a": draw(size=(16, 2)) * 0.3, "lora_b": draw(size=(2, 8)) * 0.3, "bias": draw(size=8),
}
WEIGHTS = {name: np.float32(value) for name, value in WEIGHTS.items()}
X, Y = np.float32(draw(size=(32, 16))), np.float32(draw(size=(32, 8)))
RULES = {
    "heads": oj.Matrix((0,), (1, 2)), "stack": oj.Matrix(), "": oj.Adapter("lora_a", "lora_b", 0.5)
}
LAYOUTS = [
    {"tall": P("a", "b"), "wide": P(None, "a"), "heads": P("b", "a"), "stack": P(None, "a", "b"),
     "lora_a": P("a"), "lora_b": P(None, "b")},
    {"tall": P("b", "a"), "wide": P("a"), "heads": P(None, None, "b"), "stack": P("b", None, "a"),
     "lora_a": P(None, "b"), "lora_b": P("b", "a")},
    {"tall": P(("a", "b"))},
]

def loss(params):
    return sum(jnp.sum((leaf - 0.1) ** 2) for leaf in jax.tree.leaves(params))

def train(params, form, how):
    start = params
    rest = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.05))
    term = oj.add_orthogonality_penalty(0.5, matrices=RULES, form=form)
    def penalised(params):
        # Of factors, the product is the update.
        whole = {k: v if "lora" in k else v - start[k] for k, v in params.items()}
        return loss(params) + 0.5 * oj.orthogonality_penalty(whole, matrices=RULES, form=form)
    optimizer = rest if how == "loss" else optax.chain(term, rest)
    slope = jax.grad(penalised if how == "loss" else loss)
    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(slope(params), state, params)
        return optax.apply_updates(params, updates), state
    state = optimizer.init(params)
    for _ in range(5):
        params, state = step(params, state)
    return params

assert jax.device_count() == 8
for form in ("released", "paper"):
    for how in ("loss", "chain"):
        expected = train(dict(WEIGHTS), form, how)
        for kind in (AxisType.Explicit, AxisType.Auto):
            mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(kind,) * 2)
            for layout in LAYOUTS:
                place = lambda k, v: jax.device_put(v, NamedSharding(mesh, layout.get(k, P())))
                with jax.set_mesh(mesh):
                    found = train({k: place(k, v) for k, v in WEIGHTS.items()}, form, how)
                for name, leaf in found.items():
                    np.testing.assert_allclose(leaf, expected[name], rtol=1e-5, atol=1e-6)

# Outside of a mesh's context, as `jax.make_mesh` makes it, and one update by itself.
mesh = jax.make_mesh((4, 2), ("a", "b"))
sharded = {"w": jax.device_put(WEIGHTS["tall"], NamedSharding(mesh, P("a", "b")))}
term = oj.add_orthogonality_penalty(1.0)
zeros = jax.tree.map(jnp.zeros_like, sharded)
updates, _ = term.update(sharded, term.init(zeros), sharded)
assert jax.typeof(updates["w"]) == jax.typeof(sharded["w"])

# Split over the long side, the Gram matrix is all that is exchanged.
rows = {"w": jax.device_put(np.float32(draw(size=(64, 8))), NamedSharding(mesh, P(("a", "b"))))}
with jax.set_mesh(mesh):
    text = jax.jit(jax.value_and_grad(oj.orthogonality_penalty)).lower(rows).compile().as_text()
KINDS = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
moved = re.findall(r"= (\\S+?)(?:{\\S*)? (?:" + KINDS + r")\\(", text)
assert moved in (["f32[1,8,8]"], ["f32[8,8]"]), moved
"""


def test_eight_devices_train_as_one():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **virtual_devices(8)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
