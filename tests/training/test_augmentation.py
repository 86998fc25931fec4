import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from orthoreg_jax.training.augmentation import crop, draw_boxes, random_resized_crop


def smooth_images(count, size=32):
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(3 * x + i) * np.cos(4 * y + c) for i in range(count) for c in range(3)]
    stack = np.stack(waves).reshape(count, 3, size, size).transpose(0, 2, 3, 1)
    return ((stack + 1) * 127).astype(np.uint8)


def test_whole_image_comes_back():
    images = jnp.asarray(smooth_images(3))
    crops = random_resized_crop(jax.random.key(0), images, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(crops, images, atol=1e-2)


@pytest.mark.parametrize("tall, wide, top, left", [(0.8, 0.8, 0.5, 0.1), (0.7, 1.0, 1.0, 0.0)])
def test_crop_equals_pillow_s_bicubic(tall, wide, top, left):
    image = smooth_images(1)[0]
    place = [jnp.float32(value) for value in (tall, wide, top, left)]
    ours = jnp.clip(crop(jnp.asarray(image, jnp.float32), *place), 0, 255)
    x, y = left * (1 - wide) * 32, top * (1 - tall) * 32
    expected = Image.fromarray(image).resize(
        (32, 32), Image.Resampling.BICUBIC, box=(x, y, x + wide * 32, y + tall * 32)
    )
    # Pillow rounds to whole values after each of two passes (0.5, and 0.5 times the absolute sum
    # of the weights, 1.25), and does not look beyond the box, as we do at its rim.
    difference = np.abs(np.asarray(ours) - np.asarray(expected))
    assert difference[2:-2, 2:-2].max() < 1.13


@pytest.mark.parametrize("shape", [(4000, 32, 32), (4000, 24, 40)])
def test_boxes_are_those_of_trying_until_one_fits(shape):
    """Against the recipe written as a loop, by its distribution."""
    tall, wide = draw_boxes(jax.random.key(0), shape, (0.9, 1.0), (3 / 4, 4 / 3))
    count, height, width = shape
    rng, areas = np.random.default_rng(0), []
    for _ in range(count):
        for _ in range(10):
            area = rng.uniform(0.9, 1.0) * height * width
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            h, w = np.sqrt(area / aspect), np.sqrt(area * aspect)
            if h <= height and w <= width:
                break
        else:
            h, w = height, width
        areas.append((h / height, w / width))
    expected, drawn = np.array(areas).T, np.stack([tall, wide])
    assert drawn.max() <= 1
    share = drawn[0] * drawn[1]
    assert share.min() >= 0.9 - 1e-6
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(
            np.quantile(drawn, quantile, axis=1),
            np.quantile(expected, quantile, axis=1),
            atol=0.01,
        )


def test_deterministic_in_the_key_and_in_range():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)), jnp.uint8)
    first = random_resized_crop(jax.random.key(3), images)
    np.testing.assert_array_equal(first, random_resized_crop(jax.random.key(3), images))
    assert not np.array_equal(first, random_resized_crop(jax.random.key(4), images))
    assert first.min() >= 0 and first.max() <= 255 and first.dtype == jnp.float32
