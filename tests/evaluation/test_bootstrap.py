import numpy as np
import pytest

from orthoreg_jax.evaluation.bootstrap import bootstrap_interval


def resampled(values, draws, rng):
    """Oracle: every image drawn by itself."""
    means = [
        np.mean([rng.choice(numbers, len(numbers)).mean() for numbers in values.values()])
        for _ in range(draws)
    ]
    return np.quantile(means, [0.025, 0.975])


def test_equals_drawing_single_images():
    rng = np.random.default_rng(1)
    values = {"a": rng.random(80) < 0.7, "b": rng.choice([-1 / 3, 0, 1], 150)}
    interval = bootstrap_interval(values, draws=4000)
    assert interval.mean == pytest.approx(np.mean([values["a"].mean(), values["b"].mean()]))
    low, high = resampled(values, 4000, rng)
    assert interval.low == pytest.approx(low, abs=0.006)
    assert interval.high == pytest.approx(high, abs=0.006)


def test_width_is_that_of_the_binomial():
    right = {"a": np.arange(1000) < 300}
    interval = bootstrap_interval(right, draws=10000)
    expected = 2 * 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.05)


def test_pairing_tells_models_apart_that_fail_on_the_same_images():
    first = np.arange(200) < 100
    second = first | (np.arange(200) >= 194)
    difference = bootstrap_interval({"a": second.astype(float) - first})
    assert difference.mean == pytest.approx(0.03)
    assert 0 < difference.low < difference.mean < difference.high


def test_same_seed_same_interval_and_no_spread_without_variation():
    values = {"a": np.array([0, 1, 1])}
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval({"a": np.ones(5)}) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("values", [{}, {"a": np.zeros(0)}])
def test_nothing_to_draw_from(values):
    with pytest.raises(ValueError, match="without images"):
        bootstrap_interval(values)
