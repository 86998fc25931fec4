"""Models out, in every layout: tensor by tensor, and read back by our own reader."""

import dataclasses
import inspect
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip import weights
from orthoreg_jax.clip.checkpoint import save_edited
from orthoreg_jax.clip.config import LEGACY_EOS
from orthoreg_jax.clip.open_clip import from_open_clip, to_open_clip
from orthoreg_jax.clip.processor import defaults, read_processor, to_preprocess_cfg
from orthoreg_jax.clip.saving import OUTPUTS, PROJECTION


@pytest.fixture(scope="module")
def base(inputs, tmp_path_factory):
    """As OpenAI's: the end of a text is its largest id, which open_clip takes for granted."""
    model = oj.load_checkpoint(inputs.parent / "model")
    text = dataclasses.replace(model.config.text, eos_token_id=LEGACY_EOS)
    like = dataclasses.replace(model, config=dataclasses.replace(model.config, text=text))
    path = oj.save_checkpoint(tmp_path_factory.mktemp("saving") / "base", model.params, like)
    return oj.load_checkpoint(path)


@pytest.fixture(scope="module")
def params(base):
    """Other numbers in every leaf."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.asarray(leaf + rng.normal(size=leaf.shape).astype(np.float32)), base.params
    )


@pytest.mark.parametrize("layout", OUTPUTS)
def test_round_trip(layout, base, params, tmp_path):
    path = oj.save_checkpoint(tmp_path / "out", params, base, layout=layout)
    found = oj.load_checkpoint(path, base)
    held = OUTPUTS[layout].holds
    for name, leaf in flatten(found.params).items():
        theirs = params if held(name) else base.params
        np.testing.assert_array_equal(leaf, flatten(theirs)[name])
    assert found.preprocessing.normalize == base.preprocessing.normalize
    size = base.config.visual.image_size
    theirs = read_processor(base.preprocessing_directory, size).values
    assert read_processor(path, size).values == theirs
    assert (path / "tokenizer.json").is_file() == held("logit_scale")
    if held("logit_scale"):
        assert oj.load_checkpoint(path).params.keys() == params.keys()
    else:
        with pytest.raises(ValueError, match="an image tower alone"):
            oj.load_checkpoint(path)


@pytest.mark.parametrize("layout, prefix, last", [
    ("vision", "vision_model.", None),
    ("vision-bare", "", None),
    ("vision-projection", "vision_model.", "visual_projection.weight"),
])  # fmt: skip
def test_keys_of_image_towers_are_transformers(layout, prefix, last, base, params, tmp_path):
    """By the table's names, and the class that the configuration states."""
    path = oj.save_checkpoint(tmp_path / "out", params, base, layout=layout)
    whole = weights.to_layout(params, "huggingface")
    tower = {name: each for name, each in whole.items() if name.startswith("vision_model.")}
    expected = {name.replace("vision_model.", prefix): each for name, each in tower.items()}
    if last:
        expected[last] = whole[last]
    found = safetensors.numpy.load_file(path / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)
    config = json.loads((path / "config.json").read_text())
    assert config["model_type"] == "clip_vision_model"
    assert config["architectures"] == [OUTPUTS[layout].kind]
    assert {each.name for each in path.iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json"
    }  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types(dtype, base, params, tmp_path):
    import ml_dtypes

    kind = getattr(ml_dtypes, dtype, dtype)
    path = oj.save_checkpoint(tmp_path / "out", params, base, np.dtype(kind))
    tensors = safetensors.numpy.load_file(path / "model.safetensors")
    expected = weights.to_layout(params, "huggingface")
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == kind
        np.testing.assert_array_equal(tensors[name], tensor.astype(kind))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, bool, np.complex64, None, "fp16", "<U3"])
def test_types_that_would_not_be_read_are_refused(dtype, base, tmp_path):
    with pytest.raises(ValueError, match="dtype is .*; allowed are float16, bfloat16, float32, fl"):
        oj.save_checkpoint(tmp_path / "out", base.params, base, dtype)
    assert not any(tmp_path.iterdir())


def test_byte_orders_are_those_of_files(base, params, tmp_path):
    path = oj.save_checkpoint(tmp_path / "out", params, base, ">f4")
    found = flatten(oj.load_checkpoint(path).params)
    for name, leaf in flatten(params).items():
        np.testing.assert_array_equal(found[name], leaf)


def test_what_is_no_checkpoint_is_named(base, tmp_path):
    save, load = map(inspect.unwrap, (oj.save_checkpoint, oj.load_checkpoint))
    with pytest.raises(ValueError, match="like is {.*, a dict; give a Checkpoint, as oj.load_che"):
        save(tmp_path / "out", base.params, like=base.params)
    with pytest.raises(ValueError, match="params is Checkpoint.*; give params.params"):
        save(tmp_path / "out", base, like=base)
    for call in (lambda: load(base.params), lambda: load(base)):
        with pytest.raises(ValueError, match="source is .*; give the name of a model") as e:
            call()
        assert len(str(e.value)) < 300


@pytest.mark.parametrize("layout", OUTPUTS)
def test_edits_equal_edits_in_memory(layout, base, params, tmp_path):
    vector = {"visual": jax.tree.map(np.subtract, params["visual"], base.params["visual"])}
    vector["visual"]["projection"]["kernel"] = np.zeros_like(
        base.params["visual"]["projection"]["kernel"]
    )  # noqa: E501
    edited = oj.apply_task_vector(base.params, vector, 0.3)
    one = oj.save_checkpoint(tmp_path / "one", edited, base, layout=layout)
    other = save_edited(tmp_path / "other", base, vector, 0.3, layout=layout)
    assert {each.name for each in one.iterdir()} == {each.name for each in other.iterdir()}
    for file in one.iterdir():
        assert file.read_bytes() == (other / file.name).read_bytes(), file.name


@pytest.mark.parametrize("layout, path, others", [
    ("vision", PROJECTION, "transformers or vision-projection or open_clip"),
    ("vision-projection", "text/token_embedding", "transformers or open_clip"),
])  # fmt: skip
def test_no_change_is_left_out(layout, path, others, base, tmp_path):
    parts = path.split("/")
    vector = np.ones_like(flatten(base.params)[path])
    for part in reversed(parts):
        vector = {part: vector}
    with pytest.raises(ValueError, match=f"leaves out {path}, which this edit changes.*{others}"):
        save_edited(tmp_path / "out", base, vector, 1.0, layout=layout)
    assert not (tmp_path / "out").exists()


def test_unknown_layouts_and_infinite_numbers(base, tmp_path):
    with pytest.raises(ValueError, match="layout 'timm': allowed are transformers, vision, visi"):
        oj.save_checkpoint(tmp_path / "out", base.params, base, layout="timm")
    vector = {"logit_scale": np.array(3e38, np.float32)}
    with pytest.raises(ValueError, match="leaf 'logit_scale' has 1 NaN or infinite values"):
        save_edited(tmp_path / "out", base, vector, 10.0)
    assert not (tmp_path / "out").exists()


def test_open_clip_states_the_whole_configuration(base):
    raw = to_open_clip(base.config)
    found = from_open_clip(raw)
    assert found.visual == base.config.visual and found.projection == base.config.projection
    visual = dataclasses.replace(base.config.visual, eps=1e-6)
    with pytest.raises(ValueError, match=r"visual\.eps is 1e-06, open_clip has 1e-05"):
        to_open_clip(dataclasses.replace(base.config, visual=visual))
    text = dataclasses.replace(base.config.text, activation="quick_gelu", eos_token_id=7)
    with pytest.raises(
        ValueError, match=r"text\.activation is .quick_gelu.*text\.eos_token_id is 7"
    ):
        to_open_clip(dataclasses.replace(base.config, text=text))


@pytest.mark.parametrize("change", [
    {}, {"resample": 2}, {"size": {"height": 8, "width": 8}}, {"image_mean": (0.5, 0.5, 0.5)},
])  # fmt: skip
def test_open_clip_states_the_preprocessing(change, tmp_path):
    values = defaults(8) | change
    stated = to_preprocess_cfg(values, 8)
    table = {"model_cfg": {"vision_cfg": {}, "text_cfg": {}}, "preprocess_cfg": stated}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(table))
    assert read_processor(tmp_path, 8).values == values


@pytest.mark.parametrize("change", [
    {"do_rescale": False}, {"rescale_factor": 1.0}, {"do_normalize": False}, {"resample": 0},
    {"size": {"shortest_edge": 9}}, {"do_center_crop": False},
])  # fmt: skip
def test_preprocessing_that_open_clip_does_not_have(change):
    with pytest.raises(ValueError, match=f"cannot state this preprocessing: {next(iter(change))}"):
        to_preprocess_cfg(defaults(8) | change, 8)
