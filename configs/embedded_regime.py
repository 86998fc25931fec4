"""The embedded suite's thirteen tasks, from which the trials of experiments/regime differ.

Command:   python experiments/regime/run.py --config configs/embedded_regime.py --workdir WORKDIR
Hardware:  one GPU, ten minutes; on two CPU cores days.
Expected:  experiments/results/regime.md.
"""

from ml_collections import ConfigDict

from orthoreg_jax.config import default_config

TASKS = (
    *("mnist", "digits", "fashion_mnist", "silhouettes", "vehicles", "tools", "devices"),
    *("weather", "symbols", "emoji", "flags", "letters", "scripts"),
)


def get_config() -> ConfigDict:
    """Changes from the defaults."""
    config = default_config()
    config.tasks = TASKS
    # On recent GPUs TF32; on a CPU all of float32 in either case.
    config.matmul_precision = config.penalty.precision = "default"
    config.training.steps = 600
    config.training.warmup_steps = 60
    config.training.batch_size = 32
    config.training.learning_rate = 3e-4
    config.evaluation.batch_size = 500
    config.evaluation.max_val_images = 384
    config.evaluation.max_test_images = 1000
    config.evaluation.per_task_rounds = 0
    return config
