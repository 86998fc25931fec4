"""Counts with their words, and the name that was probably meant."""

import doctest

import pytest

from orthoreg_jax import words


def test_examples():
    assert doctest.testmod(words).failed == 0


@pytest.mark.parametrize("number, word", [(0, "tasks"), (1, "task"), (2, "tasks"), (1000, "tasks")])
def test_a_word_goes_with_its_number(number, word):
    assert words.plural(number, "task") == word
    assert words.counted(number, "task") == f"{number} {word}"
    assert words.plural(number, "is", "are") == ("is" if number == 1 else "are")


@pytest.mark.parametrize(
    "name, likeness, near",
    [
        ("mnits", 0.6, "mnist"),
        ("MNIST", 0.6, "mnist"),
        ("Fashion-Mnist", 0.6, "fashion_mnist"),
        ("mnits", 0.9, ""),
        ("zebra", 0.6, ""),
        ("", 0.6, ""),
    ],
)
def test_the_nearest_name(name, likeness, near):
    assert words.nearest(name, ["mnist", "fashion_mnist", "emoji"], likeness) == near
    assert words.nearest(name, []) == ""
