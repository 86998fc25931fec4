"""Accuracies of one method's edited models: single tasks, addition, negation, analogies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors, analogy, norm
from orthoreg_jax.arithmetic.types import TaskVector

from .accuracy import EvaluationSet, Evaluator
from .results import (
    Added,
    Addition,
    Analogy,
    AtAlpha,
    PerTask,
    TaskNegation,
)
from .search import (
    flat_range,
    search_addition,
    search_negation,
    search_per_task,
)
from .selection import normalised

MEASURED_SPLITS = ("val", "test")
FLAT = 0.01  # the flat range: alphas with at most this much less accuracy than the chosen one
Sets = dict[str, dict[str, EvaluationSet]]  # split -> task -> images on the device


class EditedModels:
    """The task vectors of one method and seed, and every measurement on them.

    `correct` collects, for each test accuracy, which images were classified correctly:
    "single/TASK", "added/TASK", "negated/SHARE/TASK" and "control/SHARE/TASK".
    """

    def __init__(
        self,
        options: ConfigDict,
        evaluator: Evaluator,
        sets: Sets,
        vectors: dict[str, Any],
        control: str,
        advance: Callable[[], None],
        pretrained_norm: float,
        zero_shot: Mapping[str, float] | None = None,
    ) -> None:
        """Takes vectors and data, without measuring yet.

        Args:
          options: `evaluation` of a config.
          evaluator: an evaluator for the method's mode.
          sets: evaluation sets of all tasks and the control task.
          vectors: task vectors by task.
          control: name of the control task.
          advance: called after each sweep over one set.
          pretrained_norm: ||theta_0|| of the image tower, the unit of relative lengths.
          zero_shot: validation accuracies of theta_0 by task, where they are known: what alpha = 0
            gives is then not measured again.
        """
        self._zero_shot = dict(zero_shot or {})
        self._options, self._pretrained_norm = options, pretrained_norm
        self._shares = options.control_shares
        self._evaluator, self._sets, self._vectors = evaluator, sets, vectors
        self._control, self._advance = control, advance
        self.correct: dict[str, Bool[np.ndarray, " n"]] = {}

    def single(self) -> dict[str, dict[str, float]]:
        """Accuracy of theta_0 + tau, by split and task."""
        accuracies: dict[str, dict[str, float]] = {split: {} for split in MEASURED_SPLITS}
        for split in MEASURED_SPLITS:
            for task, vector in self._vectors.items():
                right = self._classify(vector, 1.0, split, task)
                accuracies[split][task] = float(right.mean())
                if split == "test":
                    self.correct[f"single/{task}"] = right
                self._advance()
        return accuracies

    def addition(self, single: dict[str, dict[str, float]]) -> Addition:
        """Measures the sum of all vectors; `single` is the result of `single()`.

        A task whose own model has accuracy 0 has no normalised accuracy; its plain accuracy then
        counts in the choice of alpha.
        """
        tasks, total = list(self._vectors), add_task_vectors(list(self._vectors.values()))
        failed = [
            task for task in tasks if min(single[split][task] for split in MEASURED_SPLITS) == 0
        ]
        val, test = (np.array([single[split][task] for task in tasks]) for split in MEASURED_SPLITS)
        val = np.where(val > 0, val, 1.0)
        length, alphas, rounds = self._begin(total)
        found = search_addition(lambda a: self._sweep(total, a, tasks), alphas, val, rounds)
        alpha, position = found.choice.alpha, found.choice.position
        right = {task: self._classify(total, alpha, "test", task) for task in tasks}
        self.correct |= {f"added/{task}": values for task, values in right.items()}
        at_one = {task: self._classify(total, 1.0, "test", task) for task in tasks}
        low, high = flat_range(found.alphas, found.accuracy.mean(axis=1), position, FLAT)
        return {
            "alphas": found.alphas.tolist(),
            "length": length,
            "val": {task: found.accuracy[:, column].tolist() for column, task in enumerate(tasks)},
            "alpha": alpha,
            "at_edge": found.choice.at_edge,
            "flat": [low, high],
            "failed": failed,
            **_added(right, test),
            "at_one": _added(at_one, test),
            "per_task": self._per_task(alpha, val, test),
        }

    def _per_task(self, alpha: float, val: Any, test: Any) -> PerTask | None:
        """The sum with one alpha for each vector; None if not requested."""
        rounds, tasks = self._options.per_task_rounds, list(self._vectors)
        if rounds == 0:
            return None
        vectors = list(self._vectors.values())

        def measure(rows: Float[np.ndarray, "g t"]) -> Float[np.ndarray, "g t"]:
            sets = [self._sets["val"][task] for task in tasks]
            return self._evaluator.accuracies(vectors, rows, sets)

        alphas = search_per_task(measure, alpha, val, rounds)
        right = {
            task: self._evaluator.predictions(vectors, alphas[None], data)[0] == data.labels
            for task, data in ((task, self._sets["test"][task]) for task in tasks)
        }
        self._advance()
        return {"alphas": dict(zip(tasks, alphas.tolist(), strict=True)), **_added(right, test)}

    def negation(self, task: str) -> TaskNegation:
        """Measures the negation of one vector, at the alpha chosen for each control share."""
        vector, both = self._vectors[task], (task, self._control)
        length, alphas, rounds = self._begin(vector)
        found, choices = search_negation(
            lambda a: self._sweep(vector, -a, both), alphas, self._shares, rounds
        )
        tested: dict[float, list[Bool[np.ndarray, " n"]]] = {}  # shares often choose the same alpha
        shares: dict[str, Any] = {}
        for share, best in zip(self._shares, choices, strict=True):
            if best.alpha not in tested:
                tested[best.alpha] = [
                    self._classify(vector, -best.alpha, "test", name) for name in both
                ]
            right = dict(zip(("negated", "control"), tested[best.alpha], strict=True))
            self.correct |= {f"{kind}/{share}/{task}": values for kind, values in right.items()}
            shares[str(share)] = {
                "alpha": best.alpha,
                "at_edge": best.at_edge,
                "target": float(right["negated"].mean()),
                "control": float(right["control"].mean()),
            }
            self._advance()
        target, control = found.accuracy.T.tolist()
        return {
            "alphas": found.alphas.tolist(),
            "length": length,
            "target_val": target,
            "control_val": control,
            "shares": shares,
        }

    def analogy(self, a: str, b: str, c: str, d: str) -> Analogy:
        """Accuracy on d with tau_c + (tau_b - tau_a): `a` is to `b` as `c` is to `d`."""
        vectors = self._vectors
        return {
            "tasks": [a, b, c, d],
            "analogy": self._best_on(d, analogy(vectors[a], vectors[b], vectors[c])),
            "third_alone": self._best_on(d, vectors[c]),
            "fine_tuned": float(self._classify(vectors[d], 1.0, "test", d).mean()),
        }

    def _best_on(self, task: str, vector: TaskVector) -> AtAlpha:
        """Test accuracy at the alpha with the best validation accuracy; ties go to the smaller."""
        _, alphas, rounds = self._begin(vector)
        found = search_addition(
            lambda a: self._sweep(vector, a, [task]), alphas, np.ones(1), rounds
        )
        right = self._classify(vector, found.choice.alpha, "test", task)
        return {
            "alpha": found.choice.alpha,
            "at_edge": found.choice.at_edge,
            "test": float(right.mean()),
        }

    def _begin(self, vector: TaskVector) -> tuple[float, Sequence[float], int]:
        return first_alphas(self._options, vector, self._pretrained_norm)

    def _sweep(
        self, vector: TaskVector, alphas: np.ndarray, tasks: Any
    ) -> Float[np.ndarray, "a t"]:
        """Validation accuracies of theta_0 + alpha tau; of alphas only the first may be 0."""
        sets = [self._sets["val"][task] for task in tasks]
        known = [self._zero_shot[task] for task in tasks if task in self._zero_shot]
        if alphas[0] or len(alphas) == 1 or len(known) < len(sets):
            return self._evaluator.accuracies([vector], alphas[:, None], sets, self._advance)
        more = self._evaluator.accuracies([vector], alphas[1:, None], sets, self._advance)
        return np.concatenate([[known], more])

    def _classify(
        self, vector: TaskVector, alpha: float, split: str, task: str
    ) -> Bool[np.ndarray, " n"]:
        """Whether theta_0 + alpha tau classifies each image correctly."""
        data = self._sets[split][task]
        answers = self._evaluator.predictions([vector], np.full((1, 1), alpha), data)[0]
        return np.asarray(answers == data.labels)


def first_alphas(
    options: ConfigDict, vector: TaskVector, pretrained_norm: float
) -> tuple[float, Sequence[float], int]:
    """Start of a search for alpha: relative length of the vector, first alphas, number of rounds.

    Args:
      options: `evaluation` of a config; its `alpha_search` decides.
      vector: tau, a task vector or a merged one.
      pretrained_norm: ||theta_0||; the relative length is ||tau|| / ||theta_0||.
    """
    length = float(norm(vector)) / pretrained_norm
    if options.alpha_search == "grid" or length == 0:  # for a zero vector, any alphas will do
        return length, options.alphas, 0
    return length, [each / length for each in options.relative_lengths], options.refinements


def _added(right: dict[str, Any], single: Float[np.ndarray, " t"]) -> Added:
    """Accuracies of an added model, from the test images it classifies correctly."""
    test = {task: float(values.mean()) for task, values in right.items()}
    accuracy = np.array(list(test.values()))
    return {
        "test": test,
        "absolute": float(accuracy.mean()),
        "normalised": float(normalised(accuracy, single).mean()) if single.all() else None,
    }
