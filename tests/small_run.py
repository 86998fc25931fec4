"""A small experiment for tests: a small random CLIP on tasks of a few images."""

import dataclasses
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from orthoreg_jax import cli, load_checkpoint, load_tree, save_checkpoint
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip.config import ClipConfig
from orthoreg_jax.clip.modules import Clip
from orthoreg_jax.storage import read_sealed, write_sealed

CONFIG = """
from orthoreg_jax.config import default_config

def get_config():
    config = default_config()
    config.model = "DATA/model"
    config.data = "DATA"
    config.tasks = ("first", "second")
    config.control = "others"
    config.seeds = (3,)
    config.training.steps = 6
    config.training.warmup = 1
    config.training.batch_size = 8
    config.training.learning_rate = 1e-3
    config.training.log_every = 2
    config.evaluation.batch_size = 16
    config.evaluation.relative_lengths = (0.0, 0.03, 0.3)
    config.evaluation.refinements = 1
    config.evaluation.disentanglement_tasks = ("first", "second")
    config.evaluation.disentanglement_alphas = (-1.0, 0.0, 1.0)
    config.evaluation.feature_images = 8
    return config
"""


def write_model(folder):
    """With the embedded model's tokenizer and preprocessing, and a hundredth of its work."""
    like = load_checkpoint("embedded")
    sizes = {"width": 32, "layers": 2, "heads": 2, "mlp_width": 64}
    visual = dataclasses.replace(like.config.visual, patch_size=8, **sizes)
    text = dataclasses.replace(like.config.text, **sizes)
    config = ClipConfig(visual=visual, text=text, projection=16)
    images, texts = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 1), jnp.int32)
    # A draw of which accuracies tell: right on some images, and adding gains.
    params = jax.device_get(Clip(config).init(jax.random.key(6), images, texts)["params"])
    save_checkpoint(folder / "model", params, dataclasses.replace(like, config=config))


def write_tasks(folder):
    """Three small tasks drawn from the embedded ones."""
    source = pathlib.Path(cli.__file__).parent / "embedded" / "tasks"
    table = json.loads((source / "tasks.json").read_text())["tasks"]
    small = {}
    for name, origin in {"first": "mnist", "second": "vehicles", "others": "digits"}.items():
        with np.load(source / f"{origin}.npz") as archive:
            # Of all classes: a model that knows but one of them is right now and then.
            arrays = {}
            for split, count in {"train": 40, "val": 24, "test": 36}.items():
                rows = _of_all_classes(archive[f"{split}_labels"])[:count]
                for kind in ("images", "labels"):
                    arrays[f"{split}_{kind}"] = archive[f"{split}_{kind}"][rows]
        np.savez(folder / f"{name}.npz", **arrays)
        small[name] = {key: table[origin][key] for key in ("title", "classes", "templates")}
    (folder / "tasks.json").write_text(json.dumps({"tasks": small}))


def _of_all_classes(labels):
    """Rows in which the classes take turns, so that the first few have all of them."""
    shuffled = np.random.default_rng(0).permutation(len(labels))
    turns = np.zeros(len(labels), int)
    for label in np.unique(labels):
        own = shuffled[labels[shuffled] == label]
        turns[own] = np.arange(len(own))
    return shuffled[np.argsort(turns[shuffled], kind="stable")]


def pretrained(workdir):
    """The checkpoint that a run began with."""
    return load_checkpoint(json.loads((workdir / "config.json").read_text())["model"])


def relative_difference(path, other):
    """Norm of the difference of two vector files, divided by that of the second.

    But for the keys' biases: they change no attention, so that their gradients are rounding, which
    Adam makes as large as all others.
    """
    ours, theirs = flatten(load_tree(path)), flatten(load_tree(other))
    for leaves in (ours, theirs):
        queries, _, values = np.split(leaves["visual/blocks/attn/in_proj/bias"], 3, axis=-1)
        leaves["visual/blocks/attn/in_proj/bias"] = np.concatenate([queries, values], axis=-1)
    squares = sum(np.sum((ours[name] - theirs[name]) ** 2) for name in theirs)
    return np.sqrt(squares / sum(np.sum(leaf**2) for leaf in theirs.values()))


def change_results(workdir, change):
    """Edits a results.json as if the run had written it so; `change` edits the table."""
    path = workdir / "results.json"
    change(results := read_sealed(path))
    write_sealed(path, results)


def orthoreg(command, config, workdir, *more):
    options = [] if config is None else ["--config", str(config)]
    return cli.main([command, *options, "--workdir", str(workdir), *more])


def virtual_devices(count):
    """For the environment of a process: so many devices of XLA's."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": flags}
