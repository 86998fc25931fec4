"""Task analogies on the embedded model: MNIST's digits 0-4 are to UCI's as 5-9 are to UCI's 5-9.

Command:   orthoreg run --config configs/embedded_analogies.py --workdir runs/embedded_analogies
Hardware:  CPU, 2 cores; no network. About 4 minutes.
Expected:  on UCI's 5-9, of which no edit saw an image: zero-shot 51.3, MNIST's 5-9 alone 85.6,
           the analogy 85.6; with OrthoReg 84.4 and 89.2. Fine-tuned on it: 98.3, 97.7.
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
