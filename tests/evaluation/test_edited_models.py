"""EditedModels of a linear classifier, which NumPy can follow."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from orthoreg_jax.clip.zeroshot import Head
from orthoreg_jax.evaluation.accuracy import Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.edited_models import EditedModels
from orthoreg_jax.training.sharding import make_shardings

ALPHAS, NAMES = (0.0, 0.5, 1.0, 2.0), ("a", "b", "c", "d")


class Linear:
    """Four tasks and a control on random images; everything again in NumPy."""

    def __init__(self, search="grid", known=False):
        rng = np.random.default_rng(0)
        self.kernel = rng.normal(size=(12, 4))
        self.vectors = {name: rng.normal(size=(12, 4)) for name in NAMES}
        self.data, sets = {}, {"val": {}, "test": {}}
        head = Head(jnp.eye(4), jnp.int32(4))
        for split, named in sets.items():
            for name in (*NAMES, "control"):
                images = rng.integers(0, 255, (30, 2, 2, 3), dtype=np.uint8)
                # Mostly what the fine-tuned model says, so that training "helped".
                tau = self.vectors.get(name, 0)
                labels = np.argmax(images.reshape(30, -1) @ (self.kernel + tau), axis=1)
                labels = np.where(rng.random(30) < 0.2, rng.integers(0, 4, 30), labels)
                self.data[split, name] = images, labels
                named[name] = put_evaluation_set(head, images, labels, 16, make_shardings())
        evaluator = Evaluator(
            lambda params, pixels: pixels.reshape(len(pixels), -1) @ params["kernel"],
            {"kernel": jnp.asarray(self.kernel, jnp.float32)},
            lambda images: images / 255,
        )
        options = ConfigDict(
            {
                "alpha_search": search,
                "alphas": ALPHAS,
                "relative_lengths": (0.0, 0.25, 1.0),
                "refinements": 2,
                "per_task_rounds": 1,
                "control_shares": (0.9, 0.5),
            }
        )
        trees = {n: {"kernel": jnp.asarray(v, jnp.float32)} for n, v in self.vectors.items()}
        self.rounds = []
        names = (*NAMES, "control") if known else ()
        zero_shot = {name: float(self.right(0, 0, "val", name).mean()) for name in names}
        self.swept, own = [], evaluator.predictions
        evaluator.predictions = lambda vectors, rows, data: (
            self.swept.extend(rows[:, 0] if len(rows) > 1 == len(vectors) else ())
            or own(vectors, rows, data)
        )
        self.edits = EditedModels(
            options,
            evaluator,
            sets,
            trees,
            "control",
            lambda: self.rounds.append(1),
            10.0,
            zero_shot,
        )

    def right(self, vector, alpha, split, name):
        images, labels = self.data[split, name]
        return np.argmax(images.reshape(30, -1) @ (self.kernel + alpha * vector), axis=1) == labels

    def curve(self, vector, name, sign=1):
        return np.array([self.right(vector, sign * a, "val", name).mean() for a in ALPHAS])


@pytest.fixture(params=[False, True], ids=["", "zero-shot known"])
def linear(request):
    return Linear(known=request.param)


def test_single_and_addition(linear):
    single = linear.edits.single()
    for split in ("val", "test"):
        for name in NAMES:
            expected = linear.right(linear.vectors[name], 1, split, name).mean()
            assert single[split][name] == pytest.approx(expected)
    total = sum(linear.vectors.values())
    curves = {name: linear.curve(total, name) for name in NAMES}
    best = np.argmax(sum(curves[name] / single["val"][name] for name in NAMES))
    found = linear.edits.addition(single)
    assert found["alpha"] == ALPHAS[best]
    for name in NAMES:
        assert found["val"][name] == pytest.approx(curves[name].tolist())
        right = linear.right(total, ALPHAS[best], "test", name)
        np.testing.assert_array_equal(linear.edits.correct[f"added/{name}"], right)
        assert found["test"][name] == pytest.approx(right.mean())


def test_what_is_known_of_the_pretrained_model_is_not_measured_again():
    for known in (False, True):
        linear = Linear(known=known)
        linear.edits.addition(linear.edits.single())
        linear.edits.negation("a")
        assert (0.0 in linear.swept) is not known


def test_negation(linear):
    found = linear.edits.negation("b")
    target, control = (linear.curve(linear.vectors["b"], name, -1) for name in ("b", "control"))
    assert found["target_val"] == pytest.approx(target.tolist())
    for share in (0.9, 0.5):
        kept = control >= share * control[0]
        alpha = ALPHAS[int(np.argmin(np.where(kept, target, 2)))]
        chosen = found["shares"][str(share)]
        assert (chosen["alpha"], chosen["at_edge"]) == (alpha, alpha == ALPHAS[-1])
        for kind, name, key in (("negated", "b", "target"), ("control", "control", "control")):
            right = linear.right(linear.vectors["b"], -alpha, "test", name)
            np.testing.assert_array_equal(linear.edits.correct[f"{kind}/{share}/b"], right)
            assert chosen[key] == pytest.approx(right.mean())


def test_analogy_takes_c_plus_b_minus_a_and_scores_d(linear):
    found = linear.edits.analogy("a", "b", "c", "d")
    assert found["tasks"] == ["a", "b", "c", "d"]
    a, b, c, d = linear.vectors.values()
    for key, vector in (("analogy", c + b - a), ("third_alone", c)):
        alpha = ALPHAS[int(np.argmax(linear.curve(vector, "d")))]
        assert found[key]["alpha"] == alpha
        assert found[key]["test"] == pytest.approx(linear.right(vector, alpha, "test", "d").mean())
    assert found["fine_tuned"] == pytest.approx(linear.right(d, 1, "test", "d").mean())


def test_progress_counts_every_sweep(linear):
    linear.edits.addition(linear.edits.single())
    linear.edits.negation("a")
    linear.edits.analogy("a", "b", "c", "d")
    # 4 tasks on two splits, 4 of the sum, one for the alphas per task; target, control and two
    # shares; two analogies' sweeps.
    assert len(linear.rounds) == 12 + 1 + 4 + 2


@pytest.mark.parametrize("failed", [["c"], list(NAMES)])
def test_of_a_model_that_is_never_right_accuracy_itself_counts(linear, failed):
    single = linear.edits.single()
    for task in failed:
        single["val"][task] = single["test"][task] = 0.0
    found = linear.edits.addition(single)
    assert found["failed"] == failed and found["normalised"] is None
    total = sum(linear.vectors.values())
    curves = {name: linear.curve(total, name) for name in NAMES}
    scores = sum(curves[name] / (1 if name in failed else single["val"][name]) for name in NAMES)
    assert found["alpha"] == ALPHAS[int(np.argmax(scores))]
    assert found["absolute"] == pytest.approx(np.mean(list(found["test"].values())))


def test_the_refined_search_begins_with_relative_lengths():
    linear = Linear("refined")
    single = linear.edits.single()
    found = linear.edits.addition(single)
    total = sum(linear.vectors.values())
    length = np.linalg.norm(total) / 10.0
    assert found["length"] == pytest.approx(length, rel=1e-5)
    tried = np.array(found["alphas"]) * length
    for first in (0.0, 0.25, 1.0):
        assert np.min(np.abs(tried - first)) < 1e-3  # alphas have four digits
    assert len(tried) == 3 + 2 * 2
    for name in NAMES:
        expected = [linear.right(total, a, "val", name).mean() for a in found["alphas"]]
        assert found["val"][name] == pytest.approx(expected)
    at_one = [linear.right(total, 1.0, "test", name).mean() for name in NAMES]
    assert found["at_one"]["absolute"] == pytest.approx(np.mean(at_one))
    negated = linear.edits.negation("b")
    assert negated["length"] == pytest.approx(np.linalg.norm(linear.vectors["b"]) / 10, rel=1e-5)
    for name, key in (("b", "target_val"), ("control", "control_val")):
        vector = linear.vectors["b"]
        expected = [linear.right(vector, -a, "val", name).mean() for a in negated["alphas"]]
        assert negated[key] == pytest.approx(expected)


def test_an_alpha_for_each_task_is_tested_with_the_alphas_that_it_says(linear):
    single = linear.edits.single()
    found = linear.edits.addition(single)["per_task"]
    vector = sum(found["alphas"][name] * linear.vectors[name] for name in NAMES)
    for name in NAMES:
        right = linear.right(vector, 1.0, "test", name).mean()
        assert found["test"][name] == pytest.approx(right)
