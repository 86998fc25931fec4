"""Every reader on damaged files: a clear error or the right content, never anything else."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from orthoreg_jax.clip.checkpoint import load_checkpoint, save_checkpoint
from orthoreg_jax.clip.config_files import read_config
from orthoreg_jax.clip.preprocessing import load_preprocessing, tokenize
from orthoreg_jax.config import default_config, flatten_config, load_config, override
from orthoreg_jax.evaluation.results_file import read_results
from orthoreg_jax.experiment import evaluation, run_folder, setup
from orthoreg_jax.experiment.vectors import load_task_vectors
from orthoreg_jax.publishing.export import choose_edit, make_card
from orthoreg_jax.publishing.finished_run import find_run
from orthoreg_jax.reporting.report import read_metrics, summary_text
from orthoreg_jax.storage import StorageError, write_sealed
from orthoreg_jax.tasks.folder import FileImages
from orthoreg_jax.tasks.task import load_tasks
from orthoreg_jax.training.finetune import _lines_before
from orthoreg_jax.training.saved_states import StateFolder
from orthoreg_jax.training.step import TrainState
from orthoreg_jax.trees import StoredTree, load_tree, save_tree
from tests.clip.test_parity import FIXTURES
from tests.reporting.conftest import make_results

CASES = 160


def damage(data, rng):
    """One of: cut short, bits flipped, bytes overwritten, a piece doubled, a huge number."""
    data = bytearray(data)
    kind, place = rng.integers(5), int(rng.integers(len(data)))
    if kind == 0:
        del data[place:]
    elif kind == 1:
        for spot in rng.integers(len(data), size=rng.integers(1, 4)):
            data[spot] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        data[place : place + 8] = rng.bytes(8)
    elif kind == 3:
        data[place:place] = data[place : place + 40]
    else:
        data[:8] = (2 ** int(rng.integers(8, 63))).to_bytes(8, "little")
    return bytes(data)


def lose(path, rng):
    """A file is damaged, or gone; a folder is empty, gone, or a file."""
    kind = rng.integers(3)
    if path.is_file():
        data = path.read_bytes()
        path.unlink()
        if kind:
            path.write_bytes(damage(data, rng))
    else:
        shutil.rmtree(path)
        if kind == 0:
            path.mkdir()
        elif kind == 1:
            path.write_text("")


def fuzz(path, read, same=None, cases=CASES):
    """Reads a file in many damaged forms; `same` says whether what was read is right."""
    whole = path.read_bytes()
    read()
    rng, refused = np.random.default_rng(0), 0
    for case in range(cases):
        path.write_bytes(damaged := damage(whole, rng))
        try:
            found = read()
        except (ValueError, StorageError) as error:
            named = any(name in str(error) for name in (path.stem, path.parent.name))
            assert len(str(error)) > 20 and named, (case, str(error))
            refused += 1
        else:
            assert same is None or damaged == whole or same(found), case
    path.write_bytes(whole)
    assert refused > cases / 4  # the damage is real


def test_trees(tmp_path):
    tree = {"a": {"w": np.random.default_rng(0).normal(size=(9, 4))}, "b": np.arange(5)}
    path = tmp_path / "tree.safetensors"
    save_tree(path, tree)

    def same(found):
        return np.array_equal(found["a"]["w"], tree["a"]["w"]) and np.array_equal(
            found["b"], tree["b"]
        )

    fuzz(path, lambda: load_tree(path), same)


def test_trees_read_leaf_by_leaf(tmp_path):
    tree = {"w": np.random.default_rng(0).normal(size=(9, 4)), "b": np.arange(5)}
    path = tmp_path / "tree.safetensors"
    save_tree(path, tree)

    def read():
        stored = StoredTree(path)
        stored.check()
        return {name: stored.read(name) for name in stored.shapes}

    fuzz(path, read, lambda found: all(np.array_equal(found[name], tree[name]) for name in tree))


@pytest.fixture
def tasks(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        f"{split}_{kind}": values
        for split in ("train", "val", "test")
        for kind, values in (
            ("images", rng.integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)),
            ("labels", np.array([0, 1, 2, 0, 1, 2])),
        )
    }
    np.savez(tmp_path / "mine.npz", **arrays)
    entry = {"title": "Mine", "classes": ["a", "b", "c"], "templates": ["a {}"]}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))
    return tmp_path, arrays


def test_task_arrays(tasks):
    folder, arrays = tasks

    def same(found):
        splits = found["mine"].splits
        return all(
            np.array_equal(splits[split].images.array, arrays[f"{split}_images"])
            and np.array_equal(splits[split].labels, arrays[f"{split}_labels"])
            for split in splits
        )

    fuzz(folder / "mine.npz", lambda: load_tasks(str(folder), ["mine"]), same)


def test_task_table(tasks):
    folder, _ = tasks
    fuzz(folder / "tasks.json", lambda: load_tasks(str(folder), ["mine"]))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_images(tmp_path, suffix):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / f"picture.{suffix}")
    images = FileImages(tmp_path, (f"picture.{suffix}",))
    # A JPEG holds nothing by which to tell changed pixels.
    same = None if suffix == "jpg" else lambda found: np.array_equal(found, pixels)
    fuzz(tmp_path / f"picture.{suffix}", lambda: images[0], same)


def test_lists_of_images(tmp_path):
    lines = []
    for place in ("owl", "fox"):
        (tmp_path / "mine" / place).mkdir(parents=True)
        for number in range(4):
            lines.append(f"{place}/{place}{number}.png")
            PIL.Image.new("RGB", (4, 4)).save(tmp_path / "mine" / lines[-1])
    for split in ("train", "val", "test"):
        (tmp_path / "mine" / f"{split}.txt").write_text("\n".join(lines))
    entry = {"folder": "mine", "templates": ["a {}"], "labels": ["fox", "owl"]}
    (tmp_path / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))
    fuzz(tmp_path / "mine" / "val.txt", lambda: load_tasks(str(tmp_path), ["mine"]))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_models(tmp_path, name):
    model = shutil.copytree(FIXTURES / "gelu_patch4", tmp_path / "model")
    fuzz(model / name, lambda: load_checkpoint(model))


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_companions_of_a_model(tmp_path, name):
    embedded = load_checkpoint("embedded")
    model = save_checkpoint(tmp_path / "model", embedded.params, embedded)

    def read():
        load_preprocessing(model, embedded.config)
        tokenize(["a photo of a fox"], model, embedded.config)

    fuzz(model / name, read, cases=CASES // 4 if name == "tokenizer.json" else CASES)


@pytest.mark.parametrize("name", [
    "processor_config.json", "model.safetensors.index.json", "model-2.safetensors",
])  # fmt: skip
def test_models_in_shards_with_a_nested_processor(tmp_path, name):
    model = shutil.copytree(FIXTURES / "gelu_patch4", tmp_path / "model")
    tensors = safetensors.numpy.load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names, places = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        places |= dict.fromkeys(part, f"model-{number}.safetensors")
        safetensors.numpy.save_file({key: tensors[key] for key in part}, model / places[part[0]])
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    values = {"size": {"shortest_edge": 12}, "crop_size": 12, "image_std": [0.5, 0.4, 0.3]}
    (model / "processor_config.json").write_text(json.dumps({"image_processor": values}))
    fuzz(model / name, lambda: load_checkpoint(model).preprocessing)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters(tmp_path, name):
    base, layer = load_checkpoint(FIXTURES / "gelu_patch4"), "vision_model.encoder.layers.0"
    width = base.config.visual.width
    factors = {"A": np.ones((2, width), np.float32), "B": np.ones((width, 2), np.float32)}
    safetensors.numpy.save_file(
        {f"base_model.model.{layer}.self_attn.q_proj.lora_{key}.weight": factor
         for key, factor in factors.items()}, tmp_path / "adapter_model.safetensors",
    )  # fmt: skip
    options = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_rslora": False,
               "alpha_pattern": {"q_proj": 2}, "fan_in_fan_out": False}  # fmt: skip
    (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    fuzz(tmp_path / name, lambda: load_checkpoint(tmp_path, base))


def test_configurations_of_open_clip(tmp_path):
    sizes = {"width": 64, "layers": 2}
    model = {"embed_dim": 32, "vision_cfg": sizes | {"image_size": 32, "patch_size": 8},
             "text_cfg": sizes | {"heads": 2, "vocab_size": 99, "context_length": 16}}  # fmt: skip
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.2], "interpolation": "bicubic"}
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model, "preprocess_cfg": preprocess})
    )
    fuzz(
        tmp_path / "open_clip_config.json",
        lambda: load_preprocessing(tmp_path, read_config(tmp_path)),
    )


def test_results(tmp_path):
    write_sealed(tmp_path / "results.json", make_results())
    whole = summary_text(tmp_path)
    fuzz(tmp_path / "results.json", lambda: summary_text(tmp_path), lambda text: text == whole)


def test_metrics(tmp_path):
    results = make_results()
    path = tmp_path / "full" / "seed0" / "a" / "metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"step": n, "loss": 1.0}) + "\n" for n in range(9)))
    fuzz(path, lambda: read_metrics(tmp_path, results))


def test_run_folder(tmp_path):
    config = default_config()
    text = json.dumps(flatten_config(config))
    (tmp_path / "config.json").write_text(text)
    fuzz(tmp_path / "config.json", lambda: run_folder.check_folder(config, tmp_path))


def test_files_of_a_run(finished, inputs, tmp_path, monkeypatch):
    """What a run reads again of its own folder."""
    folder = shutil.copytree(finished, tmp_path / "run")
    config = load_config(inputs)
    experiment = setup.prepare(config, folder)
    monkeypatch.setattr(setup, "prepare", lambda config, folder: experiment)
    (method, _), task_folder = experiment.methods, experiment.task_folder("full", 3, "first")

    def measure_again(*_):
        raise ValueError(f"{method.name} seed3 is measured again")

    monkeypatch.setattr(evaluation, "load_vectors", measure_again)

    def open_again():
        run_folder.check_inputs(experiment)
        run_folder.open_folder(experiment)

    evaluator = evaluation.make_evaluator(experiment, method.mode.outputs)

    def numbers():
        return evaluation._evaluate_or_read(experiment, evaluator, {}, {}, method, 3)[0]

    found = numbers()
    fuzz(folder / "config.json", lambda: setup.reopen(folder))
    fuzz(folder / "config.json", lambda: load_task_vectors(folder, "full"))
    fuzz(folder / "provenance.json", open_again)
    fuzz(
        folder / "full" / "seed3" / "evaluation.json",
        numbers,
        lambda again: again == found,
    )
    fuzz(task_folder / "metrics.jsonl", lambda: _lines_before(task_folder / "metrics.jsonl", 4))


def test_results_that_are_exported(tmp_path):
    results = make_results()
    for facts in results["provenance"]["inputs"]["tasks"].values():
        facts["splits"]["train"] = facts["splits"]["val"]
    results["provenance"]["versions"] |= {"jax": "1", "flax": "1"}
    write_sealed(tmp_path / "results.json", results)
    embedded = load_checkpoint("embedded")

    def read():
        results = read_results(tmp_path)
        run = find_run(results, "full", None)
        edit = choose_edit(results, run, (), "", None)
        return make_card(results, run, edit, embedded).format()

    fuzz(tmp_path / "results.json", read)


def test_overrides():
    """Of options, as the command line gives them."""
    whole, rng, refused = b"evaluation.alphas=0.0,0.5,1.0", np.random.default_rng(0), 0
    for _ in range(CASES):
        text = damage(whole, rng).decode("utf-8", "replace")
        try:
            override(default_config(), [text])
        except ValueError as error:
            assert len(str(error)) > 20
            refused += 1
    assert refused > CASES / 4


def test_config_files(tmp_path):
    path = tmp_path / "config.py"
    path.write_bytes(pathlib.Path("configs/embedded.py").read_bytes())
    fuzz(path, lambda: load_config(path))


# Orbax leaves tasks behind that end in an exception which nobody sees.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_states(tmp_path):
    """What orbax saved comes back as it was, or as it was in the state before, or not at all."""
    rng = np.random.default_rng(0)

    def state(step):
        leaves = {"w": jnp.array(rng.normal(size=(40, 30)), jnp.float32), "b": jnp.ones(3)}
        return TrainState(jnp.int32(step), jnp.array(True), leaves, (jnp.int32(step),))

    saved = {step: state(step) for step in (2, 4)}
    with StateFolder(tmp_path / "whole", keep=2) as folder:
        for each in saved.values():
            folder.save(each)
    fell_back = 0
    for case in range(CASES // 2):
        copy = shutil.copytree(tmp_path / "whole", tmp_path / f"{case}")
        paths = sorted([copy / "4", *(copy / "4").rglob("*")])
        victim = paths[rng.integers(len(paths))]
        lose(victim, rng)
        with StateFolder(copy, keep=2) as folder:
            found = folder.restore(state(0))
        for ours, theirs in zip(
            jax.tree.leaves(found), jax.tree.leaves(saved[int(found.step)]), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs, err_msg=str(victim))
        fell_back += int(found.step) == 2
        shutil.rmtree(copy)
    assert fell_back > CASES / 16


def test_nothing_is_pickled():
    package = pathlib.Path(__file__).parents[1]
    files = [*package.glob("orthoreg_jax/**/*.py"), *package.glob("experiments/**/*.py")]
    assert len(files) > 80
    for path in files:
        text = path.read_text()
        for word in ("import pickle", "from pickle", "joblib", "dill", "allow_pickle=True",
                     "weights_only=False"):  # fmt: skip
            assert word not in text or path.name == "scans.py", f"{path}: {word}"
