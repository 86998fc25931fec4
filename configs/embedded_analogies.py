"""Task analogies on the embedded model: MNIST's digits 0-4 are to UCI's as 5-9 are to UCI's 5-9.

Command:   orthoreg run --config configs/embedded_analogies.py --workdir runs/embedded_analogies
Hardware:  CPU, 2 cores; no network. About 4 minutes.
Expected:  not measured on the present base yet.
"""

import pathlib

from ml_collections import ConfigDict

from orthoreg_jax.config import load_config


def get_config() -> ConfigDict:
    """Changes from embedded.py."""
    config = load_config(pathlib.Path(__file__).with_name("embedded.py"))
    config.tasks = ("mnist_low", "digits_low", "mnist_high", "digits_high")
    config.evaluation.analogies = (":".join(config.tasks),)
    config.evaluation.disentanglement_tasks = ()
    config.evaluation.feature_images = 0
    return config
