"""The main job on the model and data that come with the package: full fine-tuning, 5 tasks.

Command:   orthoreg run --config configs/embedded.py --workdir runs/embedded   (or: make run)
Hardware:  CPU, 2 cores; no network. 7 to 11 minutes, and one for the set-up of `make run`.
Expected:  full 85.5 single, 78.5 Abs, 91.1 Norm; with OrthoReg 85.6, 78.5, 90.9 (zero-shot 68.3).

Learning rate and lambda are the best on validation of experiments/tune.py.
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config


def get_config() -> ConfigDict:
    """Changes from the defaults."""
    config = default_config()
    config.tasks = ("mnist", "digits", "fashion_mnist", "silhouettes", "emoji")
    config.training.steps = 120
    config.training.batch_size = 32
    config.training.learning_rate = 3e-4
    config.penalty.strength = 0.1
    fine = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6, 0.7, 0.8)
    config.evaluation.alphas = (*fine, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0)
    # Small batches: most validation splits have fewer than 128 images, padding costs as much.
    config.evaluation.batch_size = 128
    config.evaluation.max_val_images = 384
    config.evaluation.max_test_images = 1000
    config.evaluation.disentanglement_tasks = ("mnist", "emoji")
    config.evaluation.disentanglement_alphas = (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)
    config.evaluation.max_disentanglement_images = 128
    config.evaluation.feature_images = 32
    return config
