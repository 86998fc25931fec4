"""The paper's table on the embedded suite: four ways to fine-tune, each both ways, three seeds.

Command:   orthoreg run --config configs/embedded_full.py --workdir runs/embedded_full
           (on a GPU sooner: first experiments/regime/finetune.py, with the same two options)
Hardware:  CPU, 2 cores; no network. About four hours.
Expected:  the rows of experiments/results/regime.md, up to rounding.

Tasks, steps and rates are chosen by what plain fine-tuning does, lambdas by validation Abs:
experiments/results/regime_protocol.md. Lambda of the linearised row is not searched yet.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import ORTHOREG, load_config

# By mode: learning rate, and lambda of the row with the penalty.
CHOSEN = {
    "full": (3e-4, 1.0),
    "linearized": (1e-4, 1.0),
    "attention": (3e-4, 10.0),
    "lora": (3e-3, 1.0),
}


def get_config() -> ConfigDict:
    """Changes from embedded.py."""
    config = load_config(pathlib.Path(__file__).with_name("embedded.py"))
    config.tasks = (
        *("digits", "flags", "silhouettes", "emoji", "fashion_mnist", "mnist", "scripts"),
        "vehicles",
    )
    config.methods = tuple(mode + plus for mode in CHOSEN for plus in ("", ORTHOREG))
    config.seeds = (0, 1, 2)
    for mode, (learning_rate, strength) in CHOSEN.items():
        config.per_method[mode].learning_rate = learning_rate
        config.per_method[mode + ORTHOREG].learning_rate = learning_rate
        config.per_method[mode + ORTHOREG].strength = strength
    config.evaluation.max_val_images = 384
    config.evaluation.max_test_images = 1000
    config.evaluation.refinements = 3
    config.evaluation.per_task_rounds = 1
    config.evaluation.disentanglement_alphas = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    config.evaluation.feature_images = 32
    return config
