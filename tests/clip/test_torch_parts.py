"""Parts of CLIPs as transformers and peft write them, against what they compute; needs torch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from PIL import Image

import orthoreg_jax as oj
from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint
from tests.clip.test_parity import FIXTURES, relative_error

torch = pytest.importorskip("torch", reason="the oracle needs torch, the package does not")
BASE = FIXTURES / "quick_gelu_patch8"


@pytest.fixture(scope="module")
def base():
    return load_checkpoint(BASE)


@pytest.fixture
def tuned():
    """A CLIPModel after fine-tuning."""
    model = transformers.CLIPModel.from_pretrained(BASE).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def pixels(base):
    size = base.config.visual.image_size
    return np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)


def assert_features(checkpoint, expected):
    ours = image_encoder(checkpoint.config)(
        checkpoint.params["visual"], jnp.asarray(pixels(checkpoint))
    )
    assert relative_error(ours, expected.detach().numpy()) < 1e-5


def features(model, base):
    """Projected features, of a model with a projection or with the base's."""
    found = model(pixel_values=torch.from_numpy(pixels(base)).permute(0, 3, 1, 2))
    if hasattr(found, "image_embeds"):
        return found.image_embeds
    kernel = torch.from_numpy(np.array(base.params["visual"]["projection"]["kernel"]))
    return found.pooler_output @ kernel


@pytest.mark.parametrize("shards", ["5GB", "30KB"])
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_whole_models(base, tuned, tmp_path, shards, kind):
    tuned.to(getattr(torch, kind)).save_pretrained(tmp_path, max_shard_size=shards)
    tuned.float()
    assert (tmp_path / "model.safetensors").is_file() == (shards == "5GB")
    expected = tuned.visual_projection(
        tuned.vision_model(torch.from_numpy(pixels(base)).permute(0, 3, 1, 2)).pooler_output
    )
    assert_features(load_checkpoint(tmp_path), expected)


@pytest.mark.parametrize("name", ["CLIPVisionModel", "CLIPVisionModelWithProjection"])
def test_image_towers(base, tuned, tmp_path, name):
    tuned.save_pretrained(tmp_path / "whole")
    tower = getattr(transformers, name).from_pretrained(tmp_path / "whole").eval()
    tower.save_pretrained(tmp_path / "tower")
    assert_features(load_checkpoint(tmp_path / "tower", base), features(tower, base))


def test_classifiers(base, tuned, tmp_path):
    tuned.save_pretrained(tmp_path / "whole")
    model = transformers.CLIPForImageClassification.from_pretrained(tmp_path / "whole").eval()
    model.save_pretrained(tmp_path / "classifier")
    found = load_checkpoint(tmp_path / "classifier", base)
    assert_features(found, features(model.vision_model, base))
    assert "ignored classifier.bias, classifier.weight" in found.notes[0]


@pytest.mark.parametrize("name", ["CLIPModel", "CLIPVisionModel", "CLIPVisionModelWithProjection"])
@pytest.mark.parametrize("rslora", [False, True])
def test_lora_of_peft(base, tmp_path, name, rslora):
    peft = pytest.importorskip("peft", reason="writes the adapters")
    model = getattr(transformers, name).from_pretrained(BASE).eval()
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    options = peft.LoraConfig(
        r=2, lora_alpha=3, target_modules=targets, use_rslora=rslora, bias="lora_only",
        rank_pattern={"fc1": 3}, alpha_pattern={"fc1": 7, r"layers\.1\.self_attn\.q_proj": 2},
    )  # fmt: skip
    model = peft.get_peft_model(model, options)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    found = load_checkpoint(tmp_path, base)
    merged = model.merge_and_unload()
    if name == "CLIPModel":
        pictures = torch.from_numpy(pixels(base)).permute(0, 3, 1, 2)
        expected = merged.visual_projection(merged.vision_model(pictures).pooler_output)
    else:
        expected = features(merged, base)
    assert_features(found, expected)
    vector = oj.load_task_vector(tmp_path, base)
    assert set(vector) == ({"visual", "text", "logit_scale"} if name == "CLIPModel" else {"visual"})
    again = oj.apply_task_vector(base.params, vector)
    for ours, theirs in zip(*map(jax.tree.leaves, (again, found.params)), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_processors_of_transformers_5(base, tuned, tmp_path):
    """One file, the image processor nested: features of a picture are transformers'."""
    tuned.save_pretrained(tmp_path)
    size = base.config.visual.image_size
    processor = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil(
        size={"shortest_edge": size + 3}, crop_size=size, image_mean=[0.5] * 3, image_std=[0.4] * 3
    )
    nested = {"image_processor": json.loads(processor.to_json_string())}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8))
    inputs = torch.from_numpy(processor([picture], return_tensors="np")["pixel_values"])
    expected = tuned.visual_projection(tuned.vision_model(inputs).pooler_output)
    found = load_checkpoint(tmp_path)
    preprocessing = found.preprocessing
    ours = preprocessing.normalize(jnp.asarray(preprocessing.resize([picture])))
    features = image_encoder(found.config)(found.params["visual"], ours)
    assert relative_error(features, expected.detach().numpy()) < 1e-5


@pytest.mark.parametrize("layout, kind", [
    ("transformers", "CLIPModel"),
    ("vision", "CLIPVisionModel"),
    ("vision-bare", "CLIPVisionModel"),
    ("vision-projection", "CLIPVisionModelWithProjection"),
])  # fmt: skip
def test_what_we_write_is_loaded_whole(base, tmp_path, layout, kind):
    oj.save_checkpoint(tmp_path / "out", base.params, like=base, layout=layout)
    model, report = getattr(transformers, kind).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(report.values())
    with torch.no_grad():
        if kind == "CLIPModel":
            model = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path / "out")
        assert_features(base, features(model.eval(), base))
