"""A fleet's fine-tunings are those of `orthoreg finetune`."""

import pathlib
import sys

import jax
import numpy as np
import pytest

from orthoreg_jax import load_config, load_task_vectors
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.experiment.finetuning import finetune_all
from orthoreg_jax.experiment.setup import prepare

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "experiments" / "regime"))
from fleet import Replica, finetune_fleet  # noqa: E402


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_fleet_makes_the_vectors_of_single_runs(inputs, tmp_path, mode):
    expected = {}
    for strength in (0.0, 2.0):
        method = mode + "+orthoreg" * (strength > 0)
        options = [f"methods={method}", "seeds=3", f"penalty.strength={strength or 1.0}"]
        config = load_config(inputs, options)
        with jax.default_matmul_precision("highest"):
            experiment = prepare(config, tmp_path / method)
            finetune_all(experiment)
        for task, vector in load_task_vectors(tmp_path / method, method).items():
            expected[task, strength] = flatten(vector["visual"])
    training = config.training
    replicas = [Replica(t, 3, training.learning_rate, s) for t, s in expected]
    with jax.default_matmul_precision("highest"):
        found = finetune_fleet(
            experiment, mode, replicas, steps=training.steps, warmup=training.warmup_steps
        )
    for replica, vector in zip(replicas, found, strict=True):
        whole = expected[replica.task, replica.strength]
        assert set(flatten(vector)) == set(whole)
        for path, leaf in flatten(vector).items():
            if path.endswith("in_proj/bias"):  # the keys' have no gradient but rounding's
                continue
            scale = np.abs(whole[path]).max()
            np.testing.assert_allclose(leaf, whole[path], atol=2e-3 * scale, err_msg=path)
