import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
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


@pytest.fixture(scope="module")
def embedded():
    """The embedded CLIP, two tasks, and a large change of its last layer for each."""
    checkpoint = oj.load_checkpoint("embedded")
    rng = np.random.default_rng(0)
    kernel = checkpoint.params["visual"]["projection"]["kernel"]
    vectors = [
        {"visual": {"projection": {"kernel": rng.normal(0, 0.1, kernel.shape).astype("f4")}}}
        for _ in range(2)
    ]
    return checkpoint, oj.load_tasks("embedded", ["digits", "emoji"]), vectors


def test_a_sweep_is_many_measurements(embedded):
    checkpoint, tasks, (vector, _) = embedded
    alphas = [-0.5, 0.0, 1.0]
    swept = oj.sweep_accuracy(checkpoint, vector, tasks, alphas, batch_size=64)
    single = [
        [
            oj.measure_accuracy(
                checkpoint, oj.apply_task_vector(checkpoint.params, vector, alpha), task, "val"
            )
            for task in tasks.values()
        ]
        for alpha in alphas
    ]
    np.testing.assert_allclose(swept, single)
    assert len({*swept[:, 0]}) == 3
    # The last layer is linear: linearised or not, it is the same model.
    given = checkpoint, vector, tasks, alphas
    first_order = oj.sweep_accuracy(*given, outputs=oj.linearized_outputs, batch_size=64)
    np.testing.assert_allclose(first_order, swept, atol=0.02)


def test_two_tasks_of_one_name_keep_their_heads(embedded):
    checkpoint, tasks, _ = embedded
    plain = tasks["emoji"]
    turned = dataclasses.replace(plain, classes=plain.classes[::-1])
    params = checkpoint.params
    both = oj.measure_accuracies(checkpoint, params, {"plain": plain, "turned": turned}, "val")
    alone = [oj.measure_accuracy(checkpoint, params, task, "val") for task in (plain, turned)]
    assert list(both.values()) == alone and alone[0] > alone[1]


def test_disentanglement_of_saved_vectors(embedded):
    checkpoint, tasks, vectors = embedded
    preprocessing = oj.load_preprocessing(checkpoint.directory, checkpoint.config)
    encode = jax.jit(oj.image_encoder(checkpoint.config))

    def answers(alphas, task):
        params = checkpoint.params
        for alpha, vector in zip(alphas, vectors, strict=True):
            params = oj.apply_task_vector(params, vector, alpha)
        pixels = preprocessing.normalize(jnp.asarray(task.splits["val"].images.rgb()))
        features = encode(params["visual"], pixels)
        head = oj.zero_shot_head(checkpoint, task.classes, task.templates)
        return np.argmax(np.asarray(features) @ head.T, axis=1)

    expected = np.zeros((2, 2))
    alphas, (first, second) = [0.0, 1.0], tasks.values()
    for i, a1 in enumerate(alphas):
        for j, a2 in enumerate(alphas):
            for task, alone in ((first, (a1, 0.0)), (second, (0.0, a2))):
                expected[i, j] += np.mean(answers((a1, a2), task) != answers(alone, task))
    by_task = dict(zip(tasks, vectors, strict=True))
    error = oj.measure_disentanglement(
        checkpoint, by_task, tasks, alphas, split="val", limit=0, batch_size=64
    )
    np.testing.assert_allclose(error, expected, atol=0.03)  # rounding may turn an answer
    assert error[0, 0] == 0 < error[1, 1] <= 2


def test_wrong_arguments_are_named(embedded):
    checkpoint, tasks, (vector, _) = embedded
    with pytest.raises(ValueError, match=r"task 'digits' has no split 'all', only \['train'"):
        oj.sweep_accuracy(checkpoint, vector, tasks, [0.0], split="all")
    with pytest.raises(ValueError, match=r"a task vector contains \['projection'\]; expected"):
        oj.sweep_accuracy(checkpoint, vector["visual"], tasks, [0.0])
    with pytest.raises(ValueError, match="has leaves strange, which the weights lack"):
        oj.sweep_accuracy(checkpoint, {"visual": {"strange": np.ones(2)}}, tasks, [0.0])
    with pytest.raises(ValueError, match="1 vector and 2 tasks"):
        oj.measure_disentanglement(checkpoint, [vector], list(tasks.values()), [0.0])


def test_answers_that_are_not_finite_are_wrong():
    """Not of class 0, which is what the largest of NaNs is."""
    images, labels = np.full((6, 2, 2, 3), 9, np.uint8), np.zeros(6, int)
    head = Head(jnp.eye(5, 6), jnp.int32(3))
    data = put_evaluation_set(head, images, labels, 4, make_shardings())
    evaluator = Evaluator(
        lambda params, pixels: pixels.reshape(len(pixels), -1) @ params["kernel"],
        {"kernel": jnp.ones((12, 6))},
        lambda images: images / 255,
    )
    vector = {"kernel": jnp.zeros((12, 6))}
    np.testing.assert_array_equal(
        evaluator.predictions([vector], np.array([[0.0], [np.nan]]), data), [[0] * 6, [-1] * 6]
    )
    assert evaluator.accuracies([vector], np.array([[0.0], [np.nan]]), [data]).tolist() == [
        [1],
        [0],
    ]
    huge = {"kernel": jnp.full((12, 6), 1e38)}
    assert evaluator.accuracies([huge], np.array([[3.0]]), [data]) == 0


def test_what_is_no_model_or_no_task_is_refused(embedded):
    checkpoint, tasks, (vector, _) = embedded
    task = tasks["digits"]
    measure = inspect.unwrap(oj.measure_accuracy)  # ahead of the tests' own check of types
    with pytest.raises(
        ValueError, match="params contain visual but no .*give oj.apply_task_vector"
    ):
        measure(checkpoint, vector, task)
    zeros = jax.tree.map(np.zeros_like, checkpoint.params)
    with pytest.raises(ValueError, match="the mean layer-norm scale is 0, .*a difference of"):
        measure(checkpoint, oj.apply_task_vector(zeros, vector), task)
    bad = jax.tree.map(np.array, checkpoint.params)
    bad["visual"]["class_embedding"][3] = np.nan
    with pytest.raises(ValueError, match="params: leaf 'visual/class_embedding' has 1 NaN"):
        measure(checkpoint, bad, task)
    with pytest.raises(ValueError, match=r"task is 'mnist', a str; .*\['mnist'\]\)\['mnist'\]"):
        measure(checkpoint, checkpoint.params, "mnist")
    with pytest.raises(ValueError, match="tasks is a list; give tasks by name"):
        inspect.unwrap(oj.measure_accuracies)(checkpoint, checkpoint.params, [task])
    bad = jax.tree.map(lambda leaf: leaf * np.nan, vector)
    with pytest.raises(ValueError, match="vector 0: leaf 'visual/projection/kernel' has 65536"):
        oj.sweep_accuracy(checkpoint, bad, tasks, [0.0])
    with pytest.raises(ValueError, match="task vector 1: leaf"):
        oj.measure_disentanglement(checkpoint, [vector, bad], tasks, [0.0])
    with pytest.raises(ValueError, match="alphas: contains nan at 1; give finite numbers"):
        oj.sweep_accuracy(checkpoint, vector, tasks, [0.0, np.nan])
    assert repr(task) == f"Task('digits': 10 classes, {counts(task)} images)"


def test_every_measurement_checks_what_it_is_given(embedded, untyped):
    checkpoint, tasks, (vector, _) = embedded
    params, task = checkpoint.params, tasks["digits"]
    measures = {
        "accuracy": lambda c, t, **more: oj.measure_accuracy(c, params, task, "val", **more),
        "accuracies": lambda c, t, **more: oj.measure_accuracies(c, params, t, "val", **more),
        "sweep": lambda c, t, **more: oj.sweep_accuracy(c, vector, t, [0.0], **more),
        "disentanglement": lambda c, t, **more: oj.measure_disentanglement(
            c, [vector, vector], t, [0.0], split="val", **more
        ),
        "layers": lambda c, t, **more: oj.search_layer_scales(c, vector, t, [0.5, 0.5], **more),
    }
    for name, measure in measures.items():
        with pytest.raises(ValueError, match="checkpoint is {.*, a dict; give a Checkpoint, as oj"):
            measure(params, tasks)
        for size in (0, -1, 2.5, True):
            with pytest.raises(ValueError, match=f"batch_size is {size}; give a whole number"):
                measure(checkpoint, tasks, batch_size=size)
        if name in ("accuracy", "accuracies"):
            continue
        with pytest.raises(ValueError, match="tasks is one task, 'digits'; give a list, "):
            measure(checkpoint, task)
        for limit in (-1, 0.5, None):
            with pytest.raises(ValueError, match=f"limit is {limit}; give a whole number from 0"):
                measure(checkpoint, tasks, limit=limit)
    for alphas, message in ((0.3, "alphas is 0.3; give a list"), ([], "alphas: there is none"),
                            ("01", "alphas is '01'"), ([None], "contains None at 0")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            oj.sweep_accuracy(checkpoint, vector, tasks, alphas)
        with pytest.raises(ValueError, match=message):
            oj.measure_disentanglement(checkpoint, [vector, vector], tasks, alphas)


def test_what_is_given_for_parameters_or_a_vector_is_named(embedded, untyped):
    checkpoint, tasks, (vector, _) = embedded
    task, params = tasks["digits"], checkpoint.params
    with pytest.raises(ValueError, match="params is Checkpoint.*; give params.params"):
        oj.measure_accuracy(checkpoint, checkpoint, task)
    with pytest.raises(ValueError, match=r"give {\*\*checkpoint.params, 'visual': tower}"):
        oj.measure_accuracy(checkpoint, params["visual"], task)
    with pytest.raises(ValueError, match="text, logit_scale.*expected|logit_scale.*expected"):
        oj.sweep_accuracy(checkpoint, params, tasks, [0.0])
    with pytest.raises(ValueError, match="task vector 0: the mean layer-norm scale is 0.99, so"):
        oj.sweep_accuracy(checkpoint, {"visual": params["visual"]}, tasks, [0.0])
    whole = jax.tree.map(lambda leaf: leaf.astype(int), vector)
    with pytest.raises(ValueError, match="task vector 1: 1 leaves are not floating point"):
        oj.measure_disentanglement(checkpoint, [vector, whole], tasks, [0.0])
    with pytest.raises(ValueError, match="vectors is one task vector"):
        oj.measure_disentanglement(checkpoint, vector, tasks, [0.0])
    edited = oj.apply_task_vector(params, vector, 0.5)
    for message, call in (
        ("vector: the mean", lambda: oj.apply_task_vector(params, params, 1.0)),
        (r"vectors\[0\]: the mean", lambda: oj.add_task_vectors([params, params])),
        (r"vectors\[0\]: the mean", lambda: oj.cosine_matrix([params, edited])),
        (r"vectors\['a'\]: the", lambda: oj.merge_task_vectors({"a": params}, oj.ties())),
        ("pretrained is Checkpoint", lambda: oj.apply_task_vector(checkpoint, vector, 0.3)),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def counts(task):
    return ", ".join(f"{len(split)} {name}" for name, split in task.splits.items())
