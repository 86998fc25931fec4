"""The paper's table on the embedded suite: four ways to fine-tune, each both ways, three seeds.

Command:   orthoreg run --config configs/embedded_full.py --workdir runs/embedded_full
Hardware:  CPU, 2 cores; no network. About an hour and a half.
Expected:  experiments/results/embedded_full.md.

Learning rates and lambdas are the best on validation of experiments/tune.py, four trials each.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import ORTHOREG, load_config

# By mode: learning rate, and lambda of the row with the penalty.
CHOSEN = {
    "full": (3e-4, 0.1),
    "linearized": (3e-4, 0.1),
    "attention": (3e-4, 1.0),
    "lora": (3e-3, 1.0),
}


def get_config() -> ConfigDict:
    """Changes from embedded.py."""
    config = load_config(pathlib.Path(__file__).with_name("embedded.py"))
    config.methods = tuple(mode + plus for mode in CHOSEN for plus in ("", ORTHOREG))
    config.seeds = (0, 1, 2)
    for mode, (learning_rate, strength) in CHOSEN.items():
        config.per_method[mode].learning_rate = learning_rate
        config.per_method[mode + ORTHOREG].learning_rate = learning_rate
        config.per_method[mode + ORTHOREG].strength = strength
    return config
