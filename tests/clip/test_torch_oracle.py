"""ViT-B/32 against transformers' CLIPModel in torch; skipped where torch is not installed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from orthoreg_jax import cli
from orthoreg_jax.clip.checkpoint import image_encoder, load_checkpoint, save_checkpoint
from orthoreg_jax.clip.modules import Clip
from orthoreg_jax.clip.preprocessing import load_preprocessing
from tests.clip.test_parity import relative_error

torch = pytest.importorskip("torch", reason="the oracle needs torch, the package does not")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("oracle") / "vit-b-32"
    config = transformers.CLIPConfig()  # the sizes of ViT-B/32
    oracle = transformers.CLIPModel(config).eval()
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            if name != "logit_scale":
                parameter.add_(torch.randn_like(parameter) * 0.02)
    oracle.save_pretrained(directory)
    return oracle, load_checkpoint(directory)


def test_logits_and_gradients_of_vit_b_32(models):
    oracle, checkpoint = models
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(2, 224, 224, 3)).astype(np.float32)
    tokens = rng.integers(0, 49405, (3, 77)).astype(np.int32)
    tokens[:, 40:] = 49407
    model = Clip(checkpoint.config)

    def loss(params):
        logits = model.apply({"params": params}, jnp.asarray(pixels), jnp.asarray(tokens))
        return jnp.sum(jnp.sin(logits)), logits

    (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(checkpoint.params)
    output = oracle.double()(
        input_ids=torch.from_numpy(tokens).long(),
        pixel_values=torch.from_numpy(pixels).double().permute(0, 3, 1, 2),
    )
    torch.sin(output.logits_per_image).sum().backward()
    assert relative_error(logits, output.logits_per_image.detach()) < 1e-5
    ours = gradient["visual"]["blocks"]["mlp"]["fc1"]["kernel"][5]
    theirs = oracle.vision_model.encoder.layers[5].mlp.fc1.weight.grad.T
    assert relative_error(ours, theirs) < 1e-5


def test_what_we_save_transformers_loads(models, tmp_path):
    oracle, checkpoint = models
    directory = save_checkpoint(tmp_path / "saved", checkpoint.params, checkpoint)
    again = transformers.CLIPModel.from_pretrained(directory)
    for name, tensor in oracle.float().state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_exported_models_have_the_same_features(finished, tmp_path):
    """transformers' CLIPModel and processor on what `orthoreg export` and `merge` write."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 40, 48, 3), dtype=np.uint8)
    commands = (
        ["export"],
        ["export", "--tasks", "first"],
        ["export", "--forget", "second"],
        ["merge", "--merger", "tsv_m"],
        ["merge", "--merger", "ties", "--alpha", "0.5"],
    )
    for place, command in enumerate(commands):
        out = tmp_path / str(place)
        run = ["--workdir", str(finished), "--method", "full+orthoreg"]
        assert cli.main([*command, *run, "--out", str(out)]) == 0
        checkpoint = load_checkpoint(out)
        preprocessing = load_preprocessing(out, checkpoint.config)
        pixels = preprocessing.normalize(jnp.asarray(preprocessing.resize(list(images))))
        ours = image_encoder(checkpoint.config)(checkpoint.params["visual"], pixels)
        processor = transformers.CLIPImageProcessorPil.from_pretrained(out)
        theirs = (
            transformers.CLIPModel.from_pretrained(out)
            .eval()
            .get_image_features(**processor(images=list(images), return_tensors="pt"))
        )
        theirs = getattr(theirs, "pooler_output", theirs).detach()
        assert relative_error(ours, theirs) < 1e-5
