"""Task vectors of one norm, in memory and from files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import orthoreg_jax as oj
from orthoreg_jax.merging.files import merge_files

LENGTHS = (0.5, 2.0, 20.0)
TARGETS = {"mean": 7.5, "smallest": 0.5, "largest": 20.0}


def vectors(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    rows = [{"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)} for _ in LENGTHS]
    sizes = [np.sqrt(sum(np.sum(leaf**2) for leaf in row.values())) for row in rows]
    return [
        {name: jnp.asarray(length / size * leaf, dtype) for name, leaf in row.items()}
        for row, size, length in zip(rows, sizes, LENGTHS, strict=True)
    ]


@pytest.mark.parametrize("to", TARGETS)
def test_norms_and_directions(to):
    rows = vectors()
    found = oj.match_norms(dict(zip("abc", rows, strict=True)), to)
    assert list(found) == ["a", "b", "c"]
    for row, own, length in zip(rows, found.values(), LENGTHS, strict=True):
        np.testing.assert_allclose(oj.norm(own), TARGETS[to], rtol=1e-5)
        for name, leaf in row.items():
            np.testing.assert_allclose(own[name], TARGETS[to] / length * leaf, rtol=1e-5)


def test_of_bfloat16_stays_bfloat16():
    found = oj.match_norms(vectors(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    for row in found:
        np.testing.assert_allclose(oj.norm(row), 7.5, rtol=2e-2)


@pytest.mark.parametrize("merger", [oj.ties(50), oj.tsv_m(), oj.task_arithmetic()])
def test_from_files(merger, tmp_path):
    rows = vectors()
    files = [tmp_path / f"{number}.safetensors" for number in range(len(rows))]
    for file, row in zip(files, rows, strict=True):
        oj.save_tree(file, row)
    found = merge_files(files, merger, match="smallest")
    expected = oj.merge_task_vectors(oj.match_norms(rows, "smallest"), merger)
    for name, leaf in expected.items():
        np.testing.assert_allclose(found.vector[name], leaf, atol=1e-6)
    assert found.sha256 == merge_files(files, merger).sha256  # of what the files hold


def test_refusals(tmp_path):
    rows = vectors()
    with pytest.raises(ValueError, match="to is 'unit'; allowed: 'mean', 'smallest', 'largest'"):
        oj.match_norms(rows, "unit")
    with pytest.raises(ValueError, match="contains no task vector; give at least one"):
        oj.match_norms([])
    zero = jax.tree.map(jnp.zeros_like, rows[0])
    with pytest.raises(ValueError, match="vector emoji has norm 0 and cannot .* leave it out"):
        oj.match_norms({"mnist": rows[0], "emoji": zero})
    oj.save_tree(tmp_path / "zero.safetensors", zero)
    with pytest.raises(ValueError, match=r"vector .*zero.safetensors has norm 0"):
        merge_files([tmp_path / "zero.safetensors"], oj.average(), match="mean")
