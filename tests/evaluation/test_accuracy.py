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
    for classes, size in ((3, 50), (5, 4), (5, 1)):
        head = np.zeros((5, 6), np.float32)
        head[:classes] = rng.normal(size=(classes, 6))
        images = rng.integers(0, 255, (size, 2, 2, 3), dtype=np.uint8)
        labels = rng.integers(0, classes, size)
        padded = Head(jnp.asarray(head), jnp.int32(classes))
        # The first one stays on the host and is sent batch by batch.
        sets.append(put_evaluation_set(padded, images, labels, 4, shardings, classes > 3))
        cases.append((head[:classes], images, labels))
    evaluator = Evaluator(
        lambda params, pixels: pixels.reshape(len(pixels), -1) @ params["kernel"],
        params0,
        lambda images: images / 255,
    )

    def classes_of(alpha, head, images):
        weights = kernel + alpha * vector
        return np.argmax(images.reshape(len(images), -1) @ weights @ head.T, 1)

    def expected(alpha):
        return [
            np.mean(classes_of(alpha, head, images) == labels) for head, images, labels in cases
        ]

    np.testing.assert_allclose(evaluator.zero_shot(sets), expected(0.0), rtol=1e-6)
    calls, alphas = [], np.array([-2.0, 0.0, 0.7])
    swept = evaluator.accuracies([delta], alphas[:, None], sets, lambda: calls.append(1))
    np.testing.assert_allclose(swept, [expected(alpha) for alpha in alphas], rtol=1e-6)
    assert len(calls) == len(sets)
    for data, (head, images, _) in zip(sets, cases, strict=True):
        two = evaluator.predictions([delta, delta], np.array([[0.5, 0.2], [1.0, -3.0]]), data)
        expected_two = [classes_of(alpha, head, images) for alpha in (0.7, -2.0)]
        np.testing.assert_array_equal(two, expected_two)
    # One compilation for a grid, whatever the sets: zero-shot, three alphas, two vectors.
    assert evaluator._classify._cache_size() == 3
    np.testing.assert_array_equal(jax.device_get(params0["kernel"]), kernel.astype(np.float32))
