"""Small results written by hand: 2 tasks, 2 methods, 3 alphas, 1 or 2 seeds."""

import json

import pytest

from orthoreg_jax.config import default_config, flatten_config
from orthoreg_jax.evaluation.results import FORMAT
from orthoreg_jax.storage import write_sealed

ALPHAS = [0.0, 0.5, 1.0]
# A title that tries to be markup, a formula and a table cell.
HOSTILE = '<script>alert("x")</script> & $\\frac$ | --> "'


def make_run(method, seed, single, added, alpha, at_edge, target, control, edge_task=None):
    """A run; `single`, `added` and `target` are accuracies of the tasks a and b."""
    plus = method.endswith("+orthoreg")
    leaves = {
        "blocks/mlp/fc1/kernel": [[0.2, 0.1, 0.0], [0.4, 0.2, 0.1]],
        "projection/kernel": [[0.3, 0.1]],
    }
    added_numbers = {
        "test": dict(zip("ab", added, strict=True)),
        "absolute": sum(added) / 2,
        "normalised": sum(x / y for x, y in zip(added, single, strict=True)) / 2,
    }
    return {
        "method": method,
        "label": "Non-linear FT" + " + OrthoReg" * plus,
        "seed": seed,
        "strength": 10.0 * plus,
        "learning_rate": 1e-5,
        "vectors": {"a": "0" * 64, "b": "1" * 64},
        "single": {split: dict(zip("ab", single, strict=True)) for split in ("val", "test")},
        "addition": {
            "alphas": ALPHAS,
            "length": 0.5,
            "flat": [0.5, 1.0],
            "at_one": added_numbers,
            "per_task": added_numbers | {"alphas": {"a": 0.5, "b": 0.25}},
            "val": {"a": [0.4, 0.6, 0.5], "b": [0.2, 0.3, 0.4]},
            "alpha": alpha,
            "at_edge": at_edge,
            "failed": [],
            **added_numbers,
        },
        "negation": {
            task: {
                "alphas": ALPHAS,
                "length": 0.25,
                "target_val": [0.4, 0.2, 0.1],
                "control_val": [0.5, 0.49, 0.4],
                "shares": {
                    share: {
                        "alpha": 1.0 if task == edge_task else 0.5,
                        "at_edge": task == edge_task,
                        "target": accuracy,
                        "control": control,
                    }
                    for share in ("0.8", "0.95")
                },
            }
            for task, accuracy in zip("ab", target, strict=True)
        },
        "analogies": [
            {
                "tasks": ["b", "a", "a", "b"],
                "analogy": {"alpha": 0.5, "at_edge": False, "test": 0.45},
                "third_alone": {"alpha": 0.5, "at_edge": False, "test": 0.35},
                "fine_tuned": 0.8,
            }
        ],
        "disentanglement": [
            {"tasks": ["a", "b"], "error": [[0.9, 0.2, 0.6], [0.3, 0.0, 0.1], [1.2, 0.2, 0.5]]}
        ],
        "geometry": {
            "norms": {"a": 1.0, "b": 2.0},
            "cosines": [[1.0, -0.25], [-0.25, 1.0]],
            "singular_values": {"a": leaves, "b": leaves},
            "column_cosines": {"a": 0.1, "b": 0.3},
            "stable_ranks": {"a": 1.0, "b": 2.0},
            "gram_deviations": {"a": 4.0, "b": 6.0},
            "angles": {leaf: [0.1, 0.8, 0.1] for leaf in leaves},
        },
        "features": {
            "overlap": 0.4,
            "by_layer": {"blocks/mlp/fc1/bias": [0.3, 0.5]},
            "tau_jacobian": [[1.0, 0.2], [0.4, 2.0]],
        },
    }


def make_comparison(baseline, method, measure, difference, low, high, several_seeds):
    """A paired difference and its interval."""
    return {
        "baseline": baseline,
        "method": method,
        "measure": measure,
        "difference": difference,
        "low": low,
        "high": high,
        "deviation": 0.02 if several_seeds else None,
    }


def make_results(seeds=1, title="Task A"):
    """Results whose means can be worked out in the head."""
    runs = [
        make_run("full", 0, (0.8, 0.6), (0.6, 0.4), 0.5, False, (0.2, 0.1), 0.48),
        make_run("full", 1, (0.9, 0.7), (0.7, 0.5), 0.5, False, (0.3, 0.2), 0.46),
        make_run("full+orthoreg", 0, (0.7, 0.5), (0.61, 0.4), 1.0, True, (0.1, 0.1), 0.48, "b"),
        make_run("full+orthoreg", 1, (0.7, 0.5), (0.61, 0.4), 0.5, False, (0.1, 0.1), 0.48),
    ]
    zero_shot = {"a": 0.4, "b": 0.2, "c": 0.5}
    splits = {"val": {"images": 20, "sha256": "00"}, "test": {"images": 100, "sha256": "11"}}
    config = json.loads(json.dumps(flatten_config(default_config())))
    changes = {"tasks": ["a", "b"], "evaluation.max_test_images": 80, "training.steps": 70}
    return {
        "format": FORMAT,
        "config": config | changes,
        "provenance": {
            "versions": {"orthoreg-jax": "0.1.0"},
            "devices": ["cpu: cpu"],
            "continued_with": [],
            "inputs": {
                "model": {"model.safetensors": "22"},
                "tasks": dict.fromkeys("abc", {"prompts_sha256": "33", "splits": splits}),
            },
        },
        "tasks": {"a": title, "b": "Task B"},
        "control": "Control: other things",
        "disentanglement_alphas": [-1.0, 0.0, 1.0],
        "zero_shot": {"val": dict(zero_shot), "test": dict(zero_shot)},
        "weight_angles": {
            leaf: [0.0, 1.0, 0.0] for leaf in ("blocks/mlp/fc1/kernel", "projection/kernel")
        },
        "features": {"overlap": 0.5, "by_layer": {}, "tau_jacobian": []},
        "runs": [run for run in runs if run["seed"] < seeds],
        "comparisons": [
            make_comparison(baseline, "full+orthoreg", measure, *numbers, seeds > 1)
            for baseline in ("full", "zero-shot")
            for measure, numbers in {
                "single": (-0.1, -0.2, -0.05),
                "added": (0.005, -0.03, 0.04),
                "negated/0.95": (-0.05, -0.08, -0.01),
                "control/0.95": (0.01, -0.01, 0.03),
            }.items()
        ],
    }


@pytest.fixture
def results():
    """One seed."""
    return make_results()


@pytest.fixture
def two_seeds():
    """Two seeds."""
    return make_results(seeds=2)


@pytest.fixture
def run_folder(tmp_path, results):
    """A run folder with results.json and the metrics of one method."""
    folder = tmp_path / "run<1>"
    for task in "ab":
        path = folder / "full+orthoreg" / "seed0" / task / "metrics.jsonl"
        path.parent.mkdir(parents=True)
        lines = [{"step": step, "loss": 2.0 - step, "penalty": 3.0} for step in (0, 1)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_sealed(folder / "results.json", results)
    return folder
