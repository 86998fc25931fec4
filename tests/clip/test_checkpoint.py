"""CLIP directories in and out, and everything that can be wrong with one."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import transformers

from orthoreg_jax.clip import weights
from orthoreg_jax.clip.checkpoint import load_checkpoint, save_checkpoint
from orthoreg_jax.clip.config import HUB_NAMES, PRESETS, WEIGHTS_SHA256
from orthoreg_jax.clip.config_files import from_huggingface, read_config, to_huggingface
from orthoreg_jax.clip.location import locate
from orthoreg_jax.clip.preprocessing import load_preprocessing
from tests.clip.test_parity import FIXTURES


@pytest.fixture
def directory(tmp_path):
    """A CLIP directory of one's own, to spoil."""
    return shutil.copytree(FIXTURES / "gelu_patch4", tmp_path / "model")


def change_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    change(tensors)
    safetensors.numpy.save_file(tensors, path)


def change_config(directory, change):
    path = directory / "config.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))


@pytest.mark.parametrize("name", ["quick_gelu_patch8", "gelu_patch4"])
def test_weights_survive_both_ways_bit_for_bit(name):
    tensors = safetensors.numpy.load_file(FIXTURES / name / "model.safetensors")
    checkpoint = load_checkpoint(FIXTURES / name)
    back = weights.to_layout(checkpoint.params, "huggingface")
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert back[key].shape == tensor.shape, key
        np.testing.assert_array_equal(back[key], tensor)


def test_saved_directory_is_the_same_model(tmp_path):
    embedded = load_checkpoint("embedded")
    saved = save_checkpoint(tmp_path / "a" / "model", embedded.params, embedded)
    again = load_checkpoint(saved)
    assert again.config == embedded.config
    for ours, theirs in zip(*map(jax.tree.leaves, (again.params, embedded.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    theirs = transformers.CLIPConfig.from_pretrained(saved)
    assert theirs.projection_dim == embedded.config.projection == 256
    tokenizer = transformers.CLIPTokenizer.from_pretrained(saved)
    assert len(tokenizer) == embedded.config.text.vocab_size
    with pytest.raises(ValueError, match="is not empty"):
        save_checkpoint(saved, embedded.params, embedded)


def test_half_precision_files_are_read_as_float32(directory):
    def halve(tensors):
        for key in tensors:
            kind = np.float16 if "visual" in key else ml_dtypes.bfloat16
            tensors[key] = tensors[key].astype(kind)

    change_tensors(directory, halve)
    params = load_checkpoint(directory).params
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_sizes(name):
    assert from_huggingface(to_huggingface(PRESETS[name])) == PRESETS[name]
    millions = sum(np.prod(s) for s in weights.param_shapes(PRESETS[name]).values()) / 1e6
    published = {"ViT-B/32": 151.28, "ViT-B/16": 149.62, "ViT-L/14": 427.62}
    assert abs(millions - published[name]) < 0.01
    assert name in HUB_NAMES


def test_preset_b32_is_transformers_default():
    """`CLIPConfig()` of transformers is ViT-B/32, but for the corrected eos_token_id."""
    raw = transformers.CLIPConfig().to_dict()
    raw["text_config"]["eos_token_id"] = 2
    assert from_huggingface(raw) == PRESETS["ViT-B/32"]


def test_all_misfits_are_listed_at_once(directory):
    def spoil(tensors):
        del tensors["visual_projection.weight"]
        tensors["logit_scale"] = np.ones(2, np.float32)
        tensors["text_model.final_layer_norm.bias"] = np.ones(16, np.int32)
        tensors["vision_model.post_layernorm.bias"][3] = np.nan
        tensors["vision_model.lora.weight"] = np.ones((2, 2), np.float32)

    change_tensors(directory, spoil)
    with pytest.raises(ValueError) as caught:
        load_checkpoint(directory)
    message = str(caught.value)
    for part in (
        "5 tensors do not fit",
        "missing: visual_projection.weight (12, 32)",
        "wrong shape: logit_scale is (2,), expected ()",
        "wrong type: text_model.final_layer_norm.bias is int32",
        "not finite: vision_model.post_layernorm.bias",
        "not a CLIP tensor: vision_model.lora.weight (2, 2)",
    ):
        assert part in message
    assert str(directory) in message


def test_listed_buffers_are_ignored(directory):
    def add(tensors):
        tensors["text_model.embeddings.position_ids"] = np.arange(7)[None]

    change_tensors(directory, add)
    load_checkpoint(directory)


def test_truncated_file(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="not a complete safetensors file.*copy it again"):
        load_checkpoint(directory)
    path.unlink()
    with pytest.raises(ValueError, match="safetensors only, no pickled files.*refs/pr/NUMBER"):
        load_checkpoint(directory)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda raw: raw.update(model_type="bert"), "type 'bert'; supported: 'clip'"),
        (lambda raw: raw["vision_config"].update(hidden_act="relu"), "hidden_act is 'relu', allow"),
        (lambda raw: raw["vision_config"].update(patch_size=5), "patches of 5 px do not tile 12"),
        (
            lambda raw: raw["text_config"].update(num_attention_heads=3),
            r"\(16\) is not a multiple of the number of attention heads \(3\)",
        ),
        (lambda raw: raw["vision_config"].update(num_channels=1), "num_channels is 1"),
        (lambda raw: raw["vision_config"].update(hidden_size="wide"), "hidden_size is 'wide', all"),
        (lambda raw: raw["text_config"].update(layer_norm_eps="x"), "not a CLIP configuration"),
    ],
)
def test_configs_of_other_models(directory, change, message):
    change_config(directory, change)
    with pytest.raises(ValueError, match=f"(?s)config.json.*{message}"):
        load_checkpoint(directory)


def test_config_of_another_size(directory):
    change_config(directory, lambda raw: raw["vision_config"].update(intermediate_size=64))
    with pytest.raises(ValueError, match=r"wrong shape: .*fc1.weight is \(48, 32\), expected \(64"):
        load_checkpoint(directory)


def test_missing_and_broken_config(directory):
    (directory / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read_config(directory)
    (directory / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json: not found; a CLIP directory holds"):
        read_config(directory)


def test_names_that_are_no_model(monkeypatch):
    with pytest.raises(ValueError, match="no such directory; allowed: 'emb"):
        locate("ViT-B-32")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no such directory, and the hub did not provide it"):
        locate("nobody/no-such-model")


def test_whole_model_is_asked_for(tmp_path):
    embedded = load_checkpoint("embedded")
    with pytest.raises(ValueError, match="merge an image tower into the full parameters"):
        save_checkpoint(tmp_path / "model", embedded.params["visual"], embedded)
    other = load_checkpoint(FIXTURES / "gelu_patch4")
    with pytest.raises(ValueError, match="differ in shape"):
        save_checkpoint(tmp_path / "model", other.params, embedded)
    assert not (tmp_path / "model").exists()


# open_clip's layout


@pytest.fixture
def open_clip(tmp_path):
    """The same small model as open_clip keeps it: keys and axes written out here."""
    source = load_checkpoint(FIXTURES / "quick_gelu_patch8")
    config, params = source.config, source.params
    tensors = {"logit_scale": params["logit_scale"]}
    for tower, prefix in (("visual", "visual.transformer"), ("text", "transformer")):
        blocks = params[tower]["blocks"]
        for layer in range(len(blocks["norm1"]["scale"])):
            block, key = jax.tree.map(lambda leaf, n=layer: leaf[n], blocks), f"{prefix}.resblocks"
            key = f"{key}.{layer}"
            tensors[f"{key}.attn.in_proj_weight"] = block["attn"]["in_proj"]["kernel"].T
            tensors[f"{key}.attn.in_proj_bias"] = block["attn"]["in_proj"]["bias"]
            for ours, theirs in ((block["attn"]["out_proj"], "attn.out_proj"),
                                 (block["mlp"]["fc1"], "mlp.c_fc"),
                                 (block["mlp"]["fc2"], "mlp.c_proj")):  # fmt: skip
                tensors[f"{key}.{theirs}.weight"] = ours["kernel"].T
                tensors[f"{key}.{theirs}.bias"] = ours["bias"]
            for number in (1, 2):
                tensors[f"{key}.ln_{number}.weight"] = block[f"norm{number}"]["scale"]
                tensors[f"{key}.ln_{number}.bias"] = block[f"norm{number}"]["bias"]
    visual, text = params["visual"], params["text"]
    tensors |= {
        "visual.class_embedding": visual["class_embedding"],
        "visual.positional_embedding": visual["position_embedding"],
        "visual.conv1.weight": visual["patch_embedding"].transpose(3, 2, 0, 1),
        "visual.ln_pre.weight": visual["pre_norm"]["scale"],
        "visual.ln_pre.bias": visual["pre_norm"]["bias"],
        "visual.ln_post.weight": visual["post_norm"]["scale"],
        "visual.ln_post.bias": visual["post_norm"]["bias"],
        "visual.proj": visual["projection"]["kernel"],
        "token_embedding.weight": text["token_embedding"],
        "positional_embedding": text["position_embedding"],
        "ln_final.weight": text["final_norm"]["scale"],
        "ln_final.bias": text["final_norm"]["bias"],
        "text_projection": text["projection"]["kernel"],
    }
    tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    tensors["logit_scale"] = np.array(params["logit_scale"])
    safetensors.numpy.save_file(tensors, tmp_path / "open_clip_model.safetensors")
    raw = {
        "model_cfg": {
            "embed_dim": config.projection,
            "quick_gelu": True,
            "vision_cfg": {
                "image_size": config.visual.image_size,
                "layers": config.visual.layers,
                "width": config.visual.width,
                "patch_size": config.visual.patch_size,
                "head_width": config.visual.width // config.visual.heads,
                "mlp_ratio": config.visual.mlp_width / config.visual.width,
            },
            "text_cfg": {
                "context_length": config.text.context_length,
                "vocab_size": config.text.vocab_size,
                "width": config.text.width,
                "heads": config.text.heads,
                "layers": config.text.layers,
                "mlp_ratio": config.text.mlp_width / config.text.width,
            },
        },
        "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(raw))
    return tmp_path, source, tensors, raw


def test_open_clip_directory_is_the_same_model(open_clip):
    directory, source, tensors, _ = open_clip
    checkpoint = load_checkpoint(directory)
    assert checkpoint.config.visual == source.config.visual
    assert checkpoint.config.projection == source.config.projection
    assert checkpoint.config.text.eos_token_id == 2  # its end is the largest id
    for ours, theirs in zip(*map(jax.tree.leaves, (checkpoint.params, source.params)), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    back = weights.to_layout(checkpoint.params, "open_clip")
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert back[key].shape == tensor.shape, key
        np.testing.assert_array_equal(back[key], tensor)
    preprocessing = load_preprocessing(directory, checkpoint.config)
    assert preprocessing.normalize.mean == (0.1, 0.2, 0.3)
    assert preprocessing.normalize.std == (0.4, 0.5, 0.6)


def test_open_clip_models_of_another_kind_are_refused(open_clip):
    directory, _, _, raw = open_clip
    raw["model_cfg"]["vision_cfg"]["attentional_pool"] = True
    path = directory / "open_clip_config.json"
    path.write_text(json.dumps(raw))
    with pytest.raises(ValueError, match="has vision_cfg.attentional_pool = True, which a plain"):
        load_checkpoint(directory)
    path.write_text('{"model_cfg": {}}')
    with pytest.raises(ValueError, match="is not the configuration of an open_clip model"):
        load_checkpoint(directory)


@pytest.mark.parametrize("tower, change", [
    ("vision_cfg", {"ls_init_value": None, "patch_dropout": 0.5, "attentional_pool": False,
                    "pool_type": "tok", "timm_model_name": None, "output_tokens": True}),
    ("text_cfg", {"hf_model_name": None, "pad_id": 0, "no_causal_mask": False, "proj_bias": False}),
    (None, {"custom_text": False, "init_logit_scale": 2.6, "multimodal_cfg": None}),
])  # fmt: skip
def test_neutral_keys_of_open_clip(open_clip, tower, change):
    directory, source, _, raw = open_clip
    (raw["model_cfg"][tower] if tower else raw["model_cfg"]).update(change)
    vision = raw["model_cfg"]["vision_cfg"]
    vision["image_size"] = [vision["image_size"]] * 2
    (directory / "open_clip_config.json").write_text(json.dumps(raw))
    assert load_checkpoint(directory).config.visual == source.config.visual


@pytest.mark.parametrize("tower, change, message", [
    ("vision_cfg", {"pool_type": "avg"}, "vision_cfg.pool_type = 'avg'"),
    ("text_cfg", {"hf_model_name": "roberta"}, "text_cfg.hf_model_name = 'roberta'"),
    ("vision_cfg", {"layers": [3, 4, 6, 3]}, r"vision_cfg.layers is \[3, 4, 6, 3\], allowed: an"),
    ("vision_cfg", {"head_width": 7}, "vision_cfg.width 24 is not a multiple of head_width 7"),
    ("vision_cfg", {"patch_size": 5}, "image_size .* is not a multiple of patch_size 5"),
    ("text_cfg", {"heads": 0}, "text_cfg.heads is 0, allowed: an int"),
    ("text_cfg", {"vocab_size": 10**9}, "text_cfg.vocab_size is 1000000000, allowed"),
    ("text_cfg", {"mlp_ratio": "4"}, "text_cfg.mlp_ratio is '4', allowed: a number"),
])  # fmt: skip
def test_open_clip_configurations_that_do_not_fit(open_clip, tower, change, message):
    directory, _, _, raw = open_clip
    raw["model_cfg"][tower].update(change)
    (directory / "open_clip_config.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=f"open_clip_config.json: .*{message}"):
        load_checkpoint(directory)


def test_timms_files_beside_those_of_open_clip(open_clip):
    """As the hub keeps OpenAI's weights: another model of timm's is in the same repository."""
    directory, source, _, _ = open_clip
    (directory / "config.json").write_text('{"architecture": "vit_base_patch32_clip_224"}')
    (directory / "model.safetensors").write_bytes(b"timm's")
    checkpoint = load_checkpoint(directory)
    assert checkpoint.config.visual == source.config.visual
    assert set(checkpoint.hash_files()) == {"open_clip_model.safetensors", "open_clip_config.json"}


def test_openais_weights_are_checked_and_are_quick_gelu(open_clip, monkeypatch):
    directory, source, _, raw = open_clip
    raw["model_cfg"]["quick_gelu"] = False  # a copy may say so; the weights are QuickGELU's
    (directory / "open_clip_config.json").write_text(json.dumps(raw))
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(directory)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setitem(PRESETS, "ViT-B/32", source.config)
    with pytest.raises(ValueError, match="is not OpenAI's file for ViT-B/32 .SHA-256"):
        load_checkpoint("ViT-B/32")
    sha256 = load_checkpoint(directory).sha256
    monkeypatch.setitem(WEIGHTS_SHA256, "ViT-B/32", sha256)
    assert load_checkpoint("ViT-B/32").config.visual.activation == "quick_gelu"
    assert load_checkpoint(directory).config.visual.activation == "gelu"
    repository, revision, patterns = asked[-1]
    assert f"{repository}@{revision}" == HUB_NAMES["ViT-B/32"] and len(revision) == 40
    assert "open_clip_model.safetensors" in patterns and "model.safetensors" not in patterns


def test_saved_from_open_clip_it_is_whole_for_transformers(open_clip, tmp_path):
    directory, source, _, _ = open_clip
    checkpoint = load_checkpoint(directory)
    out = save_checkpoint(tmp_path / "saved", checkpoint.params, checkpoint, texts={"A.md": "a"})
    assert {path.name for path in out.iterdir()} == {
        "A.md", "config.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    saved = load_checkpoint(out)
    assert saved.config.visual == source.config.visual
    normalization = load_preprocessing(out, saved.config).normalize
    assert (normalization.mean, normalization.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_weights_that_are_not_finite_are_neither_read_nor_written(directory, tmp_path):
    checkpoint = load_checkpoint(directory)
    scaled = jax.tree.map(lambda leaf: leaf * np.float32(1e6), checkpoint.params)
    with pytest.raises(ValueError, match="out: not written: leaf .* wider type than float16"):
        save_checkpoint(tmp_path / "out", scaled, checkpoint, dtype=np.float16)
    assert not (tmp_path / "out").exists()

    def spoil(tensors):
        tensors["visual_projection.weight"][0, 0] = np.nan

    change_tensors(directory, spoil)
    with pytest.raises(ValueError, match="not finite: visual_projection.weight holds NaN"):
        load_checkpoint(directory)
