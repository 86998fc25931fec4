"""Low-rank adapters on frozen weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.low_rank import LowRank, dense
from orthoreg_jax.arithmetic.paths import flatten, select, unflatten
from orthoreg_jax.arithmetic.task_vectors import apply_task_vector
from orthoreg_jax.arithmetic.types import Apply, Inputs, Params, Trainable, Update

from .mode import Mode


class Place(NamedTuple):
    """A kernel that gets an adapter.

    The kernel consists of `parts` equal column blocks (query, key and value are fused in one); the
    adapter writes to the blocks in `used`.
    """

    kernel: str
    used: tuple[int, ...] = (0,)
    parts: int = 1


_QKV = Place("blocks/attn/in_proj/kernel", (0, 1, 2), 3)
_QV = _QKV._replace(used=(0, 2))
_OUT = Place("blocks/attn/out_proj/kernel")
_MLP = (Place("blocks/mlp/fc1/kernel"), Place("blocks/mlp/fc2/kernel"))

PLACEMENTS: dict[str, tuple[Place, ...]] = {
    "qkvo": (_QKV, _OUT),
    "qkv": (_QKV,),
    "qv": (_QV,),
    "mlp": _MLP,
    "all": (_QKV, _OUT, *_MLP),
}


def lora(options: ConfigDict) -> Mode:
    """Trains A and B of dW = (alpha / r) B A; everything else is frozen.

    A starts uniform in +-1/sqrt(inputs) (Kaiming with a = sqrt(5)), B at zero. Weight decay acts
    on A and B. There is no dropout. Query, key and value share one A, because they are one matrix
    here.

    Args:
      options: `rank` r, `alpha`, and `placement`, a key of `PLACEMENTS`.

    Reference: "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022 (arXiv 2106.09685).
    """
    places = {place.kernel: place for place in PLACEMENTS[options.placement]}
    rank, scale = options.rank, options.alpha / options.rank

    def init(params0: Params, key: Any) -> Trainable:
        kernels = flatten(select(params0, tuple(places)))
        keys = jax.random.split(key, len(kernels))
        return unflatten(
            {
                path: _fresh(key, kernel, places[path], rank)
                for (path, kernel), key in zip(kernels.items(), keys, strict=True)
            }
        )

    def delta(trainable: Trainable, params0: Params) -> Update:
        del params0
        factors = flatten(trainable)
        return unflatten(
            {
                path: LowRank(factors[f"{path}/a"], _spread(factors[f"{path}/b"], place), scale)
                for path, place in places.items()
            }
        )

    def forward(apply: Apply, params0: Params, trainable: Trainable, inputs: Inputs) -> Any:
        return apply(apply_task_vector(params0, dense(delta(trainable, params0))), inputs)

    return Mode(label="LoRA-ATT", init=init, delta=delta, forward=forward)


def _fresh(key: Any, kernel: Array, place: Place, rank: int) -> dict[str, Array]:
    """Initial `a` (..., inputs, r) and `b` (..., r, written outputs) of an adapter."""
    *stack, rows, columns = kernel.shape
    width = columns // place.parts * len(place.used)
    bound = rows**-0.5
    a = jax.random.uniform(key, (*stack, rows, rank), kernel.dtype, -bound, bound)
    return {"a": a, "b": jnp.zeros((*stack, rank, width), kernel.dtype)}


def _spread(b: Float[Array, "*k r w"], place: Place) -> Float[Array, "*k r n"]:
    """Puts the columns of `b` in their place in the kernel, with zeros elsewhere."""
    blocks = jnp.split(b, len(place.used), axis=-1)
    zeros = jnp.zeros_like(blocks[0])
    return jnp.concatenate(
        [
            blocks[place.used.index(part)] if part in place.used else zeros
            for part in range(place.parts)
        ],
        axis=-1,
    )
