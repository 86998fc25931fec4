"""The embedded suite's thirteen tasks, from which the trials of experiments/regime differ.

Command:   python experiments/regime/run.py --config configs/embedded_regime.py --workdir WORKDIR
Hardware:  one GPU, ten minutes; on two CPU cores days.
Expected:  experiments/results/regime.md.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config

TASKS = (
    *("mnist", "digits", "fashion_mnist", "silhouettes", "vehicles", "tools", "devices"),
    *("weather", "symbols", "emoji", "flags", "letters", "scripts"),
)


def get_config() -> ConfigDict:
    """Changes from embedded.py."""
    config = load_config(pathlib.Path(__file__).with_name("embedded.py"))
    config.tasks = TASKS
    # On recent GPUs TF32; on a CPU all of float32 in either case.
    config.matmul_precision = config.penalty.precision = "default"
    config.evaluation.batch_size = 500
    config.evaluation.max_val_images = 384
    config.evaluation.max_test_images = 1000
    config.evaluation.refinements = 3
    return config
