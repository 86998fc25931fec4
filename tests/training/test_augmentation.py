import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from orthoreg_jax.training.augmentation import random_resized_crop


def smooth_images(count, size=32):
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [np.sin(3 * x + i) * np.cos(4 * y + c) for i in range(count) for c in range(3)]
    stack = np.stack(waves).reshape(count, 3, size, size).transpose(0, 2, 3, 1)
    return ((stack + 1) * 127).astype(np.uint8)


def test_whole_image_comes_back():
    images = jnp.asarray(smooth_images(3))
    crops = random_resized_crop(jax.random.key(0), images, scale=(1.0, 1.0), ratio=(1.0, 1.0))
    np.testing.assert_allclose(crops, images, atol=1e-2)


def test_equals_pillow_s_bicubic_crop():
    """Whatever box the key draws, some box of Pillow's with that shape gives the same picture."""
    images = smooth_images(1)
    # One value for each random quantity: the box is (0.8 h, 0.8 w), its place is drawn.
    crop = random_resized_crop(
        jax.random.key(1), jnp.asarray(images), scale=(0.64, 0.64), ratio=(1.0, 1.0)
    )
    _, _, y_key, x_key = jax.random.split(jax.random.key(1), 4)
    top = float(jax.random.uniform(y_key, (1,))[0]) * 0.2 * 32
    left = float(jax.random.uniform(x_key, (1,))[0]) * 0.2 * 32
    box = (left, top, left + 25.6, top + 25.6)
    expected = Image.fromarray(images[0]).resize((32, 32), Image.Resampling.BICUBIC, box=box)
    # Pillow rounds to whole values after each of two passes (0.5, and 0.5 times the absolute sum
    # of the weights, 1.25), and may read beyond the box where it enlarges.
    difference = np.abs(np.asarray(crop[0]) - np.asarray(expected))
    assert difference[2:-2, 2:-2].max() < 1.13


def test_deterministic_in_the_key_and_in_range():
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)), jnp.uint8)
    first = random_resized_crop(jax.random.key(3), images)
    np.testing.assert_array_equal(first, random_resized_crop(jax.random.key(3), images))
    assert not np.array_equal(first, random_resized_crop(jax.random.key(4), images))
    assert first.min() >= 0 and first.max() <= 255 and first.dtype == jnp.float32
