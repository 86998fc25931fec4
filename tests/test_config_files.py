"""Configs by name, and a file with every option to start from."""

import ast
import pathlib
import re

import pytest

from orthoreg_jax import cli, shipped_configs
from orthoreg_jax.config import default_config, flatten_config, load_config
from orthoreg_jax.config.template import write_template

ROOT = pathlib.Path(__file__).parents[1]


def test_a_config_that_comes_along_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (ROOT / "configs").glob("*.py"):
        assert load_config(path.stem).to_dict() == load_config(path).to_dict()
    assert load_config("embedded", ["seeds=7"]).seeds == (7,)


def test_a_file_goes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pathlib.Path("embedded.py").write_text((ROOT / "configs" / "embedded_full.py").read_text())
    pathlib.Path("paper.py").write_text("")
    (tmp_path / "embedded").mkdir()
    assert shipped_configs.locate_config("embedded.py") == pathlib.Path("embedded.py")
    assert shipped_configs.locate_config("embedded") == ROOT / "configs" / "embedded.py"


@pytest.mark.parametrize(
    "source, message",
    [
        ("configs/embedded.py", "'embedded' comes with the package, by this"),
        ("embeded", r"one of best, embedded, embedded_analogies.*; did you mean embedded\?$"),
        ("none.py", r"no such Python file \(.py\); allowed"),
        ("", "no such Python file"),
    ],
)
def test_what_is_neither_file_nor_name(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_config(source)


def test_an_installed_package_has_them_within(tmp_path, monkeypatch):
    """Of its neighbours, a folder `configs` may be anybody's."""
    for name in ("within", "beside"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text("")
    monkeypatch.setattr(shipped_configs, "FOLDERS", (tmp_path / "within", tmp_path / "beside"))
    assert list(shipped_configs.shipped_configs()) == ["within"]


def test_the_template_is_the_defaults_and_has_every_option(tmp_path, capsys):
    file = tmp_path / "mine.py"
    assert cli.main(["init", str(file)]) == 0
    assert load_config(file).to_dict() == default_config().to_dict()
    text = file.read_text()
    options = [key for key in flatten_config(default_config()) if not key.startswith("per_method")]
    found = re.findall(r"^    # config\.(.+?) = ", text, re.M)
    assert sorted(found) == sorted([*options, 'per_method["full"].learning_rate'])
    assert f"orthoreg run --config {file} " in text


def test_its_lines_work_when_they_are_taken_in(tmp_path):
    """Each option's lines, without their "# ", set that option to its default."""
    lines = write_template(tmp_path / "mine.py").read_text().splitlines()
    config = default_config()
    while lines:
        line = lines.pop(0)
        if not line.startswith("    # config."):
            continue
        statement = line[6:]
        while statement.count("(") > statement.count(")"):
            statement += "\n" + lines.pop(0)[6:]
        key = ast.unparse(ast.parse(statement).body[0].targets[0]).removeprefix("config.")
        before = config.to_dict()
        exec(statement, {"config": config})
        assert config.to_dict() == before, key


@pytest.mark.parametrize("name", shipped_configs.shipped_configs())
def test_the_template_of_a_config_is_that_config(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    file = pathlib.Path("mine.py")
    assert cli.main(["init", "mine.py", "--config", name]) == 0
    config, text = load_config(name), file.read_text()
    assert load_config(file).to_dict() == config.to_dict()
    assert max(map(len, text.splitlines())) <= 100
    default = flatten_config(default_config())
    changed = [key for key, value in flatten_config(config).items() if value != default[key]]
    assert len(re.findall(r"^    config\.(.+?) = ", text, re.M)) == len(changed) > 2
    # An option is set or commented out, and not both.
    names = re.findall(r"^    (?:# )?config\.([a-z_.]+) = ", text, re.M)
    assert len(names) == len(set(names))


def test_the_template_takes_options_of_the_command_line(tmp_path, capsys):
    file = tmp_path / "mine.py"
    options = ["--config.training.steps=7", "--config.per_method.lora+orthoreg.strength=2"]
    assert cli.main(["init", str(file), *options]) == 0
    lines = [line for line in file.read_text().splitlines() if line.startswith("    config.")]
    assert lines == [
        '    config.per_method["lora+orthoreg"].strength = 2.0',
        "    config.training.steps = 7",
    ]
    embedded = tmp_path / "embedded.py"
    assert cli.main(["init", str(embedded), "--config", "embedded", "--config.tasks=mnist"]) == 0
    assert "note: not measured with these tasks (mnist)" in capsys.readouterr().err
    assert load_config(embedded).tasks == ("mnist",)


def test_no_folder_is_made_for_a_template(tmp_path, capfd):
    assert cli.main(["init", str(tmp_path / "nofolder" / "mine.py")]) == 1
    said = f"{tmp_path}/nofolder: no such folder; create it, or give another name"
    assert said in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_written_over(tmp_path, capfd):
    file = tmp_path / "mine.py"
    file.write_text("mine")
    for name, message in ((file, "exists already"), (tmp_path / "mine", "ends in .py")):
        assert cli.main(["init", str(name)]) == 1
        assert message in capfd.readouterr().err
    assert file.read_text() == "mine"
