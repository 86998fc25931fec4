"""The embedded suite at length: three seeds, all images, finer grids, every pair of three tasks.

Command:   orthoreg run --config configs/embedded_full.py --workdir runs/embedded_full
Hardware:  CPU, 2 cores; no network.
Expected:  see README.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from embedded.py."""
    config = load_config(pathlib.Path(__file__).with_name("embedded.py"))
    config.seeds = (0, 1, 2)
    config.evaluation.max_val_images = 0
    config.evaluation.max_test_images = 0
    config.evaluation.disentanglement_tasks = ("mnist", "fashion_mnist", "emoji")
    config.evaluation.disentanglement_alphas = (-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0)
    config.evaluation.max_disentanglement_images = 256
    config.evaluation.feature_images = 128
    return config
