"""PCB against its steps in NumPy, from memory and from files, and order statistics in pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orthoreg_jax as oj
from orthoreg_jax.merging.files import merge_files
from orthoreg_jax.merging.order_statistics import kth_smallest

SHAPES = {"stack": (3, 20, 30), "w": (40, 10), "bias": (9,)}


def vectors(tasks, scale=1.0, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [
        {name: jnp.asarray(scale * rng.normal(size=shape), dtype) for name, shape in SHAPES.items()}
        for _ in range(tasks)
    ]


def oracle(rows, fraction):
    flat = np.stack([np.concatenate([np.ravel(row[name]) for name in SHAPES]) for row in rows])
    tasks, size = flat.shape

    def clamp(numbers, low, high):
        ordered = np.sort(numbers, axis=1)
        return np.clip(numbers, ordered[:, [int(size * low)]], ordered[:, [int(size * high - 1)]])

    def spread(numbers):
        low, high = numbers.min(axis=1, keepdims=True), numbers.max(axis=1, keepdims=True)
        return (numbers - low) / (high - low)

    magnitude = clamp(np.abs(flat), 1e-4, 1 - 1e-4)
    balance = np.exp(tasks * spread(magnitude) ** 2) * np.tanh(flat * flat.sum(axis=0))
    weights = spread(clamp(balance, 1 - fraction, 1.0))
    merged = (weights * np.sign(flat) * magnitude).sum(axis=0)
    merged = merged / np.maximum(weights.sum(axis=0), 1e-12)
    parts = np.split(merged, np.cumsum([np.prod(shape) for shape in SHAPES.values()])[:-1])
    return {name: part.reshape(SHAPES[name]) for name, part in zip(SHAPES, parts, strict=True)}


@pytest.mark.parametrize(
    "tasks, fraction, scale", [(3, 0.1, 1.0), (2, 0.5, 1e-2), (4, 1.0, 0.3), (1, 0.2, 1.0)]
)
@pytest.mark.parametrize("traced", [False, True])
def test_steps(tasks, fraction, scale, traced):
    with jax.enable_x64(True):
        rows = vectors(tasks, scale, jnp.float64)
        merge = lambda rows: oj.merge_task_vectors(rows, oj.pcb(fraction))  # noqa: E731
        found = (jax.jit(merge) if traced else merge)(rows)
    for name, leaf in oracle(rows, fraction).items():
        np.testing.assert_allclose(found[name], leaf, atol=1e-10)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_float32_keeps_what_is_just_above_the_cut(fraction):
    """Updates have heavy tails: the balance at the cut is a thousandth of its maximum."""
    rng = np.random.default_rng(1)
    wide = [{"w": 3e-3 * rng.standard_t(3, size=(500, 800))} for _ in range(3)]
    narrow = [{"w": jnp.asarray(row["w"], jnp.float32)} for row in wide]
    with jax.enable_x64(True):
        exact = [{"w": jnp.asarray(row["w"], jnp.float64)} for row in narrow]
        expected = np.asarray(oj.merge_task_vectors(exact, oj.pcb(fraction))["w"])
    found = np.asarray(oj.merge_task_vectors(narrow, oj.pcb(fraction))["w"])
    differs = abs(found - expected) > 1e-4 * abs(expected) + 1e-7
    assert differs.sum() <= 4  # entries at the cut itself, of 400,000
    assert np.linalg.norm((found - expected)[~differs]) < 1e-5 * np.linalg.norm(expected)


def test_from_files_and_with_a_zero_vector(tmp_path):
    rows = [*vectors(2), jax.tree.map(jnp.zeros_like, vectors(1)[0])]
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file, row in zip(files, rows, strict=True):
        oj.save_tree(file, row)
    found = merge_files(files, oj.pcb(), matrices={"stack": oj.Matrix()}).vector
    expected = oj.merge_task_vectors(rows, oj.pcb(), matrices={"stack": oj.Matrix()})
    for name, leaf in expected.items():
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
        # Weights near 0 have few digits, and their mean has as many.
        np.testing.assert_allclose(found[name], leaf, atol=2e-4)


def test_entries_of_little_weight_are_nothing():
    found = oj.merge_task_vectors(vectors(1), oj.pcb(0.1))
    kept = np.concatenate([np.ravel(found[name]) != 0 for name in SHAPES])
    assert 0.05 < kept.mean() <= 0.1


NUMBERS = st.floats(width=32, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(st.lists(NUMBERS, min_size=6, max_size=6), st.sampled_from([np.float32, np.float64]))
def test_kth_smallest_is_exact(entries, dtype):
    rows = np.array(entries, dtype).reshape(2, 3)
    pieces = lambda: iter([rows[:, :1], rows[:, 1:]])  # noqa: E731
    np.testing.assert_array_equal(kth_smallest(pieces, (0, 1, 2)), np.sort(rows, axis=1))


def test_kth_smallest_of_nan_is_nan():
    assert np.isnan(kth_smallest(lambda: [np.array([[1.0, np.nan]])], (0,))).all()
