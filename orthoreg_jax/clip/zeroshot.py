"""Zero-shot classification heads from class names and prompt templates."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from orthoreg_jax.words import counted

from .checkpoint import Checkpoint, check_checkpoint
from .config import TextConfig
from .modules import TextTransformer, normalize
from .preprocessing import tokenize

BATCH = 256


@functools.cache
def _text_encoder(config: TextConfig, projection: int) -> Callable[[Any, Any], Any]:
    tower = TextTransformer(config, projection)

    def encode(params: Any, tokens: Any) -> Any:
        features: Any = tower.apply({"params": params}, tokens)  # a pair only with `mutable`
        return normalize(features)

    return jax.jit(encode)


def encode_texts(checkpoint: Checkpoint, texts: Sequence[str]) -> Float[np.ndarray, "t p"]:
    """Normalised features of texts, in batches of one compiled shape."""
    encode = _text_encoder(checkpoint.config.text, checkpoint.config.projection)
    tokens = tokenize(texts, checkpoint.tokenizer_directory, checkpoint.config)
    padded = np.pad(tokens, ((0, -len(tokens) % BATCH), (0, 0)), mode="edge")
    batches = padded.reshape(-1, BATCH, tokens.shape[1])
    features = [encode(checkpoint.params["text"], batch) for batch in batches]
    return np.concatenate(features)[: len(texts)]


def zero_shot_head(
    checkpoint: Checkpoint, classes: Sequence[str | Sequence[str]], templates: Sequence[str]
) -> Float[np.ndarray, "c p"]:
    """One weight vector per class; logits are `normalize(image_features) @ head.T`.

    For each class, this is the mean over templates of the normalised text features, normalised
    again and multiplied by exp(logit_scale): the head of CLIP (arXiv 2103.00020, section 3.1.4),
    which task arithmetic keeps frozen.

    Args:
      checkpoint: the model whose text tower is used.
      classes: at least two names as prompts should use them; several names of one class are a
        tuple, and each fills every template.
      templates: prompts with one "{}" each, for example "a photo of a {}".

    Raises:
      ValueError: not a checkpoint, fewer than two classes, no template, or a template without
        exactly one "{}".

    Examples:
      >>> clip = oj.load_checkpoint("embedded")
      >>> oj.zero_shot_head(clip, ["cat", "dog"], ["a photo of a {}."]).shape
      (2, 256)
    """
    check_checkpoint(checkpoint)
    if len(classes) < 2:
        raise ValueError(
            f"{counted(len(classes), 'class', 'classes')}; a classification head needs at least 2"
        )
    wrong = [template for template in templates if template.count("{}") != 1]
    if wrong or not templates:
        raise ValueError(
            f"templates {wrong or list(templates)}; each must contain '{{}}' once, in place of "
            "the class name; give at least one"
        )
    names = [(each,) if isinstance(each, str) else tuple(each) for each in classes]
    texts = [t.replace("{}", name) for group in names for name in group for t in templates]
    features = encode_texts(checkpoint, texts)
    ends = np.cumsum([len(group) * len(templates) for group in names])
    means = [group.mean(axis=0) for group in np.split(features, ends[:-1])]
    head = normalize(jnp.asarray(np.stack(means)))
    return np.asarray(jnp.exp(checkpoint.params["logit_scale"]) * head)


class Head(NamedTuple):
    """A frozen head; rows from `classes` on are padding, so that all tasks share one shape."""

    weights: Float[Array, "c p"]
    classes: Int[Array, ""]

    def logits(self, features: Float[Array, "*k b p"]) -> Float[Array, "*k b c"]:
        """Logits of image features (not yet normalised); minus infinity for padding."""
        # Some accelerators round float32 factors; this small product needs full precision.
        logits = jnp.matmul(normalize(features), self.weights.T, precision="highest")
        return jnp.where(jnp.arange(logits.shape[-1]) < self.classes, logits, -jnp.inf)


def pad_heads(heads: Mapping[str, Float[np.ndarray, "_ p"]]) -> dict[str, Head]:
    """Pads all heads to the shape of the one with the most classes."""
    largest = max(len(head) for head in heads.values())
    return {
        name: Head(jnp.pad(head, ((0, largest - len(head)), (0, 0))), jnp.int32(len(head)))
        for name, head in heads.items()
    }
