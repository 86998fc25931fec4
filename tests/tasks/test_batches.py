import numpy as np
import pytest

from orthoreg_jax.tasks.batches import evaluation_batches, limited_rows, training_rows


@pytest.mark.parametrize("size, batch", [(10, 3), (3, 10), (8, 8), (7, 1)])
def test_every_epoch_sees_every_image_once(size, batch):
    steps = size * batch  # so many that whole epochs and whole batches meet
    rows = np.concatenate([training_rows(size, batch, step, seed=5) for step in range(steps)])
    for epoch in rows.reshape(-1, size):
        assert sorted(epoch) == list(range(size))


def test_rows_depend_on_seed_and_step_alone():
    np.testing.assert_array_equal(training_rows(50, 8, 7, 1), training_rows(50, 8, 7, 1))
    assert not np.array_equal(training_rows(50, 8, 7, 1), training_rows(50, 8, 7, 2))
    assert not np.array_equal(training_rows(50, 8, 7, 1), training_rows(50, 8, 8, 1))


@pytest.mark.parametrize("count", [1, 4, 5, 8])
def test_evaluation_batches_hold_every_image_once(count):
    images = np.arange(1, count * 12 + 1, dtype=np.uint8).reshape(count, 2, 2, 3)
    batches = evaluation_batches(images, 4)
    assert {batch.shape for batch in batches} == {(4, 2, 2, 3)}
    joined = np.concatenate(batches)
    np.testing.assert_array_equal(joined[:count], images)
    assert len(joined) < count + 4 and not joined[count:].any()


def test_limit():
    np.testing.assert_array_equal(limited_rows(5, 0), np.arange(5))
    np.testing.assert_array_equal(limited_rows(5, 9), np.arange(5))
    rows = limited_rows(100, 10)
    assert len(set(rows)) == 10 and list(rows) == sorted(rows)
