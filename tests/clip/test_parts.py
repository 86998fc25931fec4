"""Whatever is a CLIP, or a part of one, goes in: every layout that the field keeps, and its faults.

The layouts are written out here from one small model whose features are transformers' own
(`test_parity`), so that equal leaves are equal features.
"""

import json
import math
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from orthoreg_jax import LowRank, apply_task_vector, dense
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.clip import weights
from orthoreg_jax.clip.checkpoint import load_checkpoint, save_checkpoint
from orthoreg_jax.clip.differences import load_task_vector
from tests.clip.test_parity import FIXTURES

RNG = np.random.default_rng(7)
BASE = FIXTURES / "quick_gelu_patch8"
TENSORS = safetensors.numpy.load_file(BASE / "model.safetensors")
VISION = {key: value for key, value in TENSORS.items() if key.startswith("vision_model.")}
CONFIG = json.loads((BASE / "config.json").read_text())
VISION_CONFIG = CONFIG["vision_config"] | {
    "architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model",
}  # fmt: skip


def tuned(tensors):
    """Other weights of the same shapes."""
    return {key: value + RNG.normal(size=value.shape).astype(np.float32) / 9
            for key, value in tensors.items()}  # fmt: skip


def write(directory, tensors, config=None, name="model.safetensors"):
    directory.mkdir(exist_ok=True)
    arrays = {key: np.asarray(value) for key, value in tensors.items()}
    safetensors.numpy.save_file(arrays, directory / name, metadata={"format": "pt"})
    if config is not None:
        (directory / "config.json").write_text(json.dumps(config))
    return directory


def assert_holds(checkpoint, tensors):
    """The model's leaves are these tensors, the others the base's."""
    found = weights.to_layout(checkpoint.params, "huggingface")
    for key, value in (TENSORS | tensors).items():
        np.testing.assert_array_equal(found[key], value.reshape(found[key].shape), err_msg=key)


@pytest.fixture(scope="module")
def base():
    return load_checkpoint(BASE)


def without_prefix(tensors):
    return {key.removeprefix("vision_model."): value for key, value in tensors.items()}


@pytest.mark.parametrize("keys", [dict, without_prefix])
@pytest.mark.parametrize("projected", [False, True])
def test_image_tower_alone(tmp_path, base, keys, projected):
    """As CLIPVisionModel and CLIPVisionModelWithProjection of old and new transformers."""
    mine = tuned(VISION)
    if projected:
        mine["visual_projection.weight"] = 2 * TENSORS["visual_projection.weight"]
    directory = write(tmp_path / "model", keys(mine), VISION_CONFIG)
    found = load_checkpoint(directory, base)
    assert_holds(found, mine)
    assert found.config == base.config and found.base is base
    lacks = "text tower and" if projected else "projection and text tower and"
    assert f"{lacks} logit_scale taken from the base" in found.notes[0]
    with pytest.raises(ValueError, match="an image tower alone; name the CLIP.*--base"):
        load_checkpoint(directory)


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16])
def test_shards_and_half_precision(tmp_path, base, kind):
    halves = {key: value.astype(kind) for key, value in TENSORS.items()}
    names = sorted(halves)
    parts = [names[::3], names[1::3], names[2::3]]
    places = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-00003.safetensors"
        write(tmp_path, {key: halves[key] for key in part}, CONFIG, name)
        places |= dict.fromkeys(part, name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    found = load_checkpoint(tmp_path)
    assert_holds(found, {key: value.astype(np.float32) for key, value in halves.items()})
    assert len(found.hash_files()) == 4 and len(found.sha256) == 64
    # The hash is of the content of all shards.
    write(tmp_path, {key: halves[key] for key in parts[0]} | {names[0]: halves[names[0]] * 0},
          name=places[names[0]])  # fmt: skip
    assert load_checkpoint(tmp_path).sha256 != found.sha256
    (tmp_path / places[names[1]]).unlink()
    with pytest.raises(ValueError, match="lists 3 files, but 1 of them is missing"):
        load_checkpoint(tmp_path)
    for text in ("{", '{"weight_map": []}', '{"weight_map": {"a": "../b"}}', '{"weight_map": {}}'):
        index.write_text(text)
        with pytest.raises(ValueError, match="index.json: "):
            load_checkpoint(tmp_path)


def test_a_classifiers_head_is_left_out_and_said(tmp_path, base):
    mine = tuned(VISION)
    head = {"classifier.weight": np.ones((5, 2), np.float32), "classifier.bias": np.ones(5)}
    config = CONFIG | {"architectures": ["CLIPForImageClassification"]}
    found = load_checkpoint(write(tmp_path, mine | head, config), BASE)
    assert_holds(found, mine)
    assert "ignored classifier.bias, classifier.weight" in found.notes[0]


def open_clip_tensors(params, text=True):
    """Keys and axes of open_clip, from the table that `test_checkpoint` checks by hand."""
    tensors = weights.to_layout(params, "open_clip")
    visual = {key: value for key, value in tensors.items() if key.startswith("visual.")}
    return tensors if text else visual


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "image_encoder.model.", "a.b."])
@pytest.mark.parametrize("text", ["whole", "rest", "none"])
def test_open_clips_keys_with_prefixes(tmp_path, base, prefix, text):
    """A file alone, as training code saves it; of an image encoder some text tensors remain."""
    mine = load_checkpoint(write(tmp_path / "m", tuned(TENSORS), CONFIG))
    tensors = open_clip_tensors(mine.params, text == "whole")
    rest = {"positional_embedding", "text_projection", "token_embedding.weight", "logit_scale"}
    if text == "rest":
        every = open_clip_tensors(mine.params)
        tensors |= {key: every[key] for key in rest}
    path = tmp_path / "tuned.safetensors"
    safetensors.numpy.save_file({prefix + key: value for key, value in tensors.items()}, path)
    found = load_checkpoint(path, base)
    expected = dict(mine.params)
    if text != "whole":
        expected |= {"text": base.params["text"], "logit_scale": base.params["logit_scale"]}
    for ours, theirs in zip(*map(jax.tree.leaves, (found.params, expected)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    said = " ".join(found.notes)
    assert all((f"{prefix}{key}" in said) == (text == "rest") for key in rest - {"logit_scale"})
    with pytest.raises(ValueError, match="contains weights but no configuration; name the CLIP"):
        load_checkpoint(path)


def test_a_classification_head_beside_open_clips_encoder(tmp_path, base):
    tensors = {f"image_encoder.model.{key}": value
               for key, value in open_clip_tensors(base.params, text=False).items()}  # fmt: skip
    tensors["classification_head.weight"] = np.ones((3, 4), np.float32)
    path = tmp_path / "tuned.safetensors"
    safetensors.numpy.save_file(tensors, path)
    assert "ignored classification_head.weight" in load_checkpoint(path, base).notes[0]


# LoRA


def adapter(directory, modules, prefix="base_model.model.", **options):
    """A peft adapter: what it says, and the update of each weight by the definition."""
    tensors, updates = {}, {}
    rank = options.get("r", 2)
    for name, (alpha, r) in modules.items():
        rows, columns = TENSORS[f"{name}.weight"].shape
        a = RNG.normal(size=(r, columns)).astype(np.float32)
        b = RNG.normal(size=(rows, r)).astype(np.float32)
        tensors[f"{prefix}{name}.lora_A.weight"] = a
        tensors[f"{prefix}{name}.lora_B.weight"] = b
        scale = alpha / (math.sqrt(r) if options.get("use_rslora") else r)
        updates[f"{name}.weight"] = scale * b.astype(np.float64) @ a
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "use_rslora": False,
              "use_dora": False, "bias": "none", "fan_in_fan_out": False} | options  # fmt: skip
    write(directory, tensors, name="adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return updates


LAYER = "vision_model.encoder.layers.0"


@pytest.mark.parametrize("rslora", [False, True])
def test_lora_of_peft(tmp_path, base, rslora):
    modules = {f"{LAYER}.self_attn.{name}_proj": (8, 2) for name in ("q", "v", "out")}
    modules |= {f"vision_model.encoder.layers.1.mlp.fc{number}": (8, 2) for number in (1, 2)}
    modules[f"{LAYER}.self_attn.k_proj"] = (4, 3)  # by the patterns below
    updates = adapter(
        tmp_path, modules, use_rslora=rslora, base_model_name_or_path="openai/clip",
        rank_pattern={"k_proj": 3}, alpha_pattern={"k_proj": 4},
    )  # fmt: skip
    found = weights.to_layout(load_checkpoint(tmp_path, base).params, "huggingface")
    for key, value in TENSORS.items():
        expected = value + updates.get(key, 0)
        np.testing.assert_allclose(found[key], expected, rtol=1e-5, atol=1e-5, err_msg=key)
    with pytest.raises(
        ValueError, match=r"is an adapter; name the CLIP .* \(it says 'openai/clip'"
    ):
        load_checkpoint(tmp_path)


def test_lora_of_an_image_tower_without_its_prefix(tmp_path, base):
    updates = adapter(tmp_path, {f"{LAYER}.mlp.fc1": (8, 2)})
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors = {key.replace("vision_model.", ""): value for key, value in tensors.items()}
    # And what was trained whole beside it: a bias, and a head that is left out.
    bias = np.full(TENSORS[f"{LAYER}.mlp.fc1.bias"].shape, 3, np.float32)
    tensors["base_model.model.encoder.layers.0.mlp.fc1.bias"] = bias
    tensors["base_model.model.classifier.weight"] = np.ones((2, 2), np.float32)
    safetensors.numpy.save_file(tensors, path)
    checkpoint = load_checkpoint(tmp_path, base)
    assert "ignored base_model.model.classifier.weight" in checkpoint.notes[0]
    found = weights.to_layout(checkpoint.params, "huggingface")
    name = f"{LAYER}.mlp.fc1"
    np.testing.assert_array_equal(found[f"{name}.bias"], bias)
    expected = TENSORS[f"{name}.weight"] + updates[f"{name}.weight"]
    np.testing.assert_allclose(found[f"{name}.weight"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
def test_factors_give_the_same_update(tmp_path, base, rslora):
    """With ranks and alphas of their own, a text tower and a projection."""
    modules = {
        f"{LAYER}.self_attn.q_proj": (8, 2),
        f"{LAYER}.self_attn.v_proj": (8, 3),
        "vision_model.encoder.layers.1.self_attn.q_proj": (8, 5),
        f"{LAYER}.self_attn.out_proj": (8, 2),
        f"{LAYER}.mlp.fc1": (3, 2),
        "visual_projection": (8, 2),
        "text_model.encoder.layers.1.mlp.fc2": (8, 2),
    }
    updates = adapter(tmp_path, modules, use_rslora=rslora, alpha_pattern={"mlp.fc1": 3})
    whole = load_task_vector(tmp_path, base)
    factored = load_task_vector(tmp_path, base, dense=False)
    found, expected = flatten(dense(factored)), flatten(whole)
    changed = {path for path, leaf in expected.items() if leaf.any()}
    assert found.keys() == changed
    for path in changed:
        np.testing.assert_allclose(found[path], expected[path], rtol=1e-5, atol=1e-5)
    in_proj = factored["visual"]["blocks"]["attn"]["in_proj"]["kernel"]
    width = base.config.visual.width
    assert isinstance(in_proj, LowRank)
    assert in_proj.rank == 5 + 0 + 3 and in_proj.shape == (2, width, 3 * width)
    kernel = np.asarray(in_proj.dense())[0, :, :width]
    np.testing.assert_allclose(kernel, updates[f"{LAYER}.self_attn.q_proj.weight"].T, rtol=1e-5)
    assert factored["visual"]["projection"]["kernel"].rank == 2
    assert "text" not in load_task_vector(tmp_path, base, visual_only=True, dense=False)
    ours = apply_task_vector(base.params, factored, 0.5)
    theirs = apply_task_vector(base.params, whole, 0.5)
    for a, b in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_factors_beside_whole_weights(tmp_path, base):
    """A bias that was trained is dense; a model of whole weights has no factors."""
    adapter(tmp_path, {f"{LAYER}.mlp.fc1": (8, 2)})
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    bias = TENSORS[f"{LAYER}.mlp.fc1.bias"] + 1
    safetensors.numpy.save_file(tensors | {f"base_model.model.{LAYER}.mlp.fc1.bias": bias}, path)
    found = load_task_vector(tmp_path, base, dense=False)["visual"]["blocks"]["mlp"]["fc1"]
    assert isinstance(found["kernel"], LowRank)
    np.testing.assert_allclose(found["bias"][0], 1, rtol=1e-5)
    with pytest.raises(ValueError, match="is not a LoRA adapter, so its update has no factors"):
        load_task_vector(base.directory, base, dense=False)


@pytest.mark.parametrize("options, message", [
    ({"use_dora": True}, "use_dora is True, allowed: False"),
    ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
    ({"peft_type": "IA3"}, "an adapter of type 'IA3', allowed: 'LORA'"),
    ({"lora_alpha": None}, "lora_alpha is None, allowed: a number above 0"),
    ({"alpha_pattern": {"q": "x"}}, "alpha_pattern is"),
])  # fmt: skip
def test_adapters_of_another_kind(tmp_path, base, options, message):
    adapter(tmp_path, {f"{LAYER}.mlp.fc1": (8, 2)}, **options)
    with pytest.raises(ValueError, match=f"adapter_config.json: .*{message}"):
        load_checkpoint(tmp_path, base)


@pytest.mark.parametrize("spoil, message", [
    (lambda t: t.pop(f"base_model.model.{LAYER}.mlp.fc1.lora_A.weight"), "missing: the other fac"),
    (lambda t: t.update({"base_model.model.lm_head.lora_A.weight": np.ones((2, 2))}),
     "matches no weight of a CLIP: base_model.model.lm_head"),
    (lambda t: t.update({f"base_model.model.{LAYER}.mlp.fc1.lora_A.weight": np.ones((2, 5))}),
     "wrong shape: .*fc1.lora_B"),
    (lambda t: t.update({f"base_model.model.{LAYER}.mlp.fc1.bias": np.ones(3)}), "wrong shape"),
    (lambda t: t[f"base_model.model.{LAYER}.mlp.fc1.lora_A.weight"].fill(np.nan), "not finite"),
])  # fmt: skip
def test_adapters_that_do_not_fit(tmp_path, base, spoil, message):
    adapter(tmp_path, {f"{LAYER}.mlp.fc1": (8, 2)})
    path = tmp_path / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    spoil(tensors)
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(ValueError, match=f"(?s)adapter_model.safetensors: .*{message}"):
        load_checkpoint(tmp_path, base)


# Faults


def test_all_problems_with_the_likely_cause(tmp_path, base):
    mine = dict(VISION)
    del mine["vision_model.post_layernorm.bias"]
    mine["vision_model.head.weight"] = np.ones(3, np.float32)
    mine["vision_model.pre_layrnorm.bias"] = np.full(24, np.nan, np.float32)
    directory = write(tmp_path, mine, CONFIG)
    with pytest.raises(ValueError) as caught:
        load_checkpoint(directory)
    for part in ("3 tensors do not fit", "missing: vision_model.post_layernorm.bias",
                 "not a CLIP tensor: vision_model.head.weight (3,)",
                 "not finite: vision_model.pre_layrnorm.bias",
                 "an image tower alone; name the CLIP"):  # fmt: skip
        assert part in str(caught.value)
    with pytest.raises(ValueError, match="3 tensors") as caught:
        load_checkpoint(directory, base)
    assert "alone" not in str(caught.value)


@pytest.mark.parametrize("change, message", [
    ({"hidden_act": "gelu"}, "activation is 'gelu', the base's 'quick_gelu'"),
    ({"num_attention_heads": 1}, "heads is 1, the base's"),
    ({"layer_norm_eps": 1e-6}, "eps is 1e-06, the base's 1e-05"),
    ({"hidden_size": 0}, "hidden_size is 0, allowed: an int from 1"),
])  # fmt: skip
def test_another_base(tmp_path, base, change, message):
    with pytest.raises(ValueError, match=message):
        load_checkpoint(write(tmp_path, VISION, VISION_CONFIG | change), base)


@pytest.mark.parametrize("tensors, message", [
    ({"blocks.0.attn.qkv.weight": np.ones(2)}, "its keys are timm's"),
    ({"q_proj.lora_A.weight": np.ones(2)}, "an adapter, which needs peft's adapter_config.json"),
    ({"visual/blocks/attn/in_proj/kernel": np.ones(2)}, "a task vector; pass it with --vectors"),
    ({"weight": np.ones(2)}, "contains no CLIP ViT image tower; its keys are weight"),
    ({f"{name}.visual.proj": np.ones(2) for name in ("student", "teacher")},
     "contains several models, whose keys begin with 'student.', 'teacher.'"),
])  # fmt: skip
def test_other_content(tmp_path, base, tensors, message):
    with pytest.raises(ValueError, match=message):
        load_checkpoint(write(tmp_path, tensors, CONFIG), base)


@pytest.mark.parametrize("name", ["tuned.pt", "pytorch_model.bin"])
def test_pickles_are_sent_to_the_converter(tmp_path, base, name):
    directory = write(tmp_path / "model", {}, CONFIG)
    (directory / "model.safetensors").rename(directory / name)
    for source in (directory, directory / name):
        with pytest.raises(
            ValueError, match="no pickled files: experiments/convert_checkpoints.py"
        ):
            load_checkpoint(source, base)


# Scalars, ids and sizes as others write them


@pytest.fixture
def directory(tmp_path):
    return shutil.copytree(BASE, tmp_path / "model")


def test_logit_scale_as_a_vector_of_one(directory):
    write(directory, TENSORS | {"logit_scale": TENSORS["logit_scale"].reshape(1)})
    assert load_checkpoint(directory).params["logit_scale"].shape == ()


@pytest.mark.parametrize("value, end", [(None, 2), ([2], 2), ([9, 9], 9), (9, 9)])
def test_end_of_text(directory, value, end):
    config = CONFIG | {"text_config": CONFIG["text_config"] | {"eos_token_id": value}}
    write(directory, TENSORS, config)
    assert load_checkpoint(directory).config.text.eos_token_id == end


def test_image_size_as_a_list(directory):
    size = CONFIG["vision_config"]["image_size"]
    patch = CONFIG["vision_config"]["patch_size"]
    vision = CONFIG["vision_config"] | {"image_size": [size, size], "patch_size": [patch, patch]}
    write(directory, TENSORS, CONFIG | {"vision_config": vision})
    assert load_checkpoint(directory).config.visual.image_size == size


@pytest.mark.parametrize("part, change, message", [
    ("vision_config", {"image_size": [16, 24]}, r"image_size is \[16, 24\], allowed: an int"),
    ("text_config", {"eos_token_id": [1, 2]}, r"eos_token_id is \[1, 2\], allowed: one id, or nu"),
    *((part, {key: value}, f"{key} is {value}, allowed: an int from 1 to")
      for value in (0, -4, 10**9, 1.5)
      for part, key in (("vision_config", "hidden_size"), ("vision_config", "patch_size"),
                        ("text_config", "num_hidden_layers"), ("text_config", "vocab_size"),
                        ("text_config", "num_attention_heads"))),
])  # fmt: skip
def test_implausible_sizes(directory, part, change, message):
    write(directory, TENSORS, CONFIG | {part: CONFIG[part] | change})
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        load_checkpoint(directory)


def test_sizes_are_compared_with_the_tensors_before_memory_is_taken(directory):
    """A megabyte of layers a thousand times: more than any machine here has."""
    text = CONFIG["text_config"] | {"vocab_size": 2**20, "intermediate_size": 2**20,
                                    "num_hidden_layers": 2**10}  # fmt: skip
    write(directory, TENSORS, CONFIG | {"text_config": text})
    with pytest.raises(ValueError, match=r"wrong shape: text_model.embeddings.token_embedding"):
        load_checkpoint(directory)


def test_float8_is_named(directory):
    key = "text_projection.weight"
    write(directory, TENSORS | {key: TENSORS[key].astype(ml_dtypes.float8_e4m3fn)})
    with pytest.raises(ValueError, match=f"wrong type: {key} is F8_E4M3, expected float16, bfl"):
        load_checkpoint(directory)


# What the parts are put together to


def test_saved_whole_with_the_base_s_companions(tmp_path):
    """An image tower's own preprocessing stays, the tokenizer is the base's."""
    embedded = load_checkpoint("embedded")
    tensors = weights.to_layout(embedded.params, "huggingface")
    config = json.loads((embedded.directory / "config.json").read_text())["vision_config"]
    vision = {key: value for key, value in tensors.items() if key.startswith("vision_model.")}
    tower = write(tmp_path / "tower", without_prefix(vision), config)
    found = load_checkpoint(tower, "embedded")
    assert found.tokenizer_directory == found.preprocessing_directory == embedded.directory
    assert {"model.safetensors", "base/model.safetensors"} <= found.hash_files().keys()
    (tower / "processor_config.json").write_text(
        json.dumps({"image_processor": {"size": 32, "crop_size": 32, "image_std": [0.1, 0.2, 0.3]}})
    )
    saved = load_checkpoint(save_checkpoint(tmp_path / "out", found.params, found))
    assert saved.preprocessing.normalize.std == (0.1, 0.2, 0.3)
    assert (saved.directory / "tokenizer.json").is_file()
    for ours, theirs in zip(*map(jax.tree.leaves, (saved.params, embedded.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
