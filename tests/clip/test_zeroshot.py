import jax.numpy as jnp
import numpy as np
import pytest

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.modules import TextTransformer
from orthoreg_jax.clip.preprocessing import tokenize
from orthoreg_jax.clip.zeroshot import Head, encode_texts, pad_heads, zero_shot_head


@pytest.fixture(scope="module")
def embedded():
    return load_checkpoint("embedded")


def test_head_is_the_mean_over_templates(embedded):
    classes, templates = ["cat", "fire truck"], ["a drawing of a {}", "a {}", "an icon of a {}"]
    head = zero_shot_head(embedded, classes, templates)
    tower = TextTransformer(embedded.config.text, embedded.config.projection)
    for row, name in zip(head, classes, strict=True):
        texts = [template.format(name) for template in templates]
        tokens = jnp.asarray(tokenize(texts, embedded.directory, embedded.config))
        features = np.asarray(tower.apply({"params": embedded.params["text"]}, tokens), np.float64)
        features /= np.linalg.norm(features, axis=1, keepdims=True)
        mean = features.mean(axis=0)
        expected = mean / np.linalg.norm(mean) * np.exp(embedded.params["logit_scale"])
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_more_texts_than_one_batch(embedded):
    texts = [f"a drawing number {number}" for number in range(300)]
    features = encode_texts(embedded, texts)
    assert features.shape == (300, embedded.config.projection)
    np.testing.assert_allclose(features[280:], encode_texts(embedded, texts[280:]), atol=1e-6)


def test_padding_never_wins():
    heads = pad_heads({"a": -np.ones((2, 3), np.float32), "b": np.ones((4, 3), np.float32)})
    assert {head.weights.shape for head in heads.values()} == {(4, 3)}
    logits = heads["a"].logits(jnp.ones((5, 3)))
    assert np.isneginf(logits[:, 2:]).all() and np.isfinite(logits[:, :2]).all()
    assert isinstance(heads["b"], Head) and int(heads["b"].classes) == 4


@pytest.mark.parametrize(
    "classes, templates, message",
    [
        (["cat"], ["a {}"], "1 class; a classification head needs at least 2"),
        (["cat", "dog"], [], "at least one"),
        (["cat", "dog"], ["a {}", "a photo"], "'a photo'"),
        (["cat", "dog"], ["{} and {}"], "'{} and {}'"),
    ],
)
def test_bad_input(embedded, classes, templates, message):
    with pytest.raises(ValueError, match=message):
        zero_shot_head(embedded, classes, templates)
