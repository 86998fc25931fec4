"""How well task arithmetic works on a model, before whole runs: one row of numbers.

    python experiments/embedded/indicators.py --model DIR --tasks mnist,letters --learning_rate 3e-5

Plain full fine-tuning without a penalty, chosen on validation, measured on test:

* zero-shot, single-task and added accuracy, and negation at 95 % of the control accuracy;
* kept: accuracy on the other tasks at alpha 1, over zero-shot (forgetting), mean and worst pair;
* pairs: normalised accuracy of each pair of tasks, added at its best alpha, mean over pairs.
"""

from __future__ import annotations

import argparse
import itertools
import json

import jax
import numpy as np

from orthoreg_jax.arithmetic.task_vectors import add_task_vectors, norm, task_vector
from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.clip.zeroshot import pad_heads, zero_shot_head
from orthoreg_jax.evaluation.accuracy import Evaluator, put_evaluation_set
from orthoreg_jax.evaluation.selection import choose_addition, choose_negation
from orthoreg_jax.tasks.batches import limited_rows
from orthoreg_jax.tasks.loading import Feed, load_images
from orthoreg_jax.tasks.task import load_tasks
from orthoreg_jax.training.modes import full
from orthoreg_jax.training.sharding import make_shardings
from orthoreg_jax.training.step import init_state, make_optimizer, make_train_step

ALPHAS = np.array([*np.arange(0, 0.5, 0.05), *np.arange(0.5, 1, 0.1), 1, 1.3, 1.6, 2])
MAX_VAL, MAX_TEST = 384, 1000


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", default="embedded")
    parser.add_argument("--tasks", required=True)
    parser.add_argument("--control", default="concepts")
    parser.add_argument("--learning_rate", type=float, default=3e-5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--weight_decay", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pairs", action="store_true", help="measure all pairs, too")
    return parser.parse_args()


class Suite:
    """A model, its tasks, and what is measured on them."""

    def __init__(self, arguments: argparse.Namespace):
        self.arguments, self.names = arguments, arguments.tasks.split(",")
        self.control = arguments.control
        checkpoint = load_checkpoint(arguments.model)
        self.preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
        self.apply = image_encoder(checkpoint.config)
        self.params0 = jax.device_put(checkpoint.params["visual"])
        self.tasks = load_tasks(arguments.data, self.names, self.control)
        self.heads = pad_heads(
            {
                name: zero_shot_head(checkpoint, task.classes, task.templates)
                for name, task in self.tasks.items()
            }
        )
        shardings = make_shardings()
        self.sets = {
            split: {
                name: put_evaluation_set(
                    self.heads[name], *self.images(name, split, limit), 256, shardings
                )
                for name in self.tasks
            }
            for split, limit in (("val", MAX_VAL), ("test", MAX_TEST))
        }
        self.evaluator = Evaluator(self.apply, self.params0, self.preprocessing.normalize)

    def images(self, name: str, split: str, limit: int = 0):
        data = self.tasks[name].splits[split]
        rows = limited_rows(len(data), limit)
        return load_images(data.images, rows, self.preprocessing), data.labels[rows]

    def accuracies(self, vector, alphas, split: str, names: list[str]) -> np.ndarray:
        """Accuracies (alphas, names) of theta_0 + alpha tau."""
        sets = [self.sets[split][name] for name in names]
        return self.evaluator.accuracies([vector], np.reshape(alphas, (-1, 1)), sets)

    def finetune(self) -> dict:
        """One task vector for each task."""
        options, mode = self.arguments, full()
        optimizer = make_optimizer(
            options.learning_rate, options.steps // 10, options.steps, options.weight_decay, 1.0
        )
        step = make_train_step(mode, self.apply, optimizer, self.preprocessing.normalize)
        vectors, key = {}, jax.random.key(options.seed)
        for name in self.names:
            state = init_state(mode, optimizer, self.params0, key)
            train = self.tasks[name].splits["train"]
            feed = Feed(train, self.preprocessing, options.batch, options.seed, crop_scale=0.9)
            for batch in feed.batches(0, options.steps):
                state, _ = step(state, self.params0, self.heads[name], *batch)
            vectors[name] = task_vector(state.trainable, self.params0)
        return vectors

    def add(self, vectors: dict, single: dict) -> tuple[float, np.ndarray]:
        """The best alpha on validation, and test accuracies there."""
        names, total = list(vectors), add_task_vectors(vectors)
        val = self.accuracies(total, ALPHAS, "val", names)
        best = choose_addition(ALPHAS, val, np.array([single["val"][name] for name in names]))
        return best.alpha, self.accuracies(total, best.alpha, "test", names)[0]

    def negate(self, name: str, vector) -> np.ndarray:
        """Test accuracies (target, control) at 95 % of validation's control accuracy."""
        both = [name, self.control]
        target, control = self.accuracies(vector, -ALPHAS, "val", both).T
        best = choose_negation(ALPHAS, target, control, 0.95)
        return self.accuracies(vector, -best.alpha, "test", both)[0]


def measure(suite: Suite) -> dict:
    """All numbers of a row, in per cent."""
    names = suite.names
    zero_shot = suite.evaluator.zero_shot([suite.sets["test"][name] for name in suite.tasks])
    vectors = suite.finetune()
    table = np.stack([suite.accuracies(v, 1.0, "test", names)[0] for v in vectors.values()])
    single = {
        "val": {n: float(suite.accuracies(v, 1.0, "val", [n])[0, 0]) for n, v in vectors.items()},
        "test": dict(zip(names, np.diag(table).tolist(), strict=True)),
    }
    alpha, added = suite.add(vectors, single)
    own = np.diag(table)
    kept = (table / zero_shot[None, : len(names)])[~np.eye(len(names), dtype=bool)]
    negated = np.array([suite.negate(name, vector) for name, vector in vectors.items()])
    row = {
        "zero-shot": zero_shot[:-1].mean(),
        "single": own.mean(),
        "Abs": added.mean(),
        "Norm": (added / own).mean(),
        "alpha": alpha / 100,
        "negated": negated[:, 0].mean(),
        "control": zero_shot[-1],
        "control negated": negated[:, 1].mean(),
        "kept": kept.mean(),
        "kept, worst pair": kept.min(),
    }
    if suite.arguments.pairs:
        norms = []
        for pair in itertools.combinations(names, 2):
            _, accuracy = suite.add({name: vectors[name] for name in pair}, single)
            norms.append(np.mean(accuracy / [single["test"][name] for name in pair]))
        row["pairs"] = np.mean(norms)
    by_task = {
        name: [zero_shot[i], own[i], added[i], negated[i, 0]] for i, name in enumerate(names)
    }
    return {
        **{key: round(100 * float(value), 2) for key, value in row.items()},
        "norms": {name: round(float(norm(vector)), 2) for name, vector in vectors.items()},
        "zero-shot, single, added, negated": {
            name: [round(100 * float(value), 1) for value in values]
            for name, values in by_task.items()
        },
    }


if __name__ == "__main__":
    arguments = parse_arguments()
    print(json.dumps(vars(arguments) | measure(Suite(arguments))))
