"""Models that were fine-tuned elsewhere: from directories to the report, and never trained."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

import orthoreg_jax as oj
from orthoreg_jax import cli
from orthoreg_jax.config import default_config, validate
from orthoreg_jax.evaluation.results_file import read_results
from orthoreg_jax.experiment.vectors import vector_path
from tests.small_run import orthoreg


@pytest.fixture(scope="module")
def base(inputs):
    return oj.load_checkpoint(inputs.parent / "model")


def tuned(base, seed, part="visual"):
    rng = np.random.default_rng(seed)
    changed = jax.tree.map(
        lambda leaf: np.asarray(leaf + 0.02 * rng.normal(size=leaf.shape).astype(np.float32)),
        base.params[part],
    )
    return base.params | {part: changed}


@pytest.fixture(scope="module")
def models(base, tmp_path_factory):
    """A whole model without a new projection, and an adapter of one matrix."""
    folder = tmp_path_factory.mktemp("given")
    params = tuned(base, 1)
    params["visual"] |= {"projection": base.params["visual"]["projection"]}
    oj.save_checkpoint(folder / "whole", params, base)
    width = base.config.visual.width
    rng = np.random.default_rng(2)
    name = "base_model.model.vision_model.encoder.layers.0.mlp.fc1"
    size = base.config.visual.mlp_width
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"peft_type":"LORA","lora_alpha":2}')
    safetensors.numpy.save_file(
        {
            f"{name}.lora_A.weight": rng.normal(size=(2, width)).astype(np.float32),
            f"{name}.lora_B.weight": 0.1 * rng.normal(size=(size, 2)).astype(np.float32),
        },
        folder / "adapter" / "adapter_model.safetensors",
    )
    return {"first": str(folder / "whole"), "second": str(folder / "adapter")}


def run(config, workdir, models, *more):
    entries = [f"{task}={model}" for task, model in models.items()]
    return orthoreg("run", config, workdir, "--models", *entries, *more)


@pytest.fixture(scope="module")
def measured(inputs, models, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "given"
    assert run(inputs, workdir, models) == 0
    return workdir


def test_vectors_are_the_models_differences(measured, models, base):
    vectors = oj.load_task_vectors(measured, "given")
    for task, model in models.items():
        expected = oj.load_task_vector(model, base)["visual"]
        assert expected.pop("projection")["kernel"].any() == 0  # which neither of them changes
        ours = vectors[task]["visual"]
        assert jax.tree.structure(ours) == jax.tree.structure(expected)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_report_has_every_figure_but_training(measured, models):
    names = {path.stem for path in (measured / "plots").glob("*.svg")}
    assert names == {"addition", "tasks", "negation", "disentanglement", "cosines", "angles",
                     "singular_values", "norms"}  # fmt: skip
    page = (measured / "report.html").read_text()
    for text in ("were fine-tuned elsewhere", "no training curve", "Given models", "one given mod",
                 *models.values()):  # fmt: skip
        assert text in page
    assert " steps of " not in page and "learning rate" not in page
    (measured_run,) = read_results(measured)["runs"]
    assert {task: each["name"] for task, each in measured_run["models"].items()} == models
    assert all(len(each["sha256"]) == 64 for each in measured_run["models"].values())


def test_the_accuracy_alone_is_that_of_the_model(measured, models, base, inputs, capsys):
    """By the command that measures any model."""
    command = ["measure", "--base", str(base.directory), "--data", str(inputs.parent)]
    assert cli.main([*command, "--model", models["second"], "--tasks", "second"]) == 0
    single = read_results(measured)["runs"][0]["single"]["test"]["second"]
    assert f"{100 * single:.2f}" in capsys.readouterr().out


def test_finetune_keeps_what_is_there(measured, models, inputs, tmp_path, monkeypatch):
    workdir = shutil.copytree(measured, tmp_path / "run")
    path = vector_path(workdir, "given", 3, "first")
    content, time = path.read_bytes(), path.stat().st_mtime_ns
    missing = vector_path(workdir, "given", 3, "second")
    kept = missing.read_bytes()
    missing.unlink()
    assert run(inputs, workdir, models) == 0  # the one that is missing is read again
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (content, time)
    assert missing.read_bytes() == kept
    assert not list(workdir.glob("given/**/metrics.jsonl"))


def test_another_model_is_refused_in_the_same_folder(measured, models, inputs, capsys):
    assert run(inputs, measured, models | {"first": models["second"]}) == 1
    assert "contains a run with another config (given was" in capsys.readouterr().err


def test_beside_methods_of_its_own(measured, models, inputs, tmp_path):
    workdir = shutil.copytree(measured, tmp_path / "run")
    given = ",".join(f"{task}={model}" for task, model in models.items())
    options = [f"--config.given={given}", "--config.methods=given,full"]
    assert orthoreg("run", inputs, workdir, *options) == 0
    page = (workdir / "report.html").read_text()
    assert "Given models were fine-tuned elsewhere" in page
    assert "was fine-tuned on each of 2 tasks separately, for 6 steps of 8 images" in page
    assert (workdir / "plots" / "training.svg").is_file()


def test_exports_and_merges_do_not_invent_a_training(measured, models, tmp_path):
    common = ["--workdir", str(measured), "--method", "given"]
    for command in (["export"], ["merge", "--merger", "tsv_m", "--alpha", "1"]):
        out = tmp_path / command[0]
        assert cli.main([*command, *common, "--out", str(out)]) == 0
        card = (out / "README.md").read_text()
        assert "models that were fine-tuned elsewhere" in card and models["first"] in card
        assert "learning rate" not in card and "training images" not in card


def test_vector_files(base, models, inputs, tmp_path):
    file = tmp_path / "first.safetensors"
    command = ["vector", "--base", str(base.directory), "--model", models["first"]]
    assert cli.main([*command, "--out", str(file)]) == 0
    workdir = tmp_path / "run"
    config = oj.load_config(inputs, [
        "methods=given", f"given=first={file},second={models['second']}",
    ])  # fmt: skip
    oj.run_experiment(config, workdir, ["finetune"])
    ours = oj.load_task_vectors(workdir, "given")["first"]["visual"]["class_embedding"]
    theirs = oj.load_task_vector(models["first"], base)["visual"]["class_embedding"]
    np.testing.assert_array_equal(ours, theirs)


def test_what_does_not_fit_is_refused_at_once(base, models, inputs, tmp_path, capsys):
    """All in one message, before anything is written."""
    whole = base.params | {"text": tuned(base, 4, "text")["text"]}
    text = oj.save_checkpoint(tmp_path / "text", whole, base)
    other = oj.save_checkpoint(tmp_path / "other", tuned(base, 3), base)
    path = other / "preprocessor_config.json"
    changed = json.loads(path.read_text()) | {"image_mean": [0.4, 0.4, 0.4]}
    path.write_text(json.dumps(changed))
    unknown = tmp_path / "unknown.safetensors"
    oj.save_tree(unknown, {"visual": base.params["visual"]})
    cases = [
        (text, "first: .*changes the text tower, too, but .*orthoreg vector --visual-only"),
        (other, "first: .*preprocesses images differently from the base .*image_mean"),
        (unknown, "first: .*does not record which weights it was computed against"),
        (base.directory, "first: .*equals its base; give the fine-tuned model"),
        (tmp_path / "none", "first: model .*: no such directory"),
    ]
    for model, message in cases:
        assert run(inputs, tmp_path / "run", models | {"first": str(model)}) == 1
        assert re.search(message, capsys.readouterr().err), message
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options, message", [
    (["--models", "mnist"], "--models mnist: write TASK=MODEL"),
    (["--models", "mnist=x"], "--base: give the CLIP"),
    (["--models", "mnist=x", "--experts", "y"], "give only one of them"),
    (["--base", "x"], "--base: for --models or --experts, which are missing"),
    ([], "give --config; or --models TASK=MODEL"),
    (["--models", "a=x", "--base", "embedded", "--tasks", "a"], "--tasks: for --experts only"),
    (["--models", "a=x", "a=y", "--base", "embedded"], "tasks is .*all different"),
    (["--experts", "fusionbench/ViT-B/32", "--tasks", "none"], "has models of cars"),
])  # fmt: skip
def test_options(options, message, tmp_path, capsys):
    assert cli.main(["run", "--workdir", str(tmp_path / "run"), *options]) == 1
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize("given, methods, seeds, message", [
    (("mnist=x",), ("given",), (0,), "given is .*once for each of `tasks`"),
    ((), ("given",), (0,), "given is .*TASK=MODEL for each of `tasks` with the method given"),
    (("mnist=x", "fashion_mnist="), ("given",), (0,), "given is"),
    (("mnist=x", "fashion_mnist=y"), ("given",), (0, 1), "seeds is .*one seed"),
    (("mnist=x", "fashion_mnist=y"), ("given+orthoreg",), (0,), "methods is .*or given"),
])  # fmt: skip
def test_configs(given, methods, seeds, message):
    config = default_config()
    config.given, config.methods, config.seeds = given, methods, seeds
    with pytest.raises(ValueError, match=message):
        validate(config)
