import shutil

import numpy as np
import pytest

import orthoreg_jax as oj


def test_stages_one_by_one_make_what_the_command_makes(finished, inputs, tmp_path):
    config = oj.load_config(inputs, ["methods=full"])
    folder = oj.run_experiment(config, tmp_path / "run", ["finetune"])
    assert folder == tmp_path / "run" and not (folder / "results.json").exists()
    path = "full/seed3/first/vector.safetensors"
    assert (folder / path).read_bytes() == (finished / path).read_bytes()
    oj.run_experiment(config, folder, ["report", "evaluate"])
    assert (folder / "results.json").is_file() and (folder / "report.html").is_file()


@pytest.mark.parametrize("stages", ["finetune", ["train"], []])
def test_wrong_stages_are_refused(tmp_path, stages):
    with pytest.raises(ValueError, match="allowed: a list of finetune, evaluate, report"):
        oj.run_experiment(oj.default_config(), tmp_path / "run", stages)
    assert not (tmp_path / "run").exists()


def test_what_was_passed_over_in_the_data_is_said_before_work_starts(inputs, tmp_path, capfd):
    data = shutil.copytree(inputs.parent, tmp_path / "data")
    with np.load(data / "first.npz") as archive:
        np.savez(data / "first.npz", **archive, notes=np.zeros(3))
    config = oj.load_config(inputs, [f"data={data}"])
    with pytest.raises(ValueError, match="4 task vectors are missing"):
        oj.run_experiment(config, tmp_path / "run", ["evaluate"])
    assert "\nfirst: 1 ignored: arrays that belong to no split (notes)\n" in capfd.readouterr().err
