"""Mergers that use data: each takes statistics of a few batches, as trees like the task vectors.

They do not depend on a model: the caller passes functions of parameters, or statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from orthoreg_jax.arithmetic.checks import check_precision
from orthoreg_jax.arithmetic.decompositions import pseudo_inverse
from orthoreg_jax.arithmetic.matrices import Matrix, Rules, as_matrices, from_matrices, read_leaf
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.arithmetic.task_vectors import check_same, read_vectors
from orthoreg_jax.arithmetic.types import PyTree
from orthoreg_jax.words import counted

from .applying import merge_task_vectors, plan
from .elementwise import average, breadcrumbs
from .parameters import check_count, check_within

Trees = Sequence[PyTree] | Mapping[str, PyTree]


def fisher(vectors: Trees, fishers: Trees) -> PyTree:
    """Weights each entry by its Fisher information: tau = sum_t F_t tau_t / sum_t F_t.

    With alpha = 1 it is the paper's merged model: the paper's theta_t are theta_0 + tau_t, and
    theta_0 cancels. An entry with no Fisher information in any task gets the mean. The paper also
    weights the tasks, and published code (the authors', MergeLM, FusionBench) by default divides
    each F_t by its norm over all entries: scale the `fishers` for either. Published code also keeps
    F_t above 0: the authors' raises the first model's to at least 1e-6, the others add 1e-6 to
    each.

    Args:
      vectors: task vectors, a list or a dict by task.
      fishers: one tree like the task vector for each, from `diagonal_fisher`; in the same order or
        with the same names.

    Raises:
      ValueError: trees differ in structure or shapes, there is not one Fisher tree for each vector,
        or as `merge_task_vectors` for the vectors.

    Reference: "Merging Models with Fisher-Weighted Averaging", NeurIPS 2022 (arXiv 2111.09832),
      section 3.

    Examples:
      >>> vectors = [{"w": jnp.array([1.0, 1.0])}, {"w": jnp.array([5.0, 5.0])}]
      >>> fishers = [{"w": jnp.array([3.0, 1.0])}, {"w": jnp.array([1.0, 1.0])}]
      >>> oj.fisher(vectors, fishers)["w"].tolist()
      [2.0, 3.0]
    """
    rows, weights = _paired(vectors, fishers, "fishers")
    mean = merge_task_vectors(rows, average())
    for number, weight in enumerate(weights):
        check_same(weight, rows[0], (f"fishers[{number}]", "vectors[0]"))

    def leaf(mean: Any, *both: Any) -> Any:
        values, weight = jnp.stack(both[: len(rows)]), jnp.stack(both[len(rows) :])
        total = jnp.sum(weight, axis=0)
        known = ~(total <= 0)  # NaN must not be skipped
        weighted = jnp.sum(weight.astype(values.dtype) * values, axis=0)
        return jnp.where(known, weighted / jnp.where(known, total, 1).astype(values.dtype), mean)

    return jax.tree.map(leaf, mean, *rows, *weights)


def diagonal_fisher(
    log_probabilities: Callable[[PyTree, Any], Float[Array, " c"]], params: PyTree, examples: Any
) -> PyTree:
    """The diagonal F = E_x E_{y ~ p(y|x)} (d log p(y|x) / d theta)^2, exact over the classes y.

    MergeLM, and code built on it, squares the gradient of a sum over a batch and its classes,
    which is a different quantity.

    Args:
      log_probabilities: (params, one example) -> log p(y|x) of every class y.
      params: the fine-tuned model's parameters, at which it is computed.
      examples: a tree of arrays whose first axis counts examples. A few hundred are enough.

    Returns:
      A tree like `params`.

    Examples:
      >>> def log_probabilities(params, x):  # of two classes
      ...     return jax.nn.log_softmax(jnp.stack([params["w"] * x, 0.0]))
      >>> print(oj.diagonal_fisher(log_probabilities, {"w": 0.0}, jnp.array([2.0, 2.0]))["w"])
      1.0
    """

    def one(example: Any) -> PyTree:
        def values(params: PyTree) -> tuple[Any, Any]:
            found = log_probabilities(params, example)
            return found, found

        gradients, found = jax.jacrev(values, has_aux=True)(params)
        chances = jnp.exp(found)
        return jax.tree.map(lambda g: jnp.tensordot(chances, jnp.square(g), axes=1), gradients)

    # One example after another, so that memory holds only one gradient for each class.
    totals = jax.lax.map(one, examples)
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), totals)


def regmean(
    vectors: Trees,
    grams: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    alpha: float = 0.9,
    *,
    matrices: Rules | None = None,
) -> PyTree:
    """The W whose outputs are closest, in squared error, to each task's own on its inputs.

    tau = (sum_t H_t)^-1 sum_t H_t tau_t for each matrix z = W^T x, where H_t is the Gram matrix
    G_t = X_t^T X_t of the task's inputs with its off-diagonal entries multiplied by `alpha`.
    Leaves without Gram matrices are averaged. Rows of inputs that are always 0 are undetermined and
    become 0.

    Args:
      vectors: task vectors, a list or a dict by task.
      grams: one dict for each vector, in the same order or with the same names: {leaf path: (m, m)
        or, for stacked leaves, (k, m, m)}, with m the rows (inputs). Published code divides each by
        its number of inputs (X_t^T X_t / N_t); otherwise tasks with more inputs weigh more.
      alpha: the paper's alpha, not that of theta_0 + alpha * tau, which is 1 in the paper. 1 leaves
        the Gram matrices unchanged. It is `regmean_reduce_nondiag` in the authors' code, where a
        number below 0 means 1, and `reduce_non_diagonal_ratio` in MergeLM (default 1) and
        FusionBench (0.95 for CLIP).
      matrices: how leaves are read, see `orthogonality_penalty`.

    Raises:
      ValueError: alpha is outside [0, 1]; tasks have Gram matrices of different leaves; a Gram
        matrix is of a leaf that does not exist or is not a matrix, or has the wrong size; as
        `merge_task_vectors`.

    Reference: "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023
      (arXiv 2212.09849), section 3 and algorithm 1.

    Examples:
      >>> vectors = [{"w": jnp.array([[1.0], [1.0]])}, {"w": jnp.array([[5.0], [5.0]])}]
      >>> grams = [{"w": jnp.diag(jnp.array([3.0, 1.0]))}, {"w": jnp.eye(2)}]
      >>> oj.regmean(vectors, grams)["w"].tolist()
      [[2.0], [3.0]]
    """
    allowed = "the factor for off-diagonal entries, from 0 to 1 (1 leaves them unchanged)"
    check_within("regmean", "alpha", alpha, (0, 1), allowed)
    rows, inputs = _paired(vectors, grams, "grams")
    for number, each in enumerate(inputs[1:], start=1):
        if set(each) != set(inputs[0]):
            raise ValueError(
                f"grams: vectors[{number}] has them for {', '.join(each) or 'no leaf'}, "
                f"vectors[0] for {', '.join(inputs[0]) or 'no leaf'}; give the same leaves for each"
            )
    mean = merge_task_vectors(rows, average())
    leaves = [flatten(row) for row in rows]
    merged = flatten(mean)
    for path in inputs[0]:
        if path not in merged:
            raise ValueError(f"grams: {path!r} is not a leaf; the leaves are {', '.join(merged)}")
        reading = read_leaf(path, merged[path], matrices)
        if not isinstance(reading, Matrix):
            raise ValueError(f"grams: leaf {path!r} is not a matrix: {reading.reason}")
        stacks = jnp.stack([as_matrices(tree[path], reading) for tree in leaves])
        shape = (*stacks.shape[1:3], stacks.shape[2])
        given = [jnp.asarray(each[path]).reshape(-1, *each[path].shape[-2:]) for each in inputs]
        if wrong := [each.shape for each in given if each.shape != shape]:
            raise ValueError(f"grams of {path!r}: shape {wrong[0]}, expected {shape}")
        solved = _regress(stacks, jnp.stack(given).astype(stacks.dtype), alpha)
        merged[path] = from_matrices(solved, merged[path].shape, reading)
    return jax.tree.unflatten(jax.tree.structure(mean), list(merged.values()))


def _regress(
    values: Float[Array, "t k m n"], grams: Float[Array, "t k m m"], alpha: float
) -> Float[Array, "k m n"]:
    total, targets = _normal_equations(values, grams, alpha)
    traced = isinstance(total, jax.core.Tracer)
    inverse = jnp.asarray(pseudo_inverse(total if traced else np.asarray(total)))
    return jnp.matmul(inverse, targets, precision="highest")


@jax.jit
def _normal_equations(
    values: Float[Array, "t k m n"], grams: Float[Array, "t k m m"], alpha: Any
) -> tuple[Float[Array, "k m m"], Float[Array, "k m n"]]:
    eye = jnp.eye(grams.shape[-1], dtype=grams.dtype)
    scale = jnp.asarray(alpha, grams.dtype)
    grams = grams * (scale + (1 - scale) * eye)
    targets = jnp.einsum("tkij,tkjn->kin", grams, values, precision="highest")
    return jnp.sum(grams, axis=0), targets


def adamerging(
    vectors: Trees,
    loss: Callable[[PyTree, Any], Float[Array, ""]],
    batches: Sequence[Any],
    steps: int = 500,
    learning_rate: float = 1e-3,
    initial: float = 0.3,
    *,
    matrices: Rules | None = None,
) -> PyTree:
    """Fits tau^l = sum_t lambda_t^l tau_t^l, a lambda for each task and tensor l, without labels.

    Adam minimises `loss`. In the paper it is the entropy of the merged model's predictions, summed
    over the tasks, each on its own images. The authors use the test images themselves; use others
    if you report test accuracy. The defaults are the authors': Adam with rate 1e-3, 500 steps,
    lambda starting at 0.3 and clipped to [0, 1], batches of 16 images of each task. FusionBench's
    defaults are 1000 steps and no clipping.

    Args:
      vectors: task vectors, a list or a dict by task.
      loss: (tau, batch) -> the scalar to minimise; see `entropy`.
      batches: trees of arrays, all of the same shapes, used in turn.
      steps: number of steps of Adam, an int.
      learning_rate: Adam's learning rate.
      initial: initial value of every lambda, from 0 to 1.
      matrices: how leaves are read: each matrix of a stacked leaf has its own lambda.

    Returns:
      The merged task vector; with alpha = 1, the paper's merged model.

    Raises:
      ValueError: there is no batch, a parameter is out of its range, or as `merge_task_vectors` for
        the vectors.

    Reference: "AdaMerging: Adaptive Model Merging for Multi-Task Learning", ICLR 2024
      (arXiv 2310.02575), section 3, layer-wise.

    Examples:
      >>> vectors = [{"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([0.0, 1.0])}]
      >>> def loss(tau, batch):
      ...     return jnp.sum((tau["w"] - batch) ** 2)
      >>> merged = oj.adamerging(vectors, loss, [jnp.array([0.8, 0.1])], 300, 0.01)
      >>> [round(float(entry), 2) for entry in merged["w"]]
      [0.8, 0.1]
    """
    rows = _read(vectors)
    if not batches:
        raise ValueError("adamerging: 0 batches; give at least one")
    steps = check_count("adamerging", "steps", steps, "a whole number from 0, as an int")
    # Outside its bounds lambda has no gradient and would never move again.
    check_within("adamerging", "initial", initial, (0, 1), "a lambda from 0 to 1")
    check_within("adamerging", "learning_rate", learning_rate, (0, math.inf), "a rate from 0")
    leaves, structure = [flatten(row) for row in rows], jax.tree.structure(rows[0])
    # Tensors as for mergers that need whole ones: each matrix of a stacked leaf separately.
    pieces = plan(rows[0], breadcrumbs(), matrices)
    lambdas = {
        path: jnp.full((len(rows), leaf.shape[0] if pieces[path].stacked else 1), initial)
        for path, leaf in leaves[0].items()
    }

    def merged(lambdas: Any, leaves: Any) -> PyTree:
        def combine(path: str) -> Any:
            values = jnp.stack([tree[path] for tree in leaves])
            own = jnp.clip(lambdas[path], 0.0, 1.0).astype(values.dtype)
            axes = [1] * (values.ndim - 2)
            own = own.reshape(*own.shape, *axes) if values.ndim > 1 else own[:, 0]
            return jnp.sum(own * values, axis=0)

        return jax.tree.unflatten(structure, [combine(path) for path in lambdas])

    optimizer = optax.adam(learning_rate)

    @jax.jit
    def step(lambdas: Any, state: Any, leaves: Any, batch: Any) -> Any:
        slopes = jax.grad(lambda each: loss(merged(each, leaves), batch))(lambdas)
        updates, state = optimizer.update(slopes, state)
        return optax.apply_updates(lambdas, updates), state

    state = optimizer.init(lambdas)
    for number in range(steps):
        lambdas, state = step(lambdas, state, leaves, batches[number % len(batches)])
    return jax.jit(merged)(lambdas, leaves)


def entropy(logits: Float[Array, "... c"]) -> Float[Array, ""]:
    """Mean over inputs of -sum_y p(y) log p(y), p the softmax of the logits, in nats.

    Args:
      logits: classes on the last axis.

    Examples:
      >>> print(oj.entropy(jnp.zeros((3, 2))))  # two equally likely classes: log 2
      0.6931472
    """
    logs = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.mean(jnp.sum(jnp.exp(logs) * logs, axis=-1))


def _read(vectors: Any) -> list[PyTree]:
    named = read_vectors(vectors)
    check_precision(named)
    return list(named.values())


def _paired(vectors: Any, others: Any, name: str) -> tuple[list[PyTree], list[Any]]:
    """Pairs task vectors with their statistics, by position or by name."""
    if isinstance(vectors, Mapping) != isinstance(others, Mapping):
        raise ValueError(f"vectors and {name}: give both as lists, or both as dicts by task")
    if isinstance(vectors, Mapping):
        if vectors.keys() != others.keys():
            raise ValueError(f"vectors are for {list(vectors)}, {name} for {list(others)}")
        others = [others[task] for task in vectors]
    rows = _read(vectors)
    if len(rows) != len(others):
        raise ValueError(
            f"{counted(len(rows), 'vector')} and {len(others)} {name}; give one for each"
        )
    return rows, list(others)
