"""What can be wrong is said before work starts, and nothing is lost."""

import json
import pathlib
import platform
import shutil
import subprocess
import sys
from importlib import metadata

import jax
import pytest

from orthoreg_jax import cli, commands
from orthoreg_jax.clip.checkpoint import load_checkpoint
from orthoreg_jax.config import flatten_config, load_config
from orthoreg_jax.storage import only_one, read_sealed

from .small_run import orthoreg

CHEAP = "--config.methods=full"


def fails(capfd, command, config, workdir, *more):
    """Runs a command that must fail before work starts; returns its message."""
    existed = workdir.exists()
    assert orthoreg(command, config, workdir, *more) == 1
    lines = capfd.readouterr().err.splitlines()
    while lines[0].startswith(("model ", "to do: ")):  # what was about to run
        lines = lines[1:]
    assert lines[0].startswith("orthoreg: ") and "Traceback" not in "".join(lines)
    assert workdir.exists() == existed
    return "\n".join(lines)


@pytest.mark.parametrize(
    "option, message",
    [
        ("--config.trainig.steps=3", "did you mean training.steps?"),
        ("--config.training.steps=0", "training.steps is 0, allowed: a whole number from 1 up"),
        ("--config.tasks=first,second,third", "task 'third': is not in"),
        ("--config.tasks=first,secnd,others2", "did you mean second?\n  task 'others2': is not in"),
        ("--config.training.epochs=-1", "first, second are not among the field's tasks"),
        ("--config.training.epochs=0.1", "some tasks train for no more steps than that (first: 1"),
        ("--config.tasks=evaluation.json", "allowed: names without '/' and no leading '.', other"),
        ("--config.training.batch_size=8000000000000", "exceed this machine's memory"),
        ("--config.model=nowhere", "model 'nowhere': no such directory; allowed: 'embedded'"),
        ("--config.data=nowhere", "data 'nowhere'"),
    ],
)
def test_bad_options(inputs, tmp_path, capfd, option, message):
    assert message in fails(capfd, "run", inputs, tmp_path / "run", option)


def test_what_other_tasks_leave_unmeasured_is_said_before_work_and_after_checks(
    inputs, tmp_path, capfd
):
    assert orthoreg("run", inputs, tmp_path / "run", "--config.tasks=first", CHEAP) == 0
    lines = capfd.readouterr().err.splitlines()
    assert ", 1 task and control others, method full, seed 3, on 1 x " in lines[0]
    assert lines[0].startswith("model ") and lines[1] == (
        "note: not measured with these tasks (first): disentanglement of first, second; "
        "specialisation, which needs two tasks"
    )
    results = read_sealed(tmp_path / "run" / "results.json")
    assert results["features"] is None and not results["runs"][0]["disentanglement"]


def test_missing_config_file(tmp_path, capfd):
    assert "no such Python file" in fails(capfd, "run", tmp_path / "none.py", tmp_path / "run")


def test_names_that_the_system_refuses(inputs, tmp_path, capfd):
    name = "x" * 300
    for config, workdir, reason in (
        (inputs, tmp_path / name, "x: File name too long"),
        (tmp_path / f"{name}.py", tmp_path / "run", "no such Python file (.py)"),
    ):
        assert orthoreg("finetune", config, workdir) == 1
        (said,) = capfd.readouterr().err.splitlines()
        assert said.startswith("orthoreg: ") and reason in said


def test_a_place_that_is_gone_and_output_that_has_no_room(inputs, tmp_path):
    """A working directory, and a full disk."""
    (tmp_path / "gone").mkdir()
    command = f"{sys.executable} -m orthoreg_jax.cli"
    gone = f"cd {tmp_path}/gone; rmdir ../gone; {command} finetune --config {inputs} --workdir run"
    full = f"{command} data check --config {inputs} > /dev/full"
    for line, said in ((gone, "the working directory no longer exists"),
                       (full, "standard output: No space left on device")):  # fmt: skip
        done = subprocess.run(line, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"orthoreg: {said}")
        assert "Traceback" not in done.stderr


def test_a_user_without_a_home(monkeypatch):
    def none(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "expanduser", none)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        commands.keep_compiled()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.parametrize("spoil", ["truncated", "other model"])
def test_bad_model(inputs, tmp_path, capfd, spoil):
    model = shutil.copytree(load_checkpoint("embedded").directory, tmp_path / "model")
    if spoil == "truncated":
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[:-100])
        expected = "not a complete safetensors file"
    else:
        (model / "config.json").write_text('{"model_type": "vit"}')
        expected = "describes a model of type 'vit'"
    option = f"--config.model={model}"
    assert expected in fails(capfd, "run", inputs, tmp_path / "run", option)


def test_run_folder_of_another_config(finished, inputs, capfd):
    message = fails(capfd, "run", inputs, finished, "--config.training.steps=7")
    assert "training.steps was 6, is 7" in message and "choose another folder" in message


def test_run_folder_of_other_data(finished, inputs, tmp_path, capfd):
    copy = shutil.copytree(finished, tmp_path / "copy")
    path = copy / "provenance.json"
    path.write_text(path.read_text().replace('"images": 40', '"images": 41'))
    message = fails(capfd, "run", inputs, copy)
    assert "(training images or prompts of task first, training images or prompts of" in message
    assert "or delete full/seed3/first, full/seed3/second, full+orthoreg/seed3/first" in message


@pytest.mark.parametrize("name, text", [("config.json", "[]"), ("provenance.json", "{}")])
def test_damaged_run_folder(finished, inputs, tmp_path, capfd, name, text):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / name).write_text(text)
    assert name in fails(capfd, "run", inputs, copy)


def test_prompts_belong_to_the_run(finished, inputs, tmp_path, capfd):
    table = inputs.parent / "tasks.json"
    text = table.read_text()
    table.write_text(text.replace("a handwritten {}", "some handwritten {}", 1))
    try:
        message = fails(capfd, "run", inputs, finished)
        assert "(training images or prompts of task first: their hashes differ)" in message
    finally:
        table.write_text(text)


def test_folder_that_is_no_run(inputs, tmp_path, capfd):
    (tmp_path / "thesis.txt").write_text("")
    assert "is not a run folder" in fails(capfd, "run", inputs, tmp_path)
    assert "is a file" in fails(capfd, "run", inputs, tmp_path / "thesis.txt")


def test_folder_that_cannot_be_written(inputs, tmp_path, capfd):
    (tmp_path / "file").write_text("")
    message = fails(capfd, "run", inputs, tmp_path / "file" / "run")
    assert "cannot be written" in message and "choose another place" in message


def test_read_only_disk(inputs, small_disk, capfd):
    """Which holds for root, too."""
    mount = ["mount", "-o", "remount,ro", str(small_disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a disk read-only")
    message = fails(capfd, "finetune", inputs, small_disk / "run")
    assert "run: cannot be written" in message or "config.json: cannot be written" in message
    assert "Read-only file system" in message and not list(small_disk.iterdir())


def test_second_process_on_a_run_folder(inputs, tmp_path, capfd):
    with only_one(tmp_path / "run" / "full" / "seed3"):
        (tmp_path / "run" / "config.json").write_text(
            json.dumps(flatten_config(load_config(inputs)))
        )
        message = fails(capfd, "finetune", inputs, tmp_path / "run", "--config.methods=full")
    assert "another process is using it" in message
    assert not list(tmp_path.rglob("vector.safetensors"))


@pytest.mark.parametrize("every, victim", [(0, "vector.safetensors"), (3, "state")])
def test_full_disk(inputs, small_disk, every, victim):
    command = [sys.executable, "-m", "orthoreg_jax.cli", "finetune", "--config", str(inputs),
               "--workdir", str(small_disk / "run"), "--config.model=embedded",
               f"--config.training.checkpoint_every={every}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    message = done.stderr.splitlines()[-1]
    assert f"{victim}: cannot be written" in message and "No space left on device" in message
    left = [path.name for path in small_disk.rglob("*") if path.is_file()]
    whole = {"config.json", "provenance.json", "heads.safetensors", "metrics.jsonl"}
    assert set(left) <= whole


def test_a_run_is_no_model(finished, tmp_path, capfd):
    assert cli.main(["measure", "--model", str(finished), "--tasks", "digits"]) == 1
    said = f"{finished}: is a run's folder, not a model; write a model of the run with `orthoreg ex"
    assert said in capfd.readouterr().err
    (tmp_path / "config.json").write_text('{"sizes": 3}')
    assert cli.main(["measure", "--model", str(tmp_path), "--tasks", "digits"]) == 1
    assert (
        "config.json: describes no model (it has no model_type); supported"
        in capfd.readouterr().err
    )


def test_stages_in_the_wrong_order(inputs, tmp_path, capfd):
    message = fails(capfd, "evaluate", inputs, tmp_path / "run")
    assert "4 task vectors are missing" in message and "stage `finetune` first" in message
    assert orthoreg("report", None, tmp_path / "none") == 1
    assert f"{tmp_path / 'none'}: no such run folder" in capfd.readouterr().err
    (tmp_path / "begun").mkdir()
    assert orthoreg("report", None, tmp_path / "begun") == 1
    assert "run the stage `evaluate` first" in capfd.readouterr().err


def test_divergence_names_task_and_step_and_keeps_the_last_good_state(inputs, tmp_path, capfd):
    options = ["--config.training.learning_rate=1e30", "--config.methods=full"]
    assert orthoreg("run", inputs, tmp_path / "run", *options) == 1
    message = capfd.readouterr().err.splitlines()[-1]
    said = "full seed 3 first: loss or gradient is not finite at step 1 (loss not finite, "
    assert said in message
    folder = tmp_path / "run" / "full" / "seed3" / "first"
    assert [path.name for path in (folder / "last_good").iterdir() if path.name.isdigit()] == ["1"]
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert not (folder / "vector.safetensors").exists()
    assert not (tmp_path / "run" / "results.json").exists()


def test_batches_must_fit_the_devices(inputs, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    message = fails(capfd, "run", inputs, tmp_path / "run")
    assert "batch_size 8 cannot be split over 3 devices" in message


def test_the_module_is_the_command_and_knows_its_version():
    command = [sys.executable, "-m", "orthoreg_jax", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = dict(line.split() for line in done.stdout.splitlines())
    packages = ("orthoreg-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
    for name in packages:
        assert said[name] == metadata.version(name)
    assert said["Python"] == platform.python_version()


def test_versions_that_nobody_reads_to_their_end():
    command = [sys.executable, "-m", "orthoreg_jax", "--version"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # long before it has started
        assert process.stderr.read() == b"" and process.wait() == 0


def test_a_missing_config_is_said_before_anything_heavy_is_imported():
    code = (
        "import sys; from orthoreg_jax import cli\n"
        "code = cli.main(['run', '--config', 'none.py', '--workdir', 'none'])\n"
        "print(code, 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"] and "no such Python file" in done.stderr


def test_unknown_arguments(tmp_path, capfd):
    for arguments in (["run"], ["fly"], ["report", "--workdir", "x", "--verbose"],
                      ["report", "--workdir", "x", "--config.training.steps=3"]):  # fmt: skip
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2


@pytest.mark.parametrize(
    "arguments, meant",
    [
        (["run", "--steps=10"], "; did you mean --config.training.steps=10?"),
        (["run", "--steps", "10"], "; did you mean --config.training.steps=VALUE?"),
        (["run", "--training.steps=10"], "; did you mean --config.training.steps=10?"),
        (["run", "--lr=1e-4"], "; did you mean --config.training.learning_rate=1e-4?"),
        (["run", "--modls"], "; did you mean --models?"),
        (["run", "--batch_size=4"], "; did you mean --config.training.batch_size=4 or "
                                    "--config.evaluation.batch_size=4?"),
        (["run", "--zebra"], ""),
        (["report", "--steps=10"], ""),  # takes no config
    ],
)  # fmt: skip
def test_the_argument_that_was_meant(capfd, arguments, meant):
    command, *unknown = arguments
    with pytest.raises(SystemExit):
        cli.main([command, "--workdir", "x", *unknown])
    said = f"error: unknown arguments: {' '.join(unknown)}{meant}"
    assert capfd.readouterr().err.splitlines()[-1].endswith(said)


def test_a_reader_that_has_seen_enough(inputs):
    """`orthoreg data check ... | head -1`."""
    command = [sys.executable, "-m", "orthoreg_jax.cli", "data", "check", "--config", str(inputs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()
