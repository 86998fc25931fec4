"""Tasks in directories, lists, and sets prepared by tensorflow-datasets, on real files."""

import hashlib
import json
import os

import numpy as np
import PIL.Image
import pytest

from orthoreg_jax.tasks.catalogue import BENCHMARKS, KNOWN, entries, other_training_set
from orthoreg_jax.tasks.check import check_tasks
from orthoreg_jax.tasks.class_names import ClassNames, letters_and_digits
from orthoreg_jax.tasks.split import ArrayImages, ImageRows, Split, cut_validation
from orthoreg_jax.tasks.task import load_tasks

CLASSES = ["red fox", "owl", "sea lion"]


def picture(number):
    return np.random.default_rng(number).integers(0, 256, (8, 9, 3), dtype=np.uint8)


def write_images(folder, names, count, first=0):
    """`count` PNGs in each class's directory; returns their paths."""
    paths = []
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = folder / name / f"{name.rpartition('/')[2]}_{number:03d}.png"
            PIL.Image.fromarray(picture(first + 100 * place + number)).save(path)
            paths.append(path.relative_to(folder).as_posix())
    return paths


def write_table(folder, entry):
    (folder / "tasks.json").write_text(json.dumps({"tasks": {"mine": entry}}))


def test_own_task_needs_directories_and_templates_only(tmp_path):
    write_images(tmp_path / "animals" / "train", ["owl", "red_fox"], 20)
    write_images(tmp_path / "animals" / "test", ["owl", "red_fox"], 3, first=50)
    write_table(tmp_path, {"folder": "animals", "templates": ["a photo of a {}."]})
    task = load_tasks(str(tmp_path), ["mine"])["mine"]
    assert task.classes == ("owl", "red fox")
    assert {split: len(data) for split, data in task.splits.items()} == {
        "train": 36, "val": 4, "test": 6,
    }  # fmt: skip
    np.testing.assert_array_equal(task.splits["test"].labels, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(task.splits["test"].images[4], picture(151))


def test_classes_in_an_order_of_their_own_find_their_directories(tmp_path):
    write_images(tmp_path / "animals" / "train", ["owl", "red_fox"], 20)
    write_images(tmp_path / "animals" / "test", ["owl", "red_fox"], 3)
    entry = {"folder": "animals", "classes": ["Red Fox", "owl"], "templates": ["a {}"]}
    write_table(tmp_path, entry)
    task = load_tasks(str(tmp_path), ["mine"])["mine"]
    assert task.classes == ("Red Fox", "owl")
    np.testing.assert_array_equal(task.splits["test"].labels, [1, 1, 1, 0, 0, 0])
    write_table(tmp_path, entry | {"classes": ["vixen", "owl"]})
    with pytest.raises(ValueError, match="add 'labels', the data's names in the order"):
        load_tasks(str(tmp_path), ["mine"])
    write_table(tmp_path, entry | {"classes": ["vixen", "owl"], "labels": ["red_fox", "owl"]})
    task = load_tasks(str(tmp_path), ["mine"])["mine"]
    np.testing.assert_array_equal(task.splits["test"].labels, [1, 1, 1, 0, 0, 0])


def test_own_task_with_lists_keeps_their_order(tmp_path):
    paths = write_images(tmp_path / "animals", ["owl", "red_fox"], 3)
    chosen = {"train": [paths[4], paths[0]], "val": [paths[1]], "test": paths[:1:-2]}
    for split, lines in chosen.items():
        (tmp_path / "animals" / f"{split}.txt").write_text("\n".join(lines))
    write_table(tmp_path, {"folder": "animals", "templates": ["a photo of a {}."]})
    task = load_tasks(str(tmp_path), ["mine"])["mine"]
    assert task.classes == ("owl", "red fox")
    for split, lines in chosen.items():
        assert list(task.splits[split].images.paths) == lines
        labels = [int(line.startswith("red_fox")) for line in lines]
        np.testing.assert_array_equal(task.splits[split].labels, labels)


def test_directories_may_be_called_as_classes_or_labels(tmp_path):
    for split, names in (("train", ["Red Fox", "owl", "sea-lion"]), ("test", ["f", "o", "s"])):
        write_images(tmp_path / "animals" / split, names, 2)
    write_images(tmp_path / "animals" / "val", ["redfox", "owl"], 1)
    entry = {"folder": "animals", "labels": ["f", "o", "s"], "classes": CLASSES}
    write_table(tmp_path, entry | {"templates": ["{}"]})
    splits = load_tasks(str(tmp_path), ["mine"])["mine"].splits
    np.testing.assert_array_equal(splits["train"].labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(splits["test"].labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(sorted(splits["val"].labels), [0, 1])


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda f: (f / "animals/train/owl").rename(f / "animals/train/crow"), "crow match none"),
        (lambda f: (f / "animals/test").rename(f / "animals/tests"),
         "has no test split; it has train$"),
        (lambda f: (f / "animals/train").rename(f / "animals/x"),
         r"has no train split \(10 % of train would be validation\); it has test$"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_directories_is_said(tmp_path, spoil, message):
    for split in ("train", "test"):
        write_images(tmp_path / "animals" / split, ["owl", "red fox"], 2)
    entry = {"folder": "animals", "labels": ["owl", "red fox"], "templates": ["{}"]}
    write_table(tmp_path, entry)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_tasks(str(tmp_path), ["mine"])


def test_a_known_task_in_the_fields_layout(tmp_path):
    labels = entries()["dtd"]["labels"]
    write_images(tmp_path / "dtd" / "train", labels, 4)
    write_images(tmp_path / "dtd" / "val", labels, 1)  # in that layout, the test images
    task = load_tasks(str(tmp_path), ["dtd"])["dtd"]
    assert (len(task.classes), task.title) == (47, "Describable Textures")
    assert len(task.splits["train"]) == 170 and len(task.splits["val"]) == 18
    np.testing.assert_array_equal(task.splits["test"].labels, np.arange(47))


@pytest.mark.parametrize("form", ["paths", "slashed", "names"])
def test_a_known_task_by_its_published_lists(tmp_path, form):
    labels = entries()["resisc45"]["labels"]
    root = tmp_path / "resisc45" / "NWPU-RESISC45"
    paths = write_images(root, labels, 2)
    for place, split in enumerate(("train", "test")):
        chosen = paths[place::2]
        lines = {"paths": chosen, "slashed": [f"/{path}" for path in chosen],
                 "names": [path.rpartition("/")[2] for path in chosen]}[form]  # fmt: skip
        (tmp_path / "resisc45" / f"resisc45-{split}.txt").write_text("\n".join(lines) + "\n")
    splits = load_tasks(str(tmp_path), ["resisc45"])["resisc45"].splits
    np.testing.assert_array_equal(splits["test"].labels, np.arange(45))
    np.testing.assert_array_equal(splits["test"].images[2], picture(201))
    trained = np.concatenate([splits["train"].labels, splits["val"].labels])
    np.testing.assert_array_equal(np.sort(trained), np.arange(45))
    row = splits["val"].labels[0]
    np.testing.assert_array_equal(splits["val"].images[0], picture(100 * row))
    (root / paths[0]).unlink()
    with pytest.raises(ValueError, match="1 of its 45 images is not below"):
        load_tasks(str(tmp_path), ["resisc45"])


def link_images(root, labels, counts):
    """So many links to one image for each class; their paths below `root`, class by class."""
    root.mkdir(parents=True)
    PIL.Image.fromarray(picture(0)).save(root.parent / "one.png")
    paths = []
    for label, count in zip(labels, counts, strict=True):
        (root / label).mkdir(parents=True)
        for number in range(count):
            name = f"{label}/{label}_{number}.png"
            os.link(root.parent / "one.png", root / name)
            paths.append(name)
    return paths


def write_lists(paths, **files):
    """Text files that share out the paths: so many to each, none twice, of all classes alike."""
    mixed = list(np.random.default_rng(0).permutation(paths))
    assert sum(count for _, count in files.values()) == len(mixed)
    for file, count in files.values():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(mixed[:count]))
        mixed = mixed[count:]


def paths_of(split):
    """Below the task's directory."""
    images, rows = split.images, range(len(split))
    if isinstance(images, ImageRows):
        images, rows = images.images, images.rows
    return [images.paths[row] for row in rows]


def sizes_of(folder, name):
    splits = load_tasks(str(folder), [name])[name].splits
    images = [data.images[row].tobytes() for data in splits.values() for row in (0, -1)]
    assert set(images) == {picture(0).tobytes()}
    return tuple(len(data) for data in splits.values())


# Published train, val and test, and what the field makes of them. EuroSAT and RESISC45 at a tenth.
@pytest.mark.parametrize(
    "name, root, lists, published, field",
    [
        ("dtd", "dtd/images", "dtd/labels/{}1.txt", (1880, 1880, 1880), (3384, 376, 1880)),
        ("eurosat", "EuroSAT_RGB", "eurosat-{}.txt", (1620, 540, 540), (2160, 270, 270)),
        ("resisc45", "resisc45/NWPU-RESISC45", "resisc45/resisc45-{}.txt",
         (1890, 630, 630), (1701, 189, 630)),
    ],
)  # fmt: skip
def test_published_lists_give_the_fields_split(tmp_path, name, root, lists, published, field):
    labels = entries()[name]["labels"]
    paths = link_images(tmp_path / root, labels, [sum(published) // len(labels)] * len(labels))
    files = {split: (tmp_path / lists.format(split), count)
             for split, count in zip(("train", "val", "test"), published, strict=True)}  # fmt: skip
    write_lists(paths, **files)
    assert sizes_of(tmp_path, name) == field
    splits = load_tasks(str(tmp_path), [name])[name].splits
    chosen = {split: set(paths_of(data)) for split, data in splits.items()}
    assert sum(map(len, chosen.values())) == len(set().union(*chosen.values()))  # none twice
    tested = set(files["test"][0].read_text().splitlines())
    assert chosen["test"] <= tested and not chosen["train"] & tested


def test_dtd_in_its_three_published_splits_trains_on_two_of_them(tmp_path):
    labels = entries()["dtd"]["labels"]
    for number, split in enumerate(("train", "val", "test")):
        write_images(tmp_path / "dtd" / split, labels, 2, first=10 * number)
    splits = load_tasks(str(tmp_path), ["dtd"])["dtd"].splits
    assert [len(data) for data in splits.values()] == [170, 18, 94]
    np.testing.assert_array_equal(splits["test"].labels, np.repeat(np.arange(47), 2))
    np.testing.assert_array_equal(splits["test"].images[3], picture(121))
    trained = sorted(paths_of(splits["train"]) + paths_of(splits["val"]))
    assert trained[0].startswith("train/") and trained[-1].startswith("val/")
    for split in ("train", "val"):
        for row, path in enumerate(paths_of(splits[split])):
            label = labels.index(path.split("/")[1])
            assert splits[split].labels[row] == label
            number = int(path[-5]) + 10 * path.startswith("val/")
            np.testing.assert_array_equal(splits[split].images[row], picture(100 * label + number))


# As published: training images, those of the validation split where the field trains on them, too.
PUBLISHED = {
    "cars": 8144, "dtd": 1880 + 1880, "gtsrb": 26_640, "mnist": 60_000, "resisc45": 18_900,
    "sun397": 19_850, "svhn": 73_257, "stl10": 5000, "pets": 3680, "flowers102": 1020,
    "cifar100": 50_000, "pcam": 262_144, "fer2013": 28_709, "cifar10": 50_000, "food101": 75_750,
    "fashion_mnist": 60_000, "rendered_sst2": 6920, "emnist": 240_000, "kmnist": 60_000,
}  # fmt: skip


def test_recipes_train_on_what_a_tenth_for_validation_leaves():
    assert set(PUBLISHED) | {"eurosat", "imagenet"} == set(KNOWN)
    for name, count in PUBLISHED.items():
        assert KNOWN[name].train == count - min(count // 10, 5000), name
    assert KNOWN["eurosat"].train == 16_200 + 5400  # validation is half of test
    # The recipe's steps, with a partial batch at the end of each epoch: 2,052 for DTD.
    assert 76 * -(-KNOWN["dtd"].train // 128) == 2052


def test_another_training_set_is_said(tmp_path):
    labels = entries()["dtd"]["labels"]
    for split in ("train", "val"):  # in the field's layout, val is test
        write_images(tmp_path / "dtd" / split, labels, 1)
    (facts,) = check_tasks(str(tmp_path), ["dtd"])
    assert "43 training images, but the field's recipe has 3384: the number of steps" in str(facts)
    (control,) = check_tasks(str(tmp_path), [], "dtd")
    assert "training images" not in str(control)
    assert other_training_set("dtd", 3384) == other_training_set("imagenet", 7) == ""


def test_nested_class_directories(tmp_path):
    labels = [label.strip("/") for label in entries()["sun397"]["labels"]]
    assert "a/apse/indoor" in labels
    write_images(tmp_path / "sun397" / "train", labels, 2)
    write_images(tmp_path / "sun397" / "val", [name.replace("/", "_") for name in labels], 1)
    task = load_tasks(str(tmp_path), ["sun397"])["sun397"]
    test = task.splits["test"]
    for label, path in zip(test.labels, test.images.paths, strict=True):
        assert labels[label].replace("/", "_") == path.partition("/")[0]
    assert len(set(test.labels)) == 397
    assert len(task.splits["train"]) + len(task.splits["val"]) == 2 * 397


def test_missing_data_says_where_it_belongs_and_where_it_is_to_be_had(tmp_path):
    with pytest.raises(ValueError) as caught:
        load_tasks(str(tmp_path), ["dtd", "gtsrb", "nothing"])
    message = str(caught.value)
    places = ("dtd/val/CLASS/", "dtd/labels/test1.txt", "prepared by tfds", "gtsrb/test/CLASS/")
    for part in (*places, "robots.ox.ac.uk", "benchmark.ini.rub.de", "'nothing': is not in"):
        assert part in message


def test_catalogue_is_whole():
    assert set(KNOWN) == set(entries()) == {*BENCHMARKS[20], "imagenet"}
    assert [len(BENCHMARKS[size]) for size in (8, 14, 20)] == [8, 14, 20]
    for name, entry in entries().items():
        names = ClassNames(entry["labels"])  # every class has a directory name of its own
        found = [names.find(letters_and_digits(label)) for label in entry["labels"]]
        assert found == list(range(len(found)))
        assert len(entry["labels"]) == len(entry["classes"]) > 1
        assert all(text.count("{}") == 1 for text in entry["templates"]), name
    sizes = {name: len(entries()[name]["classes"]) for name in (*BENCHMARKS[8], "imagenet")}
    assert sizes == {
        "cars": 196, "dtd": 47, "eurosat": 10, "gtsrb": 43, "mnist": 10, "resisc45": 45,
        "sun397": 397, "svhn": 10, "imagenet": 1000,
    }  # fmt: skip
    assert entries()["eurosat"]["classes"][0] == "annual crop land"
    assert entries()["fer2013"]["classes"][3] == ("happy", "smiling")


@pytest.mark.parametrize("size, cut", [(100, 10), (19, 1), (80_000, 5000)])
def test_validation_is_cut_from_train(size, cut):
    train = Split(ArrayImages(np.zeros((size, 1, 1), np.uint8)), np.arange(size, dtype=np.int32))
    kept, val = cut_validation(train)
    assert len(val) == cut
    assert sorted([*kept.labels, *val.labels]) == list(range(size))
    again = cut_validation(train)[1]
    np.testing.assert_array_equal(val.labels, again.labels)


def test_a_set_prepared_by_tfds_gives_the_same_images(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Animals(tfds.core.GeneratorBasedBuilder):
        """Encoded images, written without TensorFlow."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"image": tfds.features.Image(encoding_format="png"),
                        "label": tfds.features.ClassLabel(names=["owl", "fox"])}  # fmt: skip
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate(0, 30), "test": self._generate(30, 36)}

        def _generate(self, first, last):
            for number in range(first, last):
                yield number, {"image": encode(number), "label": number % 2}

        def _generate_examples(self):
            raise NotImplementedError

    def encode(number):
        import io

        file = io.BytesIO()
        PIL.Image.fromarray(picture(number)).save(file, "png")
        return file.getvalue()

    builder = Animals(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    entry = {"tfds": builder.name, "splits": {"train": "train", "test": "test"}}
    entry |= {"labels": ["fox", "owl"], "templates": ["a {}"]}
    write_table(tmp_path, entry)
    splits = load_tasks(str(tmp_path), ["mine"])["mine"].splits
    assert {split: len(data) for split, data in splits.items()} == {
        "train": 27, "val": 3, "test": 6,
    }  # fmt: skip
    wanted = {picture(number).tobytes(): 1 - number % 2 for number in range(36)}
    for data in splits.values():
        for row in range(len(data)):
            assert wanted.pop(data.images[row].tobytes()) == data.labels[row]
    assert not wanted
    write_table(tmp_path, entry | {"splits": {"train": "train+test[:50%]", "test": "test"}})
    joined = load_tasks(str(tmp_path), ["mine"])["mine"].splits
    assert {split: len(data) for split, data in joined.items()} == {
        "train": 30, "val": 3, "test": 6,
    }  # fmt: skip
    assert joined["train"].sha256 != splits["train"].sha256
    assert splits["test"].sha256 != splits["val"].sha256
    (facts,) = check_tasks(str(tmp_path), ["mine"])
    assert not facts.problem and facts.splits["test"].sha256 == splits["test"].sha256
    contents = [hashlib.sha256(encode(row)).digest() for row in range(36)]
    assert {each.sha256 for data in splits.values() for each in data.inspect()} == {*contents}
    write_table(tmp_path, entry | {"splits": {"train": "train+extra", "test": "test"}})
    with pytest.raises(ValueError, match="no split 'train\\+extra', only"):
        load_tasks(str(tmp_path), ["mine"])
    write_table(tmp_path, entry)
    for pattern in ("*test.array_record*", "dataset_info.json"):
        (path,) = tmp_path.glob(f"{builder.name}/**/{pattern}")
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match="task 'mine'.*cannot be read; prepare or copy"):
            load_tasks(str(tmp_path), ["mine"])


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_known_task_s_validation_split_by_any_of_its_names(tmp_path, name):
    labels = entries()["svhn"]["labels"]
    for number, split in enumerate(("train", name, "test")):
        write_images(tmp_path / "svhn" / split, labels, 2, first=10 * number)
    splits = load_tasks(str(tmp_path), ["svhn"])["svhn"].splits
    assert [len(data) for data in splits.values()] == [20, 20, 20]
    np.testing.assert_array_equal(splits["val"].images[3], picture(111))
    (tmp_path / "svhn" / ("valid" if name == "val" else "val")).mkdir()
    with pytest.raises(ValueError, match="contains val and .*keep one of them"):
        load_tasks(str(tmp_path), ["svhn"])
