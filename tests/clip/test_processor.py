"""What a checkpoint's files say of preprocessing, against transformers' own reading of them."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from orthoreg_jax.clip.checkpoint import load_checkpoint, save_checkpoint
from orthoreg_jax.clip.config import PRESETS
from orthoreg_jax.clip.preprocessing import load_preprocessing

CONFIG = PRESETS["ViT-B/32"]
SIDE = CONFIG.visual.image_size
NESTED, ALONE = "processor_config.json", "preprocessor_config.json"
SQUARE = {"height": SIDE, "width": SIDE}
LAION = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
# As openai/clip-vit-base-patch32 has it, from before transformers knew rescaling.
OPENAI = {
    "crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3, "size": 224,
}  # fmt: skip


def write(directory, name, values):
    stated = {"image_processor": values, "processor_class": "CLIPProcessor"}
    (directory / name).write_text(json.dumps(stated if name == NESTED else values))


def pixels_by(preprocessing, images):
    resized = preprocessing.resize(images)
    return np.asarray(preprocessing.normalize(jnp.asarray(resized))).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    shapes = [(300, 200, 3), (224, 224, 3), (90, 261, 3)]
    return [Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)) for shape in shapes]


@pytest.mark.parametrize("name", [NESTED, ALONE])
@pytest.mark.parametrize("values", [
    {},
    OPENAI,
    LAION,
    LAION | {"do_normalize": False},
    LAION | {"do_rescale": False},
    LAION | {"rescale_factor": 1 / 127.5},
    LAION | {"do_rescale": False, "do_normalize": False},
    {"size": {"shortest_edge": 256}},
    {"size": {"shortest_edge": 100}},
    {"size": SQUARE, "do_center_crop": False, "resample": 2},
    {"size": [SIDE, SIDE], "crop_size": [SIDE, SIDE]},
    {"size": SIDE, "default_to_square": True},
    {"do_resize": False},
])  # fmt: skip
def test_pixels_are_transformers(tmp_path, images, name, values):
    write(tmp_path, name, values)
    expected = CLIPImageProcessorPil.from_pretrained(tmp_path)(images, return_tensors="np")
    ours = load_preprocessing(tmp_path, CONFIG)
    scale = max(1, np.abs(expected["pixel_values"]).max())
    np.testing.assert_allclose(
        pixels_by(ours, images), expected["pixel_values"], atol=2e-6 * scale, rtol=0
    )


def test_the_nested_processor_counts_as_in_transformers(tmp_path, images):
    write(tmp_path, NESTED, LAION)
    write(tmp_path, ALONE, OPENAI)
    found = load_preprocessing(tmp_path, CONFIG)
    assert found.normalize.mean == (0.5, 0.4, 0.3)
    expected = CLIPImageProcessorPil.from_pretrained(tmp_path)(images, return_tensors="np")
    np.testing.assert_allclose(pixels_by(found, images), expected["pixel_values"], atol=2e-6)
    assert any("preprocessor_config.json next to it differs" in note for note in found.notes)
    write(tmp_path, ALONE, LAION)
    assert not any("otherwise" in note for note in load_preprocessing(tmp_path, CONFIG).notes)
    # A processor of before, which has nothing of images in it.
    (tmp_path / NESTED).write_text('{"processor_class": "CLIPProcessor"}')
    write(tmp_path, ALONE, OPENAI)
    assert load_preprocessing(tmp_path, CONFIG).normalize.std[0] == 0.26862954


def test_what_is_taken_by_default_is_said(tmp_path):
    (note,) = load_preprocessing(tmp_path, CONFIG).notes
    assert "no file describes the image preprocessing; using OpenAI's values" in note
    write(tmp_path, ALONE, {"image_mean": [0.5] * 3})
    (note,) = load_preprocessing(tmp_path, CONFIG).notes
    assert (
        "preprocessor_config.json: does not state size, crop_size, image_std; using CLIP's" in note
    )
    write(tmp_path, ALONE, OPENAI)
    assert load_preprocessing(tmp_path, CONFIG).notes == ()


@pytest.mark.parametrize("values, message", [
    ({"crop_size": None}, "crop_size is None, allowed: a number of pixels or"),
    ({"crop_size": {"shortest_edge": 224}}, "crop_size is {'shortest_edge': 224}, allowed"),
    ({"crop_size": 32}, r"crops to \(32, 32\), but the model reads \(224, 224\)"),
    ({"image_std": 0.5}, "image_std is 0.5, allowed: three numbers above 0"),
    ({"image_std": [0.5, 0.5, 0]}, r"image_std is \[0.5, 0.5, 0\], allowed: three numbers above"),
    ({"image_mean": [0.5, None, 0.5]}, "image_mean is .*, allowed: three numbers"),
    ({"image_mean": [0.5, 0.5]}, "image_mean is .*, allowed: three numbers"),
    ({"size": {"shortest_edge": 10**6}}, "at most 8 times .* 224 px"),
    ({"size": {"longest_edge": 224}}, "size is {'longest_edge': 224}, allowed"),
    ({"size": {"shortest_edge": -1}}, "size is {'shortest_edge': -1}, allowed"),
    ({"size": True}, "size is True, allowed"),
    ({"do_resize": "no"}, "do_resize is 'no', allowed: true or false"),
    ({"do_rescale": 0}, "do_rescale is 0, allowed: true or false"),
    ({"resample": 9}, "resample is 9, allowed: a filter"),
    ({"rescale_factor": 0}, "rescale_factor is 0, allowed: a number above 0"),
    ({"do_center_crop": False}, "do_center_crop is false, but do_resize does not give"),
    ({"do_pad": True}, "do_pad is True, which is not supported"),
    ({"image_processor_type": "ViTImageProcessor"}, "type is 'ViTImageProcessor', allowed: CLIP"),
])  # fmt: skip
@pytest.mark.parametrize("name", [NESTED, ALONE])
def test_what_is_refused_is_named(tmp_path, name, values, message):
    write(tmp_path, name, values)
    with pytest.raises(ValueError, match=f"(?s){name}: .*{message}"):
        load_preprocessing(tmp_path, CONFIG)


def test_all_problems_in_one_message(tmp_path):
    write(tmp_path, ALONE, {"image_std": 1, "do_resize": None, "size": []})
    with pytest.raises(ValueError, match="image_std is 1.*; do_resize is None.*; size is"):
        load_preprocessing(tmp_path, CONFIG)


@pytest.mark.parametrize("text", ["{", "[]", '{"image_processor": 3}', "[" * 10**5])
def test_files_that_are_no_table(tmp_path, text):
    (tmp_path / NESTED).write_text(text)
    with pytest.raises(ValueError, match=f"{NESTED}: "):
        load_preprocessing(tmp_path, CONFIG)


OPEN_CLIP = {"model_cfg": {"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}}


@pytest.mark.parametrize("stated, values", [
    ({"mean": LAION["image_mean"], "std": LAION["image_std"]}, LAION),
    ({"interpolation": "random", "resize_mode": "shortest", "size": [3, SIDE, SIDE]}, {}),
    ({"interpolation": "bilinear"}, {"resample": 2}),
    ({"resize_mode": "squash", "mode": "RGB", "size": SIDE}, {"size": SQUARE}),
])  # fmt: skip
def test_open_clips_words(tmp_path, images, stated, values):
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps(OPEN_CLIP | {"preprocess_cfg": stated})
    )
    # A file of transformers' beside it is of another model.
    write(tmp_path, ALONE, {"image_mean": [0.9] * 3})
    expected = CLIPImageProcessorPil(**values)(images, return_tensors="np")["pixel_values"]
    ours = load_preprocessing(tmp_path, CONFIG)
    np.testing.assert_allclose(pixels_by(ours, images), expected, atol=2e-6)


@pytest.mark.parametrize("stated, message", [
    ({"resize_mode": "longest"}, "resize_mode is 'longest', allowed: shortest, squash"),
    ({"interpolation": "area"}, "interpolation is 'area', allowed: bicubic"),
    ({"std": 0.5}, "std is 0.5, allowed: three numbers above 0"),
    ({"size": [3, 9, 9]}, r"size is \[3, 9, 9\], allowed"),
    ({"gamma": 2}, "has gamma, which is not supported"),
])  # fmt: skip
def test_what_of_open_clip_is_refused(tmp_path, stated, message):
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps(OPEN_CLIP | {"preprocess_cfg": stated})
    )
    with pytest.raises(ValueError, match=f"open_clip_config.json: preprocess_cfg: {message}"):
        load_preprocessing(tmp_path, CONFIG)


@pytest.mark.parametrize("values", [
    LAION | {"size": 32, "crop_size": 32},
    {"size": 40, "crop_size": 32, "do_rescale": False},
    {"size": [32, 32], "do_center_crop": False, "do_normalize": False, "resample": 2},
])  # fmt: skip
def test_what_is_written_onward_is_the_same(tmp_path, images, values):
    """By a merge or an export: what transformers reads then, and what we do."""
    embedded = load_checkpoint("embedded")
    source = save_checkpoint(tmp_path / "source", embedded.params, embedded)
    (source / ALONE).unlink()
    write(source, NESTED, values)
    loaded = load_checkpoint(source)
    out = save_checkpoint(tmp_path / "out", loaded.params, loaded)
    assert not (out / NESTED).exists()  # of a form that some versions do not read
    expected = CLIPImageProcessorPil.from_pretrained(source)(images, return_tensors="np")
    again = CLIPImageProcessorPil.from_pretrained(out)(images, return_tensors="np")
    np.testing.assert_array_equal(again["pixel_values"], expected["pixel_values"])
    ours = load_checkpoint(out).preprocessing
    assert dataclasses.asdict(ours.normalize) == dataclasses.asdict(loaded.preprocessing.normalize)
    scale = max(1, np.abs(expected["pixel_values"]).max())
    np.testing.assert_allclose(
        pixels_by(ours, images), expected["pixel_values"], atol=2e-6 * scale, rtol=0
    )
