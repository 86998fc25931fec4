"""The converter of torch state dicts, against torch; skipped where torch is not installed."""

import copy
import pathlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from orthoreg_jax import apply_task_vector
from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.config_files import read_config
from orthoreg_jax.clip.differences import base_problem
from orthoreg_jax.trees import StoredTree, load_tree
from tests.clip.test_parity import FIXTURES, relative_error

torch = pytest.importorskip("torch", reason="the converter needs torch, the package does not")
sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "experiments"))

import convert_checkpoints  # noqa: E402

DIRECTORY = FIXTURES / "quick_gelu_patch8"


def open_clip_state(model):
    """A CLIPModel's image tower as open_clip names and fuses it; two keys of the text tower."""
    vision, state = model.vision_model, {}
    state["visual.class_embedding"] = vision.embeddings.class_embedding
    state["visual.conv1.weight"] = vision.embeddings.patch_embedding.weight
    state["visual.positional_embedding"] = vision.embeddings.position_embedding.weight
    state["visual.proj"] = model.visual_projection.weight.T
    layers = {"visual.ln_pre": vision.pre_layrnorm, "visual.ln_post": vision.post_layernorm}
    for number, layer in enumerate(vision.encoder.layers):
        block, attention = f"visual.transformer.resblocks.{number}", layer.self_attn
        parts = attention.q_proj, attention.k_proj, attention.v_proj
        state[f"{block}.attn.in_proj_weight"] = torch.cat([part.weight for part in parts])
        state[f"{block}.attn.in_proj_bias"] = torch.cat([part.bias for part in parts])
        layers |= {
            f"{block}.attn.out_proj": attention.out_proj,
            f"{block}.mlp.c_fc": layer.mlp.fc1,
            f"{block}.mlp.c_proj": layer.mlp.fc2,
            f"{block}.ln_1": layer.layer_norm1,
            f"{block}.ln_2": layer.layer_norm2,
        }
    for name, layer in layers.items():
        state |= {f"{name}.weight": layer.weight, f"{name}.bias": layer.bias}
    state |= {"logit_scale": model.logit_scale, "ln_final.weight": torch.ones(3)}
    return {key: value.detach().clone() for key, value in state.items()}


def transformers_state(model):
    """As `pytorch_model.bin` has it."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def models():
    """Before and after fine-tuning."""
    before = transformers.CLIPModel.from_pretrained(DIRECTORY).eval()
    after = copy.deepcopy(before)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in after.vision_model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        after.visual_projection.weight.mul_(1.1)
    return before, after


def convert(monkeypatch, finetuned, pretrained, out):
    monkeypatch.setitem(PRESETS, "small", read_config(DIRECTORY))
    command = ["convert", "--finetuned", finetuned, "--pretrained", pretrained, "--out", out]
    monkeypatch.setattr(sys, "argv", [*map(str, command), "--backbone", "small"])
    convert_checkpoints.main()


@pytest.mark.parametrize("layout, prefix, wrapped", [
    (open_clip_state, "", False), (open_clip_state, "module.model.", True),
    (transformers_state, "", False), (transformers_state, "module.", True),
])  # fmt: skip
def test_the_vector_makes_the_fine_tuned_model(
    models, tmp_path, monkeypatch, layout, prefix, wrapped
):
    paths = [tmp_path / "zeroshot.pt", tmp_path / "finetuned.pt"]
    for model, path in zip(models, paths, strict=True):
        state = {prefix + key: value for key, value in layout(model).items()}
        torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    convert(monkeypatch, paths[1], paths[0], tmp_path / "vector.safetensors")
    checkpoint = load_checkpoint(DIRECTORY)
    assert base_problem(StoredTree(tmp_path / "vector.safetensors").about, checkpoint) == ""
    params = apply_task_vector(checkpoint.params, load_tree(tmp_path / "vector.safetensors"))
    size = checkpoint.config.visual.image_size
    pixels = np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)
    ours = image_encoder(checkpoint.config)(params["visual"], jnp.asarray(pixels))
    pictures = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    before, after = (model.get_image_features(pixel_values=pictures) for model in models)
    before, after = (getattr(each, "pooler_output", each).detach() for each in (before, after))
    assert relative_error(ours, after) < 1e-5 < 0.1 < relative_error(ours, before)


def test_pickled_code_is_never_run(models, tmp_path, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return pathlib.Path.write_text, (tmp_path / "exploded", "boom")

    whole = tmp_path / "zeroshot.pt"
    torch.save(open_clip_state(models[0]), whole)
    for content in (Bomb(), models[1], {"visual.proj": Bomb()}):
        torch.save(content, tmp_path / "finetuned.pt")
        with pytest.raises(SystemExit, match="does not contain only tensors"):
            convert(monkeypatch, tmp_path / "finetuned.pt", whole, tmp_path / "out.safetensors")
    assert not (tmp_path / "exploded").exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("spoil, message", [
    (lambda state: state.pop("visual.proj"), "without visual/projection/kernel"),
    (lambda state: state.update({"visual.x": torch.ones(2)}), "not a CLIP tensor: visual.x"),
    (lambda state: state.update({"visual.proj": torch.ones(2)}), "wrong shape: visual.proj"),
    (lambda state: state.clear(), "contains no CLIP ViT image tower"),
    (lambda state: state.update(epoch=3), "has entries that are not tensors: epoch"),
])  # fmt: skip
def test_what_does_not_fit_is_said(models, tmp_path, monkeypatch, spoil, message):
    state = open_clip_state(models[0])
    torch.save(state, tmp_path / "zeroshot.pt")
    spoil(state)
    torch.save(state, tmp_path / "finetuned.pt")
    paths = tmp_path / "finetuned.pt", tmp_path / "zeroshot.pt"
    with pytest.raises(SystemExit, match=message):
        convert(monkeypatch, *paths, tmp_path / "out.safetensors")


def test_other_content_is_said(tmp_path, monkeypatch):
    torch.save([torch.ones(2)], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("version https://git-lfs.github.com/spec/v1")
    for name in ("list.pt", "text.pt", "none.pt"):
        with pytest.raises(SystemExit, match=name):
            convert(monkeypatch, tmp_path / name, tmp_path / name, tmp_path / "out.safetensors")
