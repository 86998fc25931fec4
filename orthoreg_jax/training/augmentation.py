"""Random resized crops on the device, a pure function of a key."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped


def random_resized_crop(
    key: PRNGKeyArray,
    images: Shaped[Array, "b h w c"],
    scale: tuple[float, float] = (0.9, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, "b h w c"]:
    """Crops a random box out of each image and resizes it back, bicubic with antialiasing.

    The box covers a uniform share `scale` of the area, with a log-uniform aspect ratio; a side
    longer than the image is cut to it. CLIP's training augmentation (scale 0.9 to 1).

    Args:
      key: one key for the batch.
      images: any real type, values on any scale.
      scale: smallest and largest share of the area.
      ratio: smallest and largest width / height.

    Returns:
      float32 images of the same shape, within the range of uint8 where `images` are uint8.
    """
    count, height, width, channels = images.shape
    area_key, ratio_key, y_key, x_key = jax.random.split(key, 4)
    share = jax.random.uniform(area_key, (count,), minval=scale[0], maxval=scale[1])
    low, high = jnp.log(jnp.array(ratio))
    aspect = jnp.exp(jax.random.uniform(ratio_key, (count,), minval=low, maxval=high))
    # Sides of the box as shares of the image's sides (aspect is in pixels, hence h / w).
    tall = jnp.minimum(1.0, jnp.sqrt(share / aspect * width / height))
    wide = jnp.minimum(1.0, jnp.sqrt(share * aspect * height / width))
    top = jax.random.uniform(y_key, (count,)) * (1 - tall) * height
    left = jax.random.uniform(x_key, (count,)) * (1 - wide) * width

    def crop(image: Array, tall: Array, wide: Array, top: Array, left: Array) -> Array:
        zoom = jnp.stack([1 / tall, 1 / wide])
        return jax.image.scale_and_translate(
            image, (height, width, channels), (0, 1), zoom, -jnp.stack([top, left]) * zoom, "cubic"
        )

    crops = jax.vmap(crop)(images.astype(jnp.float32), tall, wide, top, left)
    # Bicubic weights overshoot at edges; an image file could not hold such values.
    return jnp.clip(crops, 0.0, 255.0) if images.dtype == jnp.uint8 else crops
