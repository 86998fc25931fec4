import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.preprocessing import load_preprocessing, tokenize


@pytest.mark.parametrize("size", [(300, 200), (224, 224), (90, 260)])
def test_equals_clip_s_own_preprocessing(tmp_path, size):
    """Resize, crop and normalisation as CLIPImageProcessor does them in one go, for ViT-B/32."""
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    expected = CLIPImageProcessorPil()(images=[image, image.convert("L")], return_tensors="np")
    preprocessing = load_preprocessing(tmp_path, PRESETS["ViT-B/32"])
    resized = preprocessing.resize([image, image.convert("L")])
    assert resized.dtype == np.uint8 and resized.shape == (2, 224, 224, 3)
    ours = np.asarray(preprocessing.normalize(jnp.asarray(resized))).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(ours, expected["pixel_values"], atol=2e-6)


def test_images_of_the_right_size_pass_unchanged():
    checkpoint = load_checkpoint("embedded")
    preprocessing = load_preprocessing(checkpoint.directory, checkpoint.config)
    images = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    assert preprocessing.resize(images) is images
    # The short cut gives what the processor would.
    np.testing.assert_array_equal(preprocessing.resize(list(images)), images)


def test_images_of_the_crop_s_size_are_still_resized_where_the_file_says_so(tmp_path):
    checkpoint = load_checkpoint("embedded")
    (tmp_path / "preprocessor_config.json").write_text(
        '{"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 40}}'
    )
    preprocessing = load_preprocessing(tmp_path, checkpoint.config)
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    resized = preprocessing.resize(images)
    assert not np.array_equal(resized, images)
    np.testing.assert_array_equal(resized, preprocessing.resize(list(images)))


@pytest.mark.parametrize(
    "shape", [(1, 9, 3), (3, 9, 3), (4, 9, 3), (9, 1, 3), (3, 3, 3), (1, 1, 3)]
)
def test_few_rows_are_no_channels(tmp_path, shape):
    """Arrays as Pillow resizes them: the shorter side to 224, the middle cut out."""
    pixels = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    height, width = shape[:2]
    scale = 224 / min(height, width)
    size = (int(width * scale), int(height * scale))
    large = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    expected = np.asarray(large.crop((left, top, left + 224, top + 224)))
    preprocessing = load_preprocessing(tmp_path, PRESETS["ViT-B/32"])
    np.testing.assert_array_equal(preprocessing.resize([pixels])[0], expected)


def test_damaged_files_are_named(tmp_path):
    config = load_checkpoint("embedded").config
    for name, read in {
        "preprocessor_config.json": lambda: load_preprocessing(tmp_path, config),
        "tokenizer.json": lambda: tokenize(["a"], tmp_path, config),
    }.items():
        (tmp_path / name).write_text("{")
        with pytest.raises(ValueError, match=f"{tmp_path}.*cannot be read.*again"):
            read()


def test_tokenizer_of_another_model(tmp_path):
    checkpoint = load_checkpoint("embedded")
    other = dataclasses.replace(checkpoint.config.text, eos_token_id=7)
    config = dataclasses.replace(checkpoint.config, text=other)
    with pytest.raises(ValueError, match="ends a text with 1, config.json says 7"):
        tokenize(["a"], checkpoint.directory, config)
    smaller = dataclasses.replace(checkpoint.config.text, vocab_size=100)
    config = dataclasses.replace(checkpoint.config, text=smaller)
    with pytest.raises(ValueError, match="the model 100; use the tokenizer that belongs"):
        tokenize(["a"], checkpoint.directory, config)


def test_tokenizers_that_the_text_tower_cannot_use(tmp_path):
    checkpoint = load_checkpoint("embedded")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint.directory / name, tmp_path / name)
    # A configuration that names no end of text reads the largest id; here that is another token.
    legacy = dataclasses.replace(checkpoint.config.text, eos_token_id=2)
    config = dataclasses.replace(checkpoint.config, text=legacy)
    with pytest.raises(ValueError, match="ends a text with 1, which is not its largest id"):
        tokenize(["a drawing"], tmp_path, config)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": None}))
    with pytest.raises(ValueError, match="the tokenizer has no pad_token; set it"):
        tokenize(["a drawing"], tmp_path, checkpoint.config)


def test_crop_must_fit_the_model(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        '{"crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}'
    )
    with pytest.raises(ValueError, match=r"crops to \(32, 32\), but the model reads \(224, 224\)"):
        load_preprocessing(tmp_path, PRESETS["ViT-B/32"])


def test_tokens_are_those_of_the_directory_s_tokenizer(tmp_path):
    checkpoint = load_checkpoint("embedded")
    texts = ["a drawing of a fire truck", "A  Drawing of a fire truck", "star " * 40]
    with pytest.raises(ValueError, match="1 text exceeds the model's limit of 16 tokens"):
        tokenize(texts, checkpoint.directory, checkpoint.config)
    tokens = tokenize(texts, checkpoint.directory, checkpoint.config, truncate=True)
    assert tokens.shape == (3, checkpoint.config.text.context_length)
    np.testing.assert_array_equal(tokens[0], tokens[1])
    tokenizer = transformers.CLIPTokenizer.from_pretrained(checkpoint.directory)
    words = tokenizer.convert_ids_to_tokens(tokens[0])
    assert words[:2] == ["<|startoftext|>", "a</w>"]
    assert words.index("<|endoftext|>") >= 7
    assert tokens[2, -1] == checkpoint.config.text.eos_token_id  # cut, but still ended
    with pytest.raises(ValueError, match="has no tokenizer"):
        tokenize(texts, tmp_path, checkpoint.config)


@pytest.mark.parametrize("std", [[0.5, 0.0, 0.5], [0.5, -0.1, 0.5], [0.5, float("nan"), 0.5]])
def test_nothing_is_divided_by_zero(tmp_path, std):
    values = {"image_std": std, "crop_size": {"height": 32, "width": 32}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="preprocessor_config.json: image_std is .*above 0"):
        load_preprocessing(tmp_path, load_checkpoint("embedded").config)
