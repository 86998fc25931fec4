"""The main job on the model and data that come with the package: full fine-tuning, 8 tasks.

Command:   orthoreg run --config configs/embedded.py --workdir runs/embedded   (or: make run)
Hardware:  CPU, 2 cores; no network. About 6 minutes.
Expected:  full 60.3 single, 52.1 Abs, 86.1 Norm; with OrthoReg 59.2, 52.2, 88.6 (zero-shot 50.6).
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config


def get_config() -> ConfigDict:
    """Changes from the defaults."""
    config = default_config()
    config.tasks = (
        "mnist", "fashion_mnist", "silhouettes", "vehicles", "tools", "devices", "weather", "emoji",
    )  # fmt: skip
    config.training.steps = 80
    config.training.batch_size = 64
    config.training.learning_rate = 1e-4
    alphas = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0)
    config.evaluation.alphas = alphas
    # Small batches: most validation splits have fewer than 128 images, padding costs as much.
    config.evaluation.batch_size = 128
    config.evaluation.max_val_images = 384
    config.evaluation.max_test_images = 1000
    return config
