"""A fleet's fine-tunings are those of `orthoreg finetune`."""

import pathlib
import sys
import tarfile

import jax
import numpy as np
import pytest

from orthoreg_jax import load_config, load_task_vectors, load_tree
from orthoreg_jax.arithmetic.matrices import select_matrices
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.arithmetic.rules import rules_for_part
from orthoreg_jax.clip.weights import VISUAL_MATRICES
from orthoreg_jax.experiment.finetuning import finetune_all
from orthoreg_jax.experiment.setup import prepare
from orthoreg_jax.storage import write_json

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
RESULTS = EXPERIMENTS / "results"
sys.path.insert(0, str(EXPERIMENTS / "regime"))
import page  # noqa: E402
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
            experiment, mode, replicas, steps=training.steps, warmup=int(training.warmup)
        )
    for replica, vector in zip(replicas, found, strict=True):
        whole = expected[replica.task, replica.strength]
        assert set(flatten(vector)) == set(whole)
        for path, leaf in flatten(vector).items():
            if path.endswith("in_proj/bias"):  # the keys' have no gradient but rounding's
                continue
            scale = np.abs(whole[path]).max()
            np.testing.assert_allclose(leaf, whole[path], atol=2e-3 * scale, err_msg=path)


def test_a_trial_is_measured_as_a_run_is_and_kept(inputs, tmp_path):
    from bench import Bench
    from kept import Trial

    plain, _ = trials = [Trial("full", 1e-3, 6, 3, strength) for strength in (0.0, 2.0)]
    bench = Bench(
        str(inputs.parent / "model"), tmp_path, str(inputs), workers=1, vectors=True, at_once=26
    )
    with jax.default_matmul_precision("highest"):
        found = bench.run(trials, {"2": ["first", "second"]}, negate=True)
    folder = bench.kept.folder
    for trial, facts in zip(trials, found, strict=True):
        shares = []
        for task in ("first", "second"):
            vector = load_tree(folder / "vectors" / trial.name / f"{task}.safetensors")
            leaves = select_matrices(vector, rules_for_part(vector, VISUAL_MATRICES)).values()
            values = [np.linalg.svd(m, compute_uv=False) for leaf in leaves for m in leaf]
            left = sum(np.linalg.norm(each**2 - 1) for each in values)
            shares.append(left / sum(len(each) ** 0.5 for each in values))
        assert facts["penalty_share"] == pytest.approx(np.mean(shares), rel=1e-4)
        right = np.load(folder / f"{trial.name}.npz")
        accuracies = {
            "single/first": facts["single"]["test"]["first"],
            "2/added/first": facts["addition"]["2"]["test"]["first"],
        }
        for key, accuracy in accuracies.items():
            count = facts["images"]["first"]
            assert np.unpackbits(right[key])[:count].mean() == pytest.approx(accuracy)
    assert found[0]["penalty_share"] > found[1]["penalty_share"]
    # Kept, and not run again; without negation a trial is no substitute for one with it.
    before = (folder / f"{plain.name}.json").stat().st_mtime_ns
    assert bench.run(trials, {}, negate=True) == found
    assert (folder / f"{plain.name}.json").stat().st_mtime_ns == before
    write_json(folder / f"{plain.name}.json", {**found[0], "negation": None})
    assert bench.kept.found(plain) and bench.kept.found(plain, negate=True) is None


def test_the_page_is_what_the_stored_trials_say(tmp_path, monkeypatch):
    """Of every mode with trials: modes that came later have none."""
    with tarfile.open(RESULTS / "regime_trials.tar.xz") as packed:
        packed.extraction_filter = getattr(tarfile, "data_filter", None)  # from 3.11.4 on
        packed.extractall(tmp_path)
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["page.py", "--workdir", str(tmp_path / "regime")])
    page.main()
    for name in ("regime.md", "regime.json"):
        assert (tmp_path / name).read_text() == (RESULTS / name).read_text()
