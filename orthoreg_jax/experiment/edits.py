"""Accuracies of one method's edited models: alone, added, negated, by analogy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from ml_collections import ConfigDict

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors, analogy
from orthoreg_jax.evaluation.accuracy import EvaluationSet, Evaluator
from orthoreg_jax.evaluation.results import Addition, Analogy, AtAlpha, TaskNegation
from orthoreg_jax.evaluation.selection import choose_addition, choose_negation, normalised

SPLITS = ("val", "test")
Sets = dict[str, dict[str, EvaluationSet]]  # split -> task -> images on the device


class Edits:
    """The task vectors of one method and seed, and everything that is measured on them.

    `correct` collects, for each test accuracy, which images were classified right:
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
    ) -> None:
        """Measures nothing yet.

        Args:
          options: `evaluation` of a config.
          evaluator: of the way in which the vectors act on the model.
          sets: of all tasks and the control task.
          vectors: task vectors by task.
          control: name of the control task.
          advance: called after each sweep over one set.
        """
        self._alphas = np.array(options.alphas)
        self._shares = options.control_shares
        self._evaluator, self._sets, self._vectors = evaluator, sets, vectors
        self._control, self._advance = control, advance
        self.correct: dict[str, Bool[np.ndarray, " n"]] = {}

    def single(self) -> dict[str, dict[str, float]]:
        """Split -> task -> accuracy of theta_0 + tau."""
        accuracies: dict[str, dict[str, float]] = {split: {} for split in SPLITS}
        for split in SPLITS:
            for task, vector in self._vectors.items():
                right = self._classify(vector, 1.0, split, task)
                accuracies[split][task] = float(right.mean())
                if split == "test":
                    self.correct[f"single/{task}"] = right
                self._advance()
        return accuracies

    def addition(self, single: dict[str, dict[str, float]]) -> Addition:
        """Of the sum of all vectors; `single` is what `single()` returned.

        Raises:
          ValueError: a task whose own model is never right.
        """
        failed = {task for values in single.values() for task in values if values[task] == 0}
        if failed:
            raise ValueError(
                f"the model fine-tuned on {', '.join(sorted(failed))} is never right on it, so "
                "that normalised accuracy is not defined: see its metrics.jsonl, and train it "
                "anew with a lower training.learning_rate or penalty.strength, in a new --workdir"
            )
        total = add_task_vectors(list(self._vectors.values()))
        val = self._sweep(total, self._alphas, list(self._vectors))
        best = choose_addition(self._alphas, val, np.array(list(single["val"].values())))
        right = {task: self._classify(total, best.alpha, "test", task) for task in self._vectors}
        self.correct |= {f"added/{task}": values for task, values in right.items()}
        test = np.array([values.mean() for values in right.values()])
        return {
            "val": {task: val[:, column].tolist() for column, task in enumerate(self._vectors)},
            "alpha": best.alpha,
            "at_edge": best.at_edge,
            "test": {task: float(value) for task, value in zip(right, test, strict=True)},
            "absolute": float(test.mean()),
            "normalised": float(normalised(test, np.array(list(single["test"].values()))).mean()),
        }

    def negation(self, task: str) -> TaskNegation:
        """Of one vector, at the alpha chosen for each share of control accuracy."""
        vector, both = self._vectors[task], (task, self._control)
        target, control = self._sweep(vector, -self._alphas, both).T
        tested: dict[float, list[Bool[np.ndarray, " n"]]] = {}  # shares often choose one alpha
        shares: dict[str, Any] = {}
        for share in self._shares:
            best = choose_negation(self._alphas, target, control, share)
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
        return {"target_val": target.tolist(), "control_val": control.tolist(), "shares": shares}

    def analogy(self, a: str, b: str, c: str, d: str) -> Analogy:
        """`a` is to `b` as `c` is to `d`: d's accuracy by tau_c + (tau_b - tau_a)."""
        vectors = self._vectors
        return {
            "tasks": [a, b, c, d],
            "analogy": self._best_on(d, analogy(vectors[a], vectors[b], vectors[c])),
            "third_alone": self._best_on(d, vectors[c]),
            "fine_tuned": float(self._classify(vectors[d], 1.0, "test", d).mean()),
        }

    def _best_on(self, task: str, vector: Any) -> AtAlpha:
        """Test accuracy at the alpha with the best validation accuracy; the smaller of equals."""
        val = self._sweep(vector, self._alphas, [task])[:, 0]
        index = int(np.argmax(val))
        alpha = float(self._alphas[index])
        right = self._classify(vector, alpha, "test", task)
        at_edge = index == len(val) - 1
        return {"alpha": alpha, "at_edge": at_edge, "test": float(right.mean())}

    def _sweep(self, vector: Any, alphas: np.ndarray, tasks: Any) -> Float[np.ndarray, "a t"]:
        """Validation accuracies of theta_0 + alpha tau."""
        sets = [self._sets["val"][task] for task in tasks]
        return self._evaluator.accuracies([vector], alphas[:, None], sets, self._advance)

    def _classify(self, vector: Any, alpha: float, split: str, task: str) -> Bool[np.ndarray, " n"]:
        """Whether theta_0 + alpha tau is right on each image."""
        data = self._sets[split][task]
        answers = self._evaluator.predictions([vector], np.full((1, 1), alpha), data)[0]
        return np.asarray(answers == data.labels)
