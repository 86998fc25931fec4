"""A small real experiment for tests: the embedded model on tasks of a few images."""

import json
import os
import pathlib

import numpy as np

from orthoreg_jax import cli

CONFIG = """
from orthoreg_jax.config import default_config

def get_config():
    config = default_config()
    config.data = "DATA"
    config.tasks = ("first", "second")
    config.control = "others"
    config.seeds = (3,)
    config.training.steps = 6
    config.training.warmup_steps = 1
    config.training.batch_size = 8
    config.training.learning_rate = 1e-3
    config.training.log_every = 2
    config.evaluation.batch_size = 16
    config.evaluation.alphas = (0.0, 0.5, 1.0)
    config.evaluation.disentanglement_tasks = ("first", "second")
    config.evaluation.disentanglement_alphas = (-1.0, 0.0, 1.0)
    config.evaluation.feature_images = 8
    return config
"""


def write_tasks(folder):
    """Three small tasks cut out of the embedded ones."""
    source = pathlib.Path(cli.__file__).parent / "embedded" / "tasks"
    table = json.loads((source / "tasks.json").read_text())["tasks"]
    small = {}
    for name, origin in {"first": "mnist", "second": "vehicles", "others": "concepts"}.items():
        with np.load(source / f"{origin}.npz") as archive:
            rows = {"train": 40, "val": 20, "test": 30}
            arrays = {key: archive[key][: rows[key.split("_")[0]]] for key in archive.files}
        np.savez(folder / f"{name}.npz", **arrays)
        small[name] = {key: table[origin][key] for key in ("title", "classes", "templates")}
    (folder / "tasks.json").write_text(json.dumps({"tasks": small}))


def orthoreg(command, config, workdir, *more):
    options = [] if config is None else ["--config", str(config)]
    return cli.main([command, *options, "--workdir", str(workdir), *more])


def virtual_devices(count):
    """For the environment of a process: so many devices of XLA's."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": flags}
