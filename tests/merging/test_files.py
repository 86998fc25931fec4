"""Merging from files equals merging in memory, reads little at once, and refuses damage."""

import jax
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.arithmetic.paths import flatten
from orthoreg_jax.merging import MERGERS
from orthoreg_jax.merging.files import merge_files
from orthoreg_jax.storage import StorageError
from orthoreg_jax.trees import StoredTree

RULES = oj.VISUAL_MATRICES


def write(folder, count, layers=3):
    paths = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        shapes = {
            "visual/blocks/mlp/fc1/kernel": (layers, 6, 10),
            "visual/blocks/mlp/fc1/bias": (layers, 10),
            "visual/patch_embedding": (2, 2, 3, 6),
            "visual/class_embedding": (6,),
            "visual/projection/kernel": (6, 5),
        }
        leaves = {path: rng.normal(size=shape).astype(np.float32) for path, shape in shapes.items()}
        tree = {"visual": {"blocks": {"mlp": {"fc1": {}}}, "projection": {}}}
        for path, leaf in leaves.items():
            node = tree
            for part in path.split("/")[:-1]:
                node = node[part]
            node[path.split("/")[-1]] = leaf
        paths.append(folder / f"{seed}.safetensors")
        oj.save_tree(paths[-1], tree)
    return paths


@pytest.mark.parametrize("name", MERGERS)
def test_files_equal_memory(name, tmp_path):
    merger = MERGERS[name]()
    paths = write(tmp_path, merger.at_most or 3)
    key = jax.random.key(1) if merger.random else None
    found = merge_files(paths, merger, matrices=RULES, key=key)
    trees = [oj.load_tree(path) for path in paths]
    expected = oj.merge_task_vectors(trees, merger, matrices=RULES, key=key)
    assert jax.tree.structure(found.vector) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found.vector), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert found.sha256 == tuple(StoredTree(path).check() for path in paths)


def test_one_layer_of_all_files_is_read_at_once(tmp_path, monkeypatch):
    paths, reads = write(tmp_path, 4), []
    read = StoredTree.read

    def watched(self, name, place=None):
        value = read(self, name, place)
        reads.append((self.path.name, name, place, value.size))
        return value

    monkeypatch.setattr(StoredTree, "read", watched)
    merge_files(paths, oj.tsv_m(), matrices=RULES)
    names = [path.name for path in paths]
    checks, merges = reads[: 4 * 5], reads[4 * 5 :]
    assert {place for _, _, place, _ in checks} == {None}  # each file once, to check its hash
    for start in range(0, len(merges), 4):  # then the same slice of each file
        together = merges[start : start + 4]
        assert [file for file, *_ in together] == names
        assert len({(name, place) for _, name, place, _ in together}) == 1
    kernel = [(place, size) for _, name, place, size in merges if name.endswith("fc1/kernel")]
    assert kernel == [(layer, 60) for layer in range(3) for _ in paths]
    assert sum(size for *_, size in merges) == 4 * sum(
        leaf.size for leaf in flatten(oj.load_tree(paths[0])).values()
    )


def test_damage_and_misfits_are_refused(tmp_path):
    paths = write(tmp_path, 2)
    content = bytearray(paths[1].read_bytes())
    content[-3] ^= 255
    paths[1].write_bytes(content)
    with pytest.raises(StorageError, match=r"1\.safetensors: is damaged"):
        merge_files(paths, oj.average())
    paths[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match="not a complete safetensors file"):
        merge_files(paths, oj.average())
    with pytest.raises(StorageError, match="no such file"):
        merge_files([tmp_path / "none"], oj.average())
    with pytest.raises(ValueError, match="no task vector"):
        merge_files([], oj.average())
    (tmp_path / "other").mkdir()
    other = write(tmp_path / "other", 1, layers=2)
    with pytest.raises(ValueError, match=r"other/0\.safetensors and .*0\.safetensors differ"):
        merge_files([paths[0], *other], oj.average())
    with pytest.raises(ValueError, match="give key="):
        merge_files(paths[:1], oj.dare())


def test_doubles_in_files_keep_their_digits_or_are_refused(tmp_path):
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:
        oj.save_tree(path, {"w": np.diag([1.0, 1 + 2.0**-40])})
    with pytest.raises(ValueError, match=r"0.safetensors: leaf 'w' is float64, .*JAX_ENABLE_X64"):
        merge_files(paths, oj.average())
    # Mergers that decompose compute in NumPy; the mean of equal vectors is each of them.
    found = merge_files(paths, oj.cart(1.0, 0.0)).vector["w"]
    np.testing.assert_array_equal(found, np.diag([1.0, 1 + 2.0**-40]))
