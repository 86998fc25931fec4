"""The field's tasks in the folders of torchvision and of their authors, in small, file by file."""

import gzip
import pickle

import numpy as np
import PIL.Image
import pytest
import scipy.io
from numpy.lib.recfunctions import repack_fields

from orthoreg_jax.tasks.catalogue import entries
from orthoreg_jax.tasks.layouts import FOLDER_LAYOUTS, PICKLED_FOLDERS
from orthoreg_jax.tasks.layouts.idx import read_idx
from orthoreg_jax.tasks.sources import upright
from orthoreg_jax.tasks.split import ArrayImages, Split
from orthoreg_jax.tasks.task import load_tasks

COUNTS = {"train": 20, "test": 10}


def draw(split, *shape):
    """Pixels of a split, drawn."""
    rng = np.random.default_rng(COUNTS[split])
    return rng.integers(0, 256, (COUNTS[split], *shape), dtype=np.uint8)


def labels_of(split, classes):
    """Labels, the highest among them."""
    labels = np.random.default_rng(classes).integers(0, classes, COUNTS[split])
    labels[-1] = classes - 1
    return labels


def saved(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


def check(folder, name, pixels, labels):
    """That the task has these images and labels, by split."""
    splits = load_tasks(str(folder), [name])[name].splits
    test = splits["test"]
    np.testing.assert_array_equal(test.labels, labels["test"])
    for row in range(len(test)):
        np.testing.assert_array_equal(test.images[row], pixels["test"][row])
    trained = {(splits[split].images[row].tobytes(), int(label)) for split in ("train", "val")
               for row, label in enumerate(splits[split].labels)}  # fmt: skip
    wanted = zip(pixels["train"], labels["train"], strict=True)
    assert trained == {(image.tobytes(), int(label)) for image, label in wanted}
    assert len(splits["val"]) == COUNTS["train"] // 10


def grey(pixels):
    return np.repeat(pixels[..., None], 3, axis=-1)


def write_idx(path, array, packed=False):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content = head + array.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "name, folder, train, test",
    [
        ("mnist", "MNIST", "train", "t10k"),
        ("fashion_mnist", "FashionMNIST", "train", "t10k"),
        ("kmnist", "kmnist/KMNIST", "train", "t10k"),
        ("emnist", "EMNIST", "emnist-digits-train", "emnist-digits-test"),
    ],
)
def test_idx_files_packed_and_not(tmp_path, name, folder, train, test, packed):
    pixels = {split: draw(split, 28, 28) for split in COUNTS}
    labels = {split: labels_of(split, 10) for split in COUNTS}
    for split, stem in (("train", train), ("test", test)):
        root = tmp_path / folder / "raw"
        write_idx(root / f"{stem}-images-idx3-ubyte", pixels[split], packed)
        write_idx(root / f"{stem}-labels-idx1-ubyte", labels[split].astype(np.uint8), packed)
    if name == "emnist":  # which is published on its side
        pixels = {split: array.transpose(0, 2, 1) for split, array in pixels.items()}
    check(tmp_path, name, {split: grey(array) for split, array in pixels.items()}, labels)
    said = " ".join(map(str, load_tasks(str(tmp_path), [name])[name].notes))
    assert ("images stored on their side, rotated" in said) == (name == "emnist")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08\x01\0\0\0\x03ab", b"\0\0\x0b\x01\0\0\0\x02ab", b"<html>no such file</html>",
     b"\0\0\x08\x01\0\0\0\x01ab", b"\0\0\x08\x03\0\0\0\x01"],
)  # fmt: skip
def test_damaged_idx_files_are_refused(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ValueError, match="is not an idx file of bytes, or incomplete"):
        read_idx(tmp_path / "a")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"some more content")[:-4])
    with pytest.raises(ValueError, match="a.gz: cannot be read"):
        read_idx(tmp_path / "a.gz")


def test_cifar10_binary(tmp_path):
    pixels = {split: draw(split, 32, 32, 3) for split in COUNTS}
    labels = {split: labels_of(split, 10) for split in COUNTS}
    root = tmp_path / "cifar-10-batches-bin"
    root.mkdir()

    def rows(split):
        planes = pixels[split].transpose(0, 3, 1, 2).reshape(COUNTS[split], -1)
        return np.hstack([labels[split][:, None].astype(np.uint8), planes])

    for number in range(5):
        part = rows("train")[4 * number : 4 * number + 4]
        (root / f"data_batch_{number + 1}.bin").write_bytes(part.tobytes())
    (root / "test_batch.bin").write_bytes(rows("test").tobytes())
    check(tmp_path, "cifar10", pixels, labels)
    (root / "data_batch_3.bin").write_bytes(part.tobytes()[:-1])
    with pytest.raises(ValueError, match="data_batch_3.bin: its 12291 bytes are not whole records"):
        load_tasks(str(tmp_path), ["cifar10"])
    (root / "data_batch_3.bin").unlink()
    with pytest.raises(ValueError, match="data_batch_3.bin: cannot be read"):
        load_tasks(str(tmp_path), ["cifar10"])


def test_cifar100_binary_takes_the_fine_label(tmp_path):
    pixels = {split: draw(split, 32, 32, 3) for split in COUNTS}
    labels = {split: labels_of(split, 100) for split in COUNTS}
    for split in COUNTS:
        planes = pixels[split].transpose(0, 3, 1, 2).reshape(COUNTS[split], -1)
        columns = [np.full(COUNTS[split], 7), labels[split]]
        rows = np.hstack([np.stack(columns, axis=1).astype(np.uint8), planes])
        path = tmp_path / "cifar100" / "cifar-100-binary" / f"{split}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rows.tobytes())
    check(tmp_path, "cifar100", pixels, labels)


@pytest.mark.parametrize("name", sorted(PICKLED_FOLDERS))
def test_pickles_are_refused_with_the_way_on_and_never_opened(tmp_path, name):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    folder, archive = PICKLED_FOLDERS[name]
    (tmp_path / folder).mkdir()
    for file in ("data_batch_1", "test_batch", "train", "test"):
        (tmp_path / folder / file).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=f"{folder} holds pickles.*never read; unpack {archive}"):
        load_tasks(str(tmp_path), [name])
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize("task, file, kind", [
    ("pcam", "camelyonpatch_level_2_split_test_x.h5", "HDF5 files"),
    ("pcam", "camelyonpatch_level_2_split_test_x.h5.gz", "HDF5 files"),
    ("fer2013", "test/0.tar", "WebDataset archives"),
])  # fmt: skip
def test_archives_that_are_not_read_are_refused_with_the_way_on(tmp_path, task, file, kind):
    path = tmp_path / task / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=f"{file}: {kind} are not read; `orthoreg data prepare`"):
        load_tasks(str(tmp_path), [task])


def test_stl10_binary(tmp_path):
    pixels = {split: draw(split, 96, 96, 3) for split in COUNTS}
    labels = {split: labels_of(split, 10) for split in COUNTS}
    root = tmp_path / "stl10_binary"
    root.mkdir()
    for split in COUNTS:  # planes of red, green and blue, each column after column
        pixels[split].transpose(0, 3, 2, 1).tofile(root / f"{split}_X.bin")
        (labels[split] + 1).astype(np.uint8).tofile(root / f"{split}_y.bin")
    check(tmp_path, "stl10", pixels, labels)
    np.arange(1, 8, dtype=np.uint8).tofile(root / "test_y.bin")
    with pytest.raises(ValueError, match="test_X.bin holds 10 images and test_y.bin 7 labels"):
        load_tasks(str(tmp_path), ["stl10"])


def test_svhn_mat_whose_ten_is_the_digit_zero(tmp_path):
    pixels = {split: draw(split, 32, 32, 3) for split in COUNTS}
    labels = {split: labels_of(split, 10) for split in COUNTS}
    labels["test"][:2] = 0
    (tmp_path / "svhn").mkdir()

    def write(split, answers):
        content = {"X": pixels[split].transpose(1, 2, 3, 0), "y": answers[:, None]}
        scipy.io.savemat(tmp_path / "svhn" / f"{split}_32x32.mat", content)

    for split in COUNTS:
        write(split, np.where(labels[split] == 0, 10, labels[split]).astype(np.uint8))
    check(tmp_path, "svhn", pixels, labels)
    write("test", labels["test"].astype(np.uint8))  # of some copies, with 0
    with pytest.raises(ValueError, match="labels run from 0 to 9, not from 1 to 10"):
        load_tasks(str(tmp_path), ["svhn"])
    path = tmp_path / "svhn" / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="test_32x32.mat: cannot be read"):
        load_tasks(str(tmp_path), ["svhn"])


def test_stanford_cars_devkit(tmp_path):
    pixels = {split: draw(split, 6, 7, 3) for split in COUNTS}
    labels = {split: labels_of(split, 196) for split in COUNTS}
    names = [name.replace("/", "-") for name in entries()["cars"]["labels"]]
    names[0], names[1] = names[1], names[0]  # the order of the file counts, not ours
    root = tmp_path / "stanford_cars"
    (root / "devkit").mkdir(parents=True)
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(names, object)})
    swapped = {0: 1, 1: 0}
    annotations = {}
    for split in COUNTS:
        kinds = [(field, object) for field in ("bbox_x1", "class", "fname")]
        rows = np.empty((1, COUNTS[split]), kinds)
        for row, (image, label) in enumerate(zip(pixels[split], labels[split], strict=True)):
            saved(root / f"cars_{split}" / f"{row + 1:05d}.png", image)
            rows[0, row] = (3.0, swapped.get(label, label) + 1, f"{row + 1:05d}.png")
        annotations[split] = rows
    place = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, rows in annotations.items():
        scipy.io.savemat(root / place[split], {"annotations": rows})
    check(tmp_path, "cars", pixels, labels)
    unlabelled = repack_fields(annotations["test"][["bbox_x1", "fname"]])
    scipy.io.savemat(root / place["test"], {"annotations": unlabelled})
    with pytest.raises(ValueError, match="has no labels; the file with them is cars_test_annos_w"):
        load_tasks(str(tmp_path), ["cars"])
    names[5] = "Trabant 601 1964"
    scipy.io.savemat(root / "devkit/cars_meta.mat", {"class_names": np.array(names, object)})
    with pytest.raises(ValueError, match="among them Trabant 601 1964, which are not the 196"):
        load_tasks(str(tmp_path), ["cars"])


def test_flowers102_mat_leaves_its_validation_split_unused(tmp_path):
    root = tmp_path / "flowers-102"
    every = np.random.default_rng(0).integers(0, 256, (35, 6, 7, 3), dtype=np.uint8)
    for number, image in enumerate(every):
        saved(root / "jpg" / f"image_{number + 1:05d}.png", image)
        (root / "jpg" / f"image_{number + 1:05d}.png").rename(
            root / "jpg" / f"image_{number + 1:05d}.jpg"
        )
    numbers = np.random.default_rng(1).integers(1, 103, 35)
    order = np.random.default_rng(2).permutation(35) + 1
    ids = {"trnid": order[:20], "valid": order[20:25], "tstid": order[25:]}
    scipy.io.savemat(root / "imagelabels.mat", {"labels": numbers[None].astype(np.uint8)})
    scipy.io.savemat(root / "setid.mat", {name: each[None] for name, each in ids.items()})
    rows = {"train": ids["trnid"] - 1, "test": ids["tstid"] - 1}
    pixels = {split: every[each] for split, each in rows.items()}
    check(
        tmp_path, "flowers102", pixels, {split: numbers[each] - 1 for split, each in rows.items()}
    )
    scipy.io.savemat(root / "setid.mat", {"trnid": np.arange(1, 21), "tstid": np.array([36, 2])})
    with pytest.raises(ValueError, match="setid.mat names image 36, and imagelabels.mat has 35"):
        load_tasks(str(tmp_path), ["flowers102"])


def test_gtsrb_csv_and_ppm(tmp_path):
    root = tmp_path / "gtsrb"
    pixels = {split: draw(split, 6, 7, 3) for split in COUNTS}
    labels = {split: np.sort(labels_of(split, 43)) for split in COUNTS}
    for row, (image, label) in enumerate(zip(pixels["train"], labels["train"], strict=True)):
        saved(root / "GTSRB/Training" / f"{label:05d}" / f"00000_{row:05d}.ppm", image)
    for label in range(43):  # each class has some; the task would be none without
        if label not in labels["train"]:
            saved(root / "GTSRB/Training" / f"{label:05d}" / "00000_00099.ppm", pixels["test"][0])
    (root / "GTSRB/Training/00000/GT-00000.csv").write_text("Filename;Width\n")
    lines = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for row, (image, label) in enumerate(zip(pixels["test"], labels["test"], strict=True)):
        saved(root / "GTSRB/Final_Test/Images" / f"{row:05d}.ppm", image)
        lines.append(f"{row:05d}.ppm;7;6;1;1;5;5;{label}")
    table = root / "GT-final_test.csv"
    table.write_text("\n".join(lines) + "\n")
    splits = load_tasks(str(tmp_path), ["gtsrb"])["gtsrb"].splits
    np.testing.assert_array_equal(splits["test"].labels, labels["test"])
    np.testing.assert_array_equal(splits["test"].images[7], pixels["test"][7])
    first = splits["train"].images[0].tobytes()
    where = [row for row, image in enumerate(pixels["train"]) if image.tobytes() == first]
    assert not where or labels["train"][where[0]] == splits["train"].labels[0]
    table.write_text("\n".join(line.rpartition(";")[0] for line in lines))
    with pytest.raises(
        ValueError, match="GT-final_test.csv: has no columns .* GTSRB_Final_Test_GT"
    ):
        load_tasks(str(tmp_path), ["gtsrb"])


def test_pets_lists(tmp_path):
    names = entries()["pets"]["labels"]
    labels = {split: labels_of(split, 37) for split in COUNTS}
    pixels = {split: draw(split, 6, 7, 3) for split in COUNTS}
    root = tmp_path / "oxford-iiit-pet"
    (root / "annotations").mkdir(parents=True)
    for split, file in (("train", "trainval"), ("test", "test")):
        lines = ["# image class-id species breed"] * (split == "train")
        for row, (image, label) in enumerate(zip(pixels[split], labels[split], strict=True)):
            name = f"{names[label]}_{100 * (split == 'test') + row}"
            saved(root / "images" / f"{name}.png", image)
            (root / "images" / f"{name}.png").rename(root / "images" / f"{name}.jpg")
            lines.append(f"{name} {label + 1} 1 1")
        (root / "annotations" / f"{file}.txt").write_text("\n".join(lines) + "\n")
    check(tmp_path, "pets", pixels, labels)


def test_food101_lists(tmp_path):
    names = entries()["food101"]["labels"]
    labels = {split: labels_of(split, 101) for split in COUNTS}
    pixels = {split: draw(split, 6, 7, 3) for split in COUNTS}
    root = tmp_path / "food-101"
    (root / "meta").mkdir(parents=True)
    for split in COUNTS:
        lines = []
        for row, (image, label) in enumerate(zip(pixels[split], labels[split], strict=True)):
            path = f"{names[label]}/{100 * (split == 'test') + row}"
            saved(root / "images" / f"{path}.png", image)
            (root / "images" / f"{path}.png").rename(root / "images" / f"{path}.jpg")
            lines.append(path)
        (root / "meta" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    check(tmp_path, "food101", pixels, labels)


@pytest.mark.parametrize(
    "name, root, train, test",
    [
        ("dtd", "dtd/dtd/images", ["dtd/dtd/labels/train1.txt", "dtd/dtd/labels/val1.txt"],
         "dtd/dtd/labels/test1.txt"),
        ("eurosat", "eurosat/2750", ["eurosat/eurosat-train.txt", "eurosat/eurosat-val.txt"],
         "eurosat/eurosat-test.txt"),
        ("sun397", "SUN397", ["SUN397/Partitions/Training_01.txt"],
         "SUN397/Partitions/Testing_01.txt"),
        ("resisc45", "NWPU-RESISC45", ["resisc45-train.txt"], "resisc45-test.txt"),
    ],
)  # fmt: skip
def test_class_folders_with_their_lists_where_torchvision_has_them(
    tmp_path, name, root, train, test
):
    labels = [label.strip("/") for label in entries()[name]["labels"]]
    written = {split: [] for split in (*train, test)}
    for number, label in enumerate(labels):
        for place, file in enumerate(written):
            image = np.full((2, 2, 3), (number % 256, number // 256, place), np.uint8)
            path = f"{label}/{label.replace('/', '_')}_{place}.png"
            saved(tmp_path / root / path, image)
            written[file].append(path)
    for file, paths in written.items():
        lead = "/" if name == "sun397" else ""
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("".join(f"{lead}{path}\n" for path in paths))
    splits = load_tasks(str(tmp_path), [name])[name].splits
    for data in splits.values():
        for row in range(0, len(data), 7):
            red, green, _ = map(int, data.images[row][0, 0])
            assert data.labels[row] == red + 256 * green
    assert {int(image[0, 0, 2]) for image in splits["test"].images} == {len(train)}
    (tmp_path / test).unlink()
    with pytest.raises(ValueError, match=f"{root} exists, but no list says which image is in"):
        load_tasks(str(tmp_path), [name])


def test_every_layout_is_read_in_these_tests():
    tested = {"mnist", "fashion_mnist", "kmnist", "emnist", "cifar10", "cifar100", "stl10", "svhn",
              "cars", "flowers102", "gtsrb", "pets", "food101"}  # fmt: skip
    assert tested == set(FOLDER_LAYOUTS)


def test_images_on_their_side_are_turned_and_have_another_hash():
    from orthoreg_jax.tasks.content import Content

    pixels = draw("test", 5, 5, 3)
    split = Split(ArrayImages(pixels), np.zeros(10, np.int32))
    content = upright(Content(("a",), {"test": split}))
    turned = content.splits["test"]
    np.testing.assert_array_equal(turned.images[3], pixels[3].transpose(1, 0, 2))
    assert turned.sha256 != split.sha256
    assert [str(each) for each in content.notes] == ["10 images stored on their side, rotated"]
