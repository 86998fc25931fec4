import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.clip.preprocessing import load_preprocessing
from orthoreg_jax.tasks.batches import training_rows
from orthoreg_jax.tasks.folder import FileImages
from orthoreg_jax.tasks.loading import Feed, Rotation, load_images, random_crop
from orthoreg_jax.tasks.split import ArrayImages, Split


@pytest.fixture(scope="module")
def preprocessing():
    checkpoint = load_checkpoint("embedded")
    return load_preprocessing(checkpoint.directory, checkpoint.config)


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    return Split(
        ArrayImages(rng.integers(0, 256, (21, 32, 32, 3), dtype=np.uint8)),
        rng.integers(0, 4, 21).astype(np.int32),
    )


def as_files(split, folder):
    paths = []
    for row in range(len(split)):
        paths.append(f"{row:03d}.png")
        PIL.Image.fromarray(split.images[row]).save(folder / paths[-1])
    return Split(FileImages(folder, tuple(paths)), split.labels)


def test_files_give_the_same_batches_as_arrays(pictures, preprocessing, tmp_path):
    files = as_files(pictures, tmp_path)
    rows = [5, 0, 20]
    np.testing.assert_array_equal(
        load_images(files.images, rows, preprocessing),
        load_images(pictures.images, rows, preprocessing),
    )
    for scale in (1.0, 0.8):
        feeds = [Feed(split, preprocessing, 4, 3, scale) for split in (pictures, files)]
        for a, b in zip(*(feed.batches(0, 7) for feed in feeds), strict=True):
            np.testing.assert_array_equal(a[0], b[0])
            np.testing.assert_array_equal(a[1], b[1])


def test_batches_are_rows_of_shuffled_epochs(pictures, preprocessing):
    batches = list(Feed(pictures, preprocessing, 4, 3).batches(0, 12))  # over two epochs
    assert len(batches) == 12
    for step, (images, labels) in enumerate(batches):
        rows = training_rows(21, 4, step, 3)
        np.testing.assert_array_equal(images, pictures.images.array[rows])
        np.testing.assert_array_equal(labels, pictures.labels[rows])


def test_a_rotation_takes_a_batch_of_each_feed_in_turn_from_any_step_on(pictures, preprocessing):
    feeds = tuple(Feed(pictures, preprocessing, 4, seed, 0.7) for seed in (3, 4, 5))
    expected = [images for step in range(3) for images, _ in (feed.batch(step) for feed in feeds)]
    for first in (0, 4):
        batches = list(Rotation(feeds).batches(first, 9))
        assert len(batches) == 9 - first
        for ours, theirs in zip(batches, expected[first:], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_resumed_batches_are_those_that_were_to_come(pictures, preprocessing):
    feed = Feed(pictures, preprocessing, 4, 3, 0.7)
    whole, rest = list(feed.batches(0, 8)), list(feed.batches(5, 8))
    for a, b in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(a[0], b[0])


def test_processes_share_every_batch(pictures, preprocessing):
    whole = list(Feed(pictures, preprocessing, 6, 1, 0.7).batches(2, 6))
    parts = [
        list(Feed(pictures, preprocessing, 6, 1, 0.7, process, 3).batches(2, 6))
        for process in range(3)
    ]
    for step, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(images, np.concatenate([p[step][0] for p in parts]))
        np.testing.assert_array_equal(labels, np.concatenate([p[step][1] for p in parts]))


def test_seeds_differ_in_order_and_in_crops(pictures, preprocessing):
    first, second = (
        next(Feed(pictures, preprocessing, 21, seed, 0.7).batches(0, 1)) for seed in (0, 1)
    )
    assert not np.array_equal(first[1], second[1])
    # An image of epoch 0 and of epoch 1 is not cropped alike.
    same = Split(ArrayImages(pictures.images.array[:1]), pictures.labels[:1])
    (images, _), (again, _) = Feed(same, preprocessing, 1, 0, 0.5).batches(0, 2)
    assert not np.array_equal(images, again)


def test_a_whole_crop_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    crops = [random_crop(np.random.default_rng(seed), image, 9, 1.0) for seed in range(200)]
    # Of ratios around 1 only those fit whose box is rounded to the whole picture.
    assert all(np.array_equal(crop, image) for crop in crops)


def cut_out(seed, shape, monkeypatch):
    """The box (left, top, right, bottom) of a crop: what is resized says where it was."""
    cuts = []

    def resize(self, size, resample):
        assert (size, resample) == ((16, 16), PIL.Image.Resampling.BICUBIC)
        cuts.append(np.asarray(self))
        return PIL.Image.new("RGB", size)

    places = np.zeros((*shape, 3), np.uint8)
    places[..., 0], places[..., 1] = np.indices(shape)
    with monkeypatch.context() as patch:
        patch.setattr(PIL.Image.Image, "resize", resize)
        random_crop(np.random.default_rng(seed), places, 16, 0.5)
    (top, left), (bottom, right) = cuts[0][0, 0, :2].tolist(), cuts[0][-1, -1, :2].tolist()
    return left, top, right + 1, bottom + 1


@pytest.mark.parametrize("shape", [(40, 40), (30, 60), (80, 20)])
def test_boxes_have_the_wanted_area_and_ratio(shape, monkeypatch):
    boxes = [cut_out(seed, shape, monkeypatch) for seed in range(300)]
    if shape == (80, 20):  # no box of half the area has a ratio in the bounds
        assert set(boxes) == {(0, 26, 20, 53)}
        return
    left, top, right, bottom = np.array(boxes).T
    assert left.min() >= 0 and top.min() >= 0
    assert right.max() <= shape[1] and bottom.max() <= shape[0]
    ratios = (right - left) / (bottom - top)
    assert 0.7 < ratios.min() and ratios.max() < 1.4  # 3:4 to 4:3, rounded to pixels
    shares = (right - left) * (bottom - top) / (shape[0] * shape[1])
    if shape == (40, 40):
        assert 0.48 < shares.min() < 0.55 and shares.max() > 0.9
        assert abs(shares.mean() - 0.73) < 0.03
    assert len({*zip(left, top, strict=True)}) > 10


def test_no_pixel_outside_the_box_counts(monkeypatch):
    """As torchvision crops: cut out first, then resized."""
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    for seed in range(20):
        left, top, right, bottom = cut_out(seed, (40, 30), monkeypatch)
        cut = PIL.Image.fromarray(image[top:bottom, left:right])
        crop = random_crop(np.random.default_rng(seed), image, 16, 0.5)
        np.testing.assert_array_equal(crop, cut.resize((16, 16), PIL.Image.Resampling.BICUBIC))


def test_a_damaged_file_is_named(pictures, preprocessing, tmp_path):
    files = as_files(pictures, tmp_path)
    (tmp_path / "003.png").write_bytes((tmp_path / "003.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="003.png: cannot be read as an image"):
        load_images(files.images, range(21), preprocessing)
    for scale in (1.0, 0.8):
        with pytest.raises(ValueError, match="003.png: cannot be read as an image"):
            list(Feed(files, preprocessing, 7, 3, scale).batches(0, 3))
