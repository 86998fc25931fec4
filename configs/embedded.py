"""The main job on the model and data that come with the package: full fine-tuning, 8 tasks.

Command:   orthoreg run --config configs/embedded.py --workdir runs/embedded   (or: make run)
Hardware:  CPU, 2 cores, under 2 GB of memory; no network.
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config


def get_config() -> ConfigDict:
    """Changes from the defaults."""
    config = default_config()
    config.tasks = (
        "mnist", "fashion_mnist", "silhouettes", "vehicles", "tools", "devices", "weather", "emoji",
    )  # fmt: skip
    config.training.steps = 100
    config.training.batch_size = 64
    config.training.learning_rate = 1e-4
    config.evaluation.alphas = (
        *(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6),
        *(0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 1.75, 2.0),
    )
    config.evaluation.max_val_images = 400
    config.evaluation.max_test_images = 1000
    return config
