import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.evaluation.accuracy import Evaluator, put_evaluation_set
from orthoreg_jax.training.sharding import make_shardings


def test_accuracies_against_numpy():
    rng = np.random.default_rng(0)
    kernel, vector = rng.normal(size=(12, 6)), rng.normal(size=(12, 6))
    params0 = {"kernel": jnp.asarray(kernel, jnp.float32), "unused": jnp.ones(3)}
    delta = {"kernel": jnp.asarray(vector, jnp.float32)}
    shardings = make_shardings()
    cases, sets = [], []
    for classes, size in ((3, 10), (5, 4), (5, 1)):
        head = np.zeros((5, 6), np.float32)
        head[:classes] = rng.normal(size=(classes, 6))
        images = rng.integers(0, 255, (size, 2, 2, 3), dtype=np.uint8)
        labels = rng.integers(0, classes, size)
        padded = Head(jnp.asarray(head), jnp.int32(classes))
        sets.append(put_evaluation_set(padded, images, labels, 4, shardings))
        cases.append((head[:classes], images, labels))
    evaluator = Evaluator(
        lambda params, pixels: pixels.reshape(len(pixels), -1) @ params["kernel"],
        params0,
        lambda images: images / 255,
    )

    def expected(alpha):
        weights = kernel + alpha * vector
        return [
            np.mean(np.argmax(images.reshape(len(images), -1) @ weights @ head.T, 1) == labels)
            for head, images, labels in cases
        ]

    np.testing.assert_allclose(evaluator.accuracies(None, 0.0, sets), expected(0.0), rtol=1e-6)
    calls, compiled = [], evaluator._edit._cache_size()
    alphas = (-2.0, 0.0, 0.7)
    swept = evaluator.sweep(delta, alphas, sets, lambda: calls.append(1))
    np.testing.assert_allclose(swept, [expected(alpha) for alpha in alphas], rtol=1e-6)
    assert len(calls) == len(alphas)
    # One compilation each (the cache of `apply_task_vector` is shared by all evaluators).
    assert evaluator._count._cache_size() == 1 and evaluator._edit._cache_size() == compiled + 1
    np.testing.assert_array_equal(jax.device_get(params0["kernel"]), kernel.astype(np.float32))
