"""Random resized crops on the device, as a pure function of a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

TRIES = 10


def random_resized_crop(
    key: PRNGKeyArray,
    images: Shaped[Array, "b h w c"],
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, "b h w c"]:
    """Crops a random box from each image and resizes it back, bicubic with antialiasing.

    This is the usual recipe, CLIP's training augmentation with the default arguments: a uniform
    share of the area and a log-uniform aspect ratio are drawn until the box fits into the image, at
    most 10 times; then the whole image is used.

    Args:
      key: one key for the batch.
      images: any real type, with values on any scale.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width / height.

    Returns:
      float32 images of the same shape; within the range of uint8 if `images` are uint8.
    """
    box_key, place_key = jax.random.split(key)
    tall, wide = draw_boxes(box_key, images.shape[:3], scale, ratio)
    top, left = jax.random.uniform(place_key, (2, len(images)))
    crops = jax.vmap(crop)(images.astype(jnp.float32), tall, wide, top, left)
    # Bicubic weights overshoot at edges, beyond the values that an image file could contain.
    return jnp.clip(crops, 0.0, 255.0) if images.dtype == jnp.uint8 else crops


def draw_boxes(
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Height and width of each box, as shares of the image's; `shape` is (b, h, w)."""
    count, height, width = shape
    area_key, ratio_key = jax.random.split(key)
    share = jax.random.uniform(area_key, (TRIES, count), minval=scale[0], maxval=scale[1])
    low, high = jnp.log(jnp.array(ratio))
    aspect = jnp.exp(jax.random.uniform(ratio_key, (TRIES, count), minval=low, maxval=high))
    tall = jnp.sqrt(share / aspect * width / height)  # the aspect ratio is in pixels
    wide = jnp.sqrt(share * aspect * height / width)
    fits = (tall <= 1) & (wide <= 1)
    first = jnp.argmax(fits, axis=0), jnp.arange(count)
    none = ~jnp.any(fits, axis=0)
    return jnp.where(none, 1.0, tall[first]), jnp.where(none, 1.0, wide[first])


def crop(
    image: Float[Array, "h w c"],
    tall: Float[Array, ""],
    wide: Float[Array, ""],
    top: Float[Array, ""],
    left: Float[Array, ""],
) -> Float[Array, "h w c"]:
    """Enlarges a box of an image to the image's size.

    Args:
      image: one image.
      tall: height of the box, as a share of the image's height.
      wide: width of the box, as a share of the image's width.
      top: position of the box, from 0 (top) to 1 (bottom).
      left: position of the box, from 0 (left) to 1 (right).
    """
    sides, place = jnp.stack([tall, wide]), jnp.stack([top, left])
    corner = place * (1 - sides) * jnp.array(image.shape[:2])
    return jax.image.scale_and_translate(
        image, image.shape, (0, 1), 1 / sides, -corner / sides, "cubic"
    )
