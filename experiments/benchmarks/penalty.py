r"""Time of the penalty's value and gradient over a whole image tower, and its lower bound.

    python experiments/benchmarks/penalty.py --model ViT-B/32 --rounds 7

The bound is the two matrix products of the closed form (the Gram matrix and dW E) alone, at the
rate at which this machine multiplies matrices of these shapes. The alternatives are the same
formula by plain JAX autodiff and, if torch is installed (`make parity` sets up such an
environment), by PyTorch's autograd, as in the released code. Variants are the Gram matrix from its
upper blocks only (three quarters of its multiplications), updates rounded to bfloat16, and dW
computed as params - anchor in the same compiled function. LoRA's penalty of rank 8 is measured by
r x r algebra and with dW multiplied out. Writes experiments/results/penalty_MODEL.md and .json.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from measuring import medians, write_page

from orthoreg_jax.arithmetic.low_rank import dense
from orthoreg_jax.arithmetic.matrices import as_matrices, select_leaves
from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.modules import VisionTransformer
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.config import default_config
from orthoreg_jax.penalties.orthoreg import orthogonality_penalty
from orthoreg_jax.reporting.tables import NONE, markdown_rows
from orthoreg_jax.training.modes import make_mode

OURS = "closed form (ours)"
BOUND = "two matrix products"


def updates(model: str) -> Any:
    """A random update of every leaf of the image tower, as large as fine-tuning makes them."""
    config = PRESETS[model]
    size, rng = config.visual.image_size, np.random.default_rng(0)
    tower = VisionTransformer(config.visual, config.projection)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    return jax.tree.map(
        lambda leaf: jnp.asarray(1e-3 * rng.standard_normal(leaf.shape, np.float32)),
        shapes["params"],
    )


def stacks(delta: Any) -> list[Any]:
    """The matrices that the penalty sees, stacked by shape, with wide ones transposed."""
    found = [
        as_matrices(leaf, rule) for leaf, rule in select_leaves(delta, VISUAL_MATRICES).values()
    ]
    return [m if m.shape[1] >= m.shape[2] else m.swapaxes(1, 2) for m in found]


def squares_like(matrices: list[Any]) -> list[Any]:
    """Square matrices to multiply the given ones by, one for each."""
    return [jnp.ones((len(one), one.shape[2], one.shape[2]), jnp.float32) for one in matrices]


def two_products(matrices: list[Any], squares: list[Any], precision: str = "highest") -> Any:
    """The product of each matrix's transpose with the matrix, and of the matrix with its square."""
    return [
        (jnp.einsum("kij,kil->kjl", one, one, precision=precision),
         jnp.matmul(one, square, precision=precision))
        for one, square in zip(matrices, squares, strict=True)
    ]  # fmt: skip


def operations(matrices: list[Any]) -> int:
    """Floating-point operations of these two products."""
    return sum(4 * stack.size * stack.shape[2] for stack in matrices)


def upper_products(matrices: list[Any], squares: list[Any]) -> Any:
    """The same, with three of the Gram matrix's four blocks; the fourth is a transpose."""
    grams = []
    for one in matrices:
        half = one.shape[2] // 2
        left, right = one[..., :half], one[..., half:]
        product = functools.partial(jnp.einsum, "kij,kil->kjl", precision="highest")
        across = product(left, right)
        upper = jnp.concatenate([product(left, left), across], axis=2)
        lower = jnp.concatenate([jnp.swapaxes(across, 1, 2), product(right, right)], axis=2)
        grams.append(jnp.concatenate([upper, lower], axis=1))
    return grams, [
        jnp.matmul(one, square, precision="highest")
        for one, square in zip(matrices, squares, strict=True)
    ]


def plain_penalty(matrices: list[Any], precision: str = "highest") -> Any:
    """The released formula, for autodiff."""
    total = 0.0
    for stack in matrices:
        gram = jnp.einsum("kij,kil->kjl", stack, stack, precision=precision)
        total += jnp.linalg.norm(gram - jnp.eye(gram.shape[-1]), axis=(1, 2)).sum()
    return total


def torch_penalty(matrices: list[Any]) -> Callable[[], Any] | None:
    """The same in PyTorch, matrix by matrix; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    leaves = [torch.tensor(np.asarray(one), requires_grad=True)
              for stack in matrices for one in stack]  # fmt: skip

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        total = sum(torch.norm(leaf.T @ leaf - torch.eye(leaf.shape[1])) for leaf in leaves)
        total.backward()

    return run


def low_rank_ways(delta: Any) -> dict[str, tuple[Callable[..., Any], Any]]:
    """LoRA's penalty and its gradient in A and B."""
    mode = make_mode("lora", default_config())
    trainable = jax.tree.map(lambda leaf: leaf + 0.01, mode.init(delta, jax.random.key(0)))

    def penalty(trainable: Any, prepare: Callable[[Any], Any]) -> Any:
        update = prepare(mode.delta(trainable, delta))
        return orthogonality_penalty(update, matrices=rules_for_part(update, VISUAL_MATRICES))

    prepared = {"r x r algebra (ours)": lambda tree: tree, "forming dW": dense}
    return {
        f"LoRA, r = 8: {name}": (
            jax.value_and_grad(functools.partial(penalty, prepare=prepare)),
            (trainable,),
        )
        for name, prepare in prepared.items()
    }


def measure(model: str, rounds: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """One row for each way, and the relative errors of bfloat16 updates' value and gradient."""
    delta = updates(model)
    matrices = stacks(delta)
    squares = squares_like(matrices)
    ours = jax.value_and_grad(lambda tree: orthogonality_penalty(tree, matrices=VISUAL_MATRICES))
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), delta)
    anchor = jax.tree.map(jnp.ones_like, delta)
    functions: dict[str, tuple[Callable[..., Any], Any]] = {
        BOUND: (two_products, (matrices, squares)),
        OURS: (ours, (delta,)),
        "the same, of params - anchor": (
            lambda params, old: ours(jax.tree.map(jnp.subtract, params, old)),
            (jax.tree.map(jnp.add, anchor, delta), anchor),
        ),
        "the same, dW in bfloat16": (ours, (rounded,)),
        "two matrix products, upper blocks": (upper_products, (matrices, squares)),
        "plain JAX autodiff": (jax.value_and_grad(plain_penalty), (matrices,)),
        **low_rank_ways(delta),
    }
    compiled = {
        name: jax.jit(function).lower(*arguments).compile()
        for name, (function, arguments) in functions.items()
    }
    ways: dict[str, Callable[[], Any]] = {
        name: functools.partial(call, *functions[name][1]) for name, call in compiled.items()
    }
    if torch_way := torch_penalty(matrices):
        ways["PyTorch autograd"] = torch_way
    found = medians(ways, rounds)
    rows = [
        {
            "way": name,
            "seconds": seconds,
            "ratio": seconds / found[OURS],
            "temporaries": _temporaries(compiled[name]) if name in compiled else None,
            "gflops": operations(matrices) / seconds / 1e9 if name == BOUND else None,
        }
        for name, seconds in found.items()
    ]
    return rows, rounding(ours(delta), ours(rounded))


def _temporaries(compiled: Any) -> int | None:
    found = compiled.memory_analysis()
    return found and found.temp_size_in_bytes


def rounding(exact: Any, rounded: Any) -> dict[str, float]:
    """Relative differences of value and gradient."""
    off = optax.tree.norm(optax.tree.sub(rounded[1], exact[1])) / optax.tree.norm(exact[1])
    return {"value": float(abs(rounded[0] / exact[0] - 1)), "gradient": float(off)}


def main() -> None:
    """Measures everything and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="ViT-B/32", choices=list(PRESETS))
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    rows, off = measure(options.model, options.rounds)
    bound = next(row for row in rows if row["way"] == BOUND)
    device = jax.devices()[0].device_kind
    cells = [
        [
            row["way"],
            f"{1000 * row['seconds']:.1f}",
            f"{row['ratio']:.3f}",
            NONE if row["temporaries"] is None else f"{row['temporaries'] / 2**20:.0f}",
        ]
        for row in rows
    ]
    write_page(
        f"penalty_{options.model.replace('/', '')}",
        f"The penalty over {options.model}'s image tower, float32, {device}",
        {"ways": rows, "bfloat16": off},
        f"Value and gradient, median of {options.rounds} interleaved rounds. Matrices of these "
        f"shapes were multiplied at {bound['gflops']:.0f} GFLOP/s.",
        markdown_rows(("", "ms", "/ ours", "temporaries, MB"), cells),
        f"Updates rounded to bfloat16 (Gram matrices are summed in float32 all the same) change "
        f"the value by {off['value']:.1e} and the gradient by {off['gradient']:.1e} of its norm.",
    )


if __name__ == "__main__":
    main()
