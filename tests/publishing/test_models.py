"""Fine-tuned models of others in: task vectors, merges and accuracies, by command and Python."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys

import huggingface_hub
import jax
import numpy as np
import pytest
import safetensors.numpy

import orthoreg_jax as oj
from orthoreg_jax import cli
from orthoreg_jax.clip import weights
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.tasks.catalogue import BENCHMARKS
from orthoreg_jax.tasks.experts import EXPERTS
from orthoreg_jax.trees import StoredTree
from tests.small_run import virtual_devices


@pytest.fixture(scope="module")
def base(inputs):
    return oj.load_checkpoint(inputs.parent / "model")


def tune(params, seed, size=0.02):
    """Other weights, near to these."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf + size * rng.normal(size=leaf.shape).astype(np.float32)),
        params,
    )


def vector_of(base, visual):
    return {"visual": jax.tree.map(np.subtract, visual, base.params["visual"])}


def write_tower(base, visual, directory, prefix=""):
    """As CLIPVisionModel saves it: no projection, no text tower, no tokenizer, no processor."""
    tensors = weights.to_layout(base.params | {"visual": visual}, "huggingface")
    kept = {key.replace("vision_model.", prefix): value for key, value in tensors.items()
            if key.startswith("vision_model.")}  # fmt: skip
    config = json.loads((base.directory / "config.json").read_text())["vision_config"]
    directory.mkdir()
    safetensors.numpy.save_file(kept, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture(scope="module")
def experts(base, tmp_path_factory):
    """Three models that hold different parts, and their vectors."""
    folder, tuned = tmp_path_factory.mktemp("experts"), [
        tune(base.params["visual"], seed) for seed in range(3)
    ]  # fmt: skip
    for visual in tuned[:2]:  # which save no projection
        visual["projection"] = base.params["visual"]["projection"]
    whole = base.params | {"visual": tuned[2]}
    paths = [
        write_tower(base, tuned[0], folder / "old", "vision_model."),
        write_tower(base, tuned[1], folder / "new"),
        oj.save_checkpoint(folder / "whole", whole, base),
    ]
    return list(map(str, paths)), [vector_of(base, visual) for visual in tuned]


def assert_same(ours, theirs, atol=0.0):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=atol, rtol=0)


def merge(base, out, *more):
    command = [
        "merge",
        "--base",
        str(base.directory),
        "--out",
        str(out),
        "--merger",
        "task_arithmetic",
    ]
    return cli.main([*command, *map(str, more)])


def test_task_vectors_of_models(base, experts):
    for path, vector in zip(*experts, strict=True):
        assert_same(oj.load_task_vector(path, base), vector)
    assert_same(oj.load_task_vector(experts[0][0], base.directory), experts[1][0])


def test_a_changed_text_tower_is_never_dropped_unsaid(base, tmp_path):
    both = tune(base.params, 5)
    path = oj.save_checkpoint(tmp_path / "both", both, base)
    found = oj.load_task_vector(path, base)
    assert_same(found, jax.tree.map(lambda a, b: np.asarray(a - b), both, base.params))
    assert_same(oj.load_task_vector(path, base, visual_only=True), {"visual": found["visual"]})


def test_vectors_of_adapters_are_their_updates(base, tmp_path):
    name = "vision_model.encoder.layers.1.self_attn.v_proj"
    width = base.config.visual.width
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=size).astype(np.float32) for size in ((3, width), (width, 3)))
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 6}')
    safetensors.numpy.save_file(
        {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b},
        tmp_path / "adapter_model.safetensors",
    )
    found = oj.load_task_vector(tmp_path, base)["visual"]
    kernel = found["blocks"]["attn"]["in_proj"]["kernel"]
    np.testing.assert_allclose(kernel[1, :, 2 * width :], 2 * (b @ a).T, atol=1e-5)
    kernel[1, :, 2 * width :] = 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(found))


def test_the_file_of_a_vector_knows_its_base(base, experts, tmp_path, capsys):
    paths, vectors = experts
    files = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path, file in zip(paths, files, strict=False):
        command = ["vector", "--model", path, "--base", str(base.directory), "--out", str(file)]
        assert cli.main(command) == 0
        said = capsys.readouterr()
        assert re.search(r"task vector of the image tower, 0\.\d+ times the norm", said.out)
        assert "projection and text tower and logit_scale taken from the base" in said.err
    assert_same(oj.load_tree(files[0]), vectors[0])
    about = StoredTree(files[0]).about
    assert about["pretrained_sha256"] == base.sha256 and about["model"] == paths[0]
    assert cli.main(command) == 1 and "already exists" in capsys.readouterr().err
    assert merge(base, tmp_path / "out", "--alpha", 0.5, "--vectors", *files) == 0
    added = oj.add_task_vectors(vectors[:2])
    expected = oj.apply_task_vector(base.params, added, 0.5)
    assert_same(oj.load_checkpoint(tmp_path / "out").params, expected, 2e-6)


def test_the_base_is_known_by_its_numbers_too(base, experts, tmp_path, capsys):
    """The same weights in another file are the same base; other weights are not."""
    copy = tmp_path / "copy"
    shutil.copytree(base.directory, copy)
    tensors = safetensors.numpy.load_file(copy / "model.safetensors")
    safetensors.numpy.save_file(tensors, copy / "model.safetensors", {"format": "np"})
    file, unknown = tmp_path / "a.safetensors", tmp_path / "unknown.safetensors"
    command = ["vector", "--base", str(copy), "--model", experts[0][0], "--out", str(file)]
    assert cli.main(command) == 0
    assert oj.load_checkpoint(copy).sha256 != base.sha256
    assert merge(base, tmp_path / "same", "--alpha", 1, "--vectors", file) == 0
    other = oj.save_checkpoint(tmp_path / "other", tune(base.params, 8), base)
    oj.save_tree(unknown, experts[1][0])
    capsys.readouterr()
    for more, message in (
        ((other, file), "was computed against other pre-trained weights"),
        ((base.directory, unknown), "does not record which weights it was computed against"),
    ):
        place = dataclasses.replace(base, directory=more[0])
        arguments = ("--alpha", 1, "--vectors", more[1])
        assert merge(place, tmp_path / "x", *arguments) == 1
        said = capsys.readouterr().err
        assert f"{more[1]}: {message}" in said and "--any-base" in said
        assert not (tmp_path / "x").exists()
        assert merge(place, tmp_path / f"any{more[1].name}", *arguments, "--any-base") == 0
        assert f"{message}" in capsys.readouterr().err
        card = (tmp_path / f"any{more[1].name}" / "README.md").read_text()
        assert message in card and "merged anyway" in card


@pytest.mark.parametrize("merger", ["task_arithmetic", "tsv_m", "iso_c", "ties"])
def test_merge_of_models_is_the_merge_of_their_vectors(base, experts, tmp_path, capsys, merger):
    paths, vectors = experts
    out = tmp_path / "out"
    more = ["--merger", merger, "--alpha", "0.7", "--models", *paths]
    assert merge(base, out, *more) == 0
    made = {"task_arithmetic": oj.task_arithmetic(), "tsv_m": oj.tsv_m(), "iso_c": oj.iso_c(),
            "ties": oj.ties()}[merger]  # fmt: skip
    merged = oj.merge_task_vectors(vectors, made, matrices=oj.VISUAL_MATRICES)
    expected = oj.apply_task_vector(base.params, merged, 0.7)
    found = oj.load_checkpoint(out)
    assert_same(found.params, expected, 1e-5)
    card = (out / "README.md").read_text()
    assert "whose image tower merges 3 task vectors" in card
    assert "The text tower is the pre-trained one." in card
    assert all(f"`{path}`" in card for path in paths)
    assert (out / "tokenizer.json").is_file() and (out / "preprocessor_config.json").is_file()
    assert "note: " in capsys.readouterr().err


def test_alpha_chosen_on_validation(base, experts, inputs, tmp_path, capsys):
    given = ["--data", str(inputs.parent), "--tasks", "first,second"]
    out = tmp_path / "out"
    assert merge(base, out, "--models", *experts[0][:2], *given) == 0
    card = (out / "README.md").read_text()
    alpha = float(re.search(r"θ₀ \+ ([\d.]+) · task_arithmetic\(τ_first, τ_second\)", card)[1])
    tasks = oj.load_tasks(str(inputs.parent), ["first", "second"], "others")
    both = {name: tasks[name] for name in ("first", "second")}
    added = oj.add_task_vectors(experts[1][:2])

    def validation(at):
        params = oj.apply_task_vector(base.params, added, at)
        return np.array(list(oj.measure_accuracies(base, params, both, "val").values()))

    single = np.array([
        oj.measure_accuracy(base, oj.apply_task_vector(base.params, vector), task, "val")
        for vector, task in zip(experts[1][:2], both.values(), strict=True)
    ])  # fmt: skip
    assert (single > 0).all()
    best = (validation(alpha) / single).mean()
    assert all(best >= (validation(at) / single).mean() - 1e-9 for at in (0, alpha / 8, alpha * 8))
    # The hub's metadata hold the same numbers.
    data = huggingface_hub.ModelCard.load(out / "README.md").data
    assert data.tags == ["clip", "task-arithmetic", "model-merging"] and data.base_model is None
    shown = {each.dataset_name: each.metric_value for each in data.eval_results}
    assert {title: f"{100 * value:.2f}" for title, value in shown.items()} == dict(
        re.findall(r"^\| (.+?) \| .* \| ([\d.]+) \|$", card, re.M)
    )
    # The card says what command and Python measure on the files.
    capsys.readouterr()
    assert cli.main(["measure", "--model", str(out), *given]) == 0
    said, found = capsys.readouterr().out, oj.load_checkpoint(out)
    for name, accuracy in oj.measure_accuracies(found, found.params, both).items():
        assert re.search(rf"{name} +36 +{100 * accuracy:.2f}", said)
        assert f"{100 * accuracy:.2f} |" in card


def test_both_towers(base, experts, inputs, tmp_path, capsys):
    """The card tells the truth, and Python measures what the command does."""
    both = tune(base.params, 5, 0.2)
    path = oj.save_checkpoint(tmp_path / "both", both, base)
    models = ["--models", experts[0][0], path]
    assert merge(base, tmp_path / "out", *models, "--alpha", 1) == 0
    assert f"{path}: the text tower changed, too" in capsys.readouterr().err
    card = (tmp_path / "out" / "README.md").read_text()
    assert "whose towers merge 2 task vectors" in card and "pre-trained one" not in card
    vector = oj.load_task_vector(path, base)
    vector["visual"] = oj.add_task_vectors([vector["visual"], experts[1][0]["visual"]])
    params = oj.apply_task_vector(base.params, vector)
    assert_same(oj.load_checkpoint(tmp_path / "out").params, params, 2e-6)
    tasks = oj.load_tasks(str(inputs.parent), ["first"], "others")
    accuracy = oj.measure_accuracy(base, params, tasks["first"])
    command = ["measure", "--model", str(tmp_path / "out"), "--data", str(inputs.parent)]
    assert cli.main([*command, "--tasks", "first"]) == 0
    assert re.search(rf"first +36 +{100 * accuracy:.2f}", capsys.readouterr().out)
    # Its heads are not the pre-trained ones, on which that would be another number.
    assert not np.array_equal(
        oj.zero_shot_head(base, ["a", "b"], ["a {}"]),
        oj.zero_shot_head(dataclasses.replace(base, params=params), ["a", "b"], ["a {}"]),
    )
    assert merge(base, tmp_path / "y", *models, "--data", inputs.parent, "--tasks", "first,second")
    assert "--alpha: give a value; these vectors change the text tower" in capsys.readouterr().err
    assert merge(base, tmp_path / "visual", *models, "--alpha", 1, "--visual-only") == 0
    assert "changes to the text tower are ignored" in capsys.readouterr().err
    text = oj.load_checkpoint(tmp_path / "visual").params["text"]
    assert_same(text, base.params["text"])


def test_models_that_preprocess_otherwise_are_refused(base, experts, tmp_path, capsys):
    directory = shutil.copytree(experts[0][1], tmp_path / "laion")
    (directory / "processor_config.json").write_text(
        json.dumps({"image_processor": {"size": 32, "crop_size": 32, "image_std": [0.1, 0.2, 0.3]}})
    )
    assert merge(base, tmp_path / "x", "--models", directory, "--alpha", 1) == 1
    said = capsys.readouterr().err
    assert f"{directory}: preprocesses images differently from the base" in said
    assert "image_std (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("models, more, message", [
    (["none"], [], "model 'none': no such directory; allowed: "),
    (["{0}"], ["--base", "embedded"], "was not fine-tuned from that base: width is 32, the base"),
    (["{0}"], ["--any-base"], "--any-base: cannot be combined with --models, which takes --base"),
])  # fmt: skip
def test_bad_requests(base, experts, tmp_path, capsys, models, more, message):
    paths = [each.format(*experts[0]) for each in models]
    assert merge(base, tmp_path / "x", "--models", *paths, "--alpha", 1, *more) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_hub_names_with_revisions_from_the_cache(base, experts, tmp_path, monkeypatch):
    """In the hub's own layout of files, without a network."""
    cache = tmp_path / "hub"
    for name, source in (("me--base", base.directory), ("me--expert", experts[0][1])):
        snapshot = cache / f"models--{name}" / "snapshots" / ("c0ffee" * 7)[:40]
        shutil.copytree(source, snapshot)
        refs = cache / f"models--{name}" / "refs"
        refs.mkdir()
        for ref in ("main", "v2"):
            (refs / ref).write_text(snapshot.name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = oj.load_task_vector("me/expert@v2", "me/base")
    assert_same(found, experts[1][1])
    out = tmp_path / "out"
    command = ["merge", "--models", "me/expert@v2", "me/expert", "--base", "me/base@v2"]
    assert cli.main([*command, "--merger", "average", "--alpha", "1", "--out", str(out)]) == 0
    expected = oj.apply_task_vector(base.params, experts[1][1])
    assert_same(oj.load_checkpoint(out).params, expected, 2e-6)
    card = (out / "README.md").read_text()
    assert "base_model: me/base\n" in card
    assert f"`me/expert@v2` at revision `{('c0ffee' * 7)[:40]}`" in card


def test_published_experts_by_the_names_of_tasks(base, experts, tmp_path, monkeypatch, capsys):
    """From the hub's cache, as they lie there; the small base stands in for OpenAI's."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    small = {
        "fusionbench/ViT-B/32": EXPERTS["fusionbench/ViT-B/32"]._replace(base=str(base.directory))
    }
    monkeypatch.setattr("orthoreg_jax.tasks.experts.EXPERTS", small)
    for name, source in zip(("sun397", "stanford-cars"), experts[0][:2], strict=True):
        folder = tmp_path / f"models--tanganke--clip-vit-base-patch32_{name}"
        shutil.copytree(source, folder / "snapshots" / ("ab" * 20))
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("ab" * 20)
    command = [
        "merge",
        "--experts",
        "fusionbench/ViT-B/32",
        "--merger",
        "task_arithmetic",
        "--alpha",
        "0.3",
    ]
    command += ["--alpha", "0.3"]
    assert cli.main([*command, "--tasks", "sun397,cars", "--out", str(tmp_path / "out")]) == 0
    added = oj.add_task_vectors(experts[1][:2])
    expected = oj.apply_task_vector(base.params, added, 0.3)
    assert_same(oj.load_checkpoint(tmp_path / "out").params, expected, 2e-6)
    assert "clip-vit-base-patch32_stanford-cars" in (tmp_path / "out" / "README.md").read_text()
    for more, message in (
        (["--tasks", "sun397,emnist"], "has models of cars, cifar10"),
        ([], "--tasks none: fusionbench/ViT-B/32 has models of"),
        (["--base", "embedded"], "--base: cannot be combined with --experts, which takes --d"),
    ):
        assert cli.main([*command, *more, "--out", str(tmp_path / "x")]) == 1
        assert message in capsys.readouterr().err
    command[2] = "fusionbench/RN50"
    assert cli.main([*command, "--tasks", "dtd", "--out", str(tmp_path / "x")]) == 1
    assert "--experts fusionbench/RN50: allowed are" in capsys.readouterr().err


def test_the_table_of_experts_has_tasks_of_the_field():
    for name, (base, models) in EXPERTS.items():
        assert name == f"fusionbench/{base}" and base in PRESETS
        assert {*BENCHMARKS[14]} <= models.keys() and {*BENCHMARKS[20]} - models.keys() == {
            "emnist"
        }
        assert len({*models.values()}) == len(models) == 19


def test_measure_rounds_its_batches_on_three_devices(inputs):
    code = f"""
import sys, jax
from orthoreg_jax import cli
assert jax.device_count() == 3
sys.exit(cli.main(["measure", "--model", {str(inputs.parent / "model")!r}, "--data",
                   {str(inputs.parent)!r}, "--tasks", "first"]))
"""
    environment = os.environ | virtual_devices(3)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    base = oj.load_checkpoint(inputs.parent / "model")
    task = oj.load_tasks(str(inputs.parent), ["first"], "others")["first"]
    accuracy = oj.measure_accuracy(base, base.params, task)
    assert re.search(rf"first +36 +{100 * accuracy:.2f}", done.stdout)
