"""The arguments of the command `orthoreg`, and its help."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from typing import Any, TypeAlias

from .completion import SHELLS

STAGE_HELP = {
    "finetune": "fine-tune every task of the config and save its task vector",
    "evaluate": "measure single tasks, addition and negation; writes results.json",
    "report": "draw plots and write report.html from results.json",
}
DATA_ACTIONS = {
    "check": "report on each task: image counts, hashes, duplicates, and problems",
    "prepare": "fetch missing data from the hub",
}
EPILOG = """\
examples:
  orthoreg run --config embedded --workdir runs/embedded
  orthoreg run --config embedded --workdir runs/strong --config.penalty.strength=30
  orthoreg init mine.py --config embedded
  orthoreg run --models mnist=A emoji=B --base embedded --workdir runs/given
  orthoreg report --workdir runs/embedded
  orthoreg data check --config embedded
  orthoreg data prepare --tasks dtd,svhn --data data
  orthoreg export --workdir runs/embedded --method full --out added
  orthoreg merge --workdir runs/embedded --method full --merger tsv_m --out merged
  orthoreg merge --models A B C --base ViT-B/32 --merger tsv_m --alpha 1 --out merged
  orthoreg vector --model A --base ViT-B/32 --out a.safetensors
  orthoreg measure --model merged --data embedded

Every stage skips finished work. To resume an interrupted run, repeat the command.
"""


class _Versions(argparse.Action):
    """Looks versions up only when asked for them: that takes longer than all of --help."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from .versions import versions_text

        try:
            print(versions_text(), flush=True)
        except BrokenPipeError:  # the reader has seen enough, like `head`
            close_output()
        parser.exit()


class _Parser(argparse.ArgumentParser):
    """A parser whose help can end with the options of a config."""

    lists_options = False

    def format_help(self) -> str:
        if not self.lists_options:
            return super().format_help()
        from .option_list import options_text

        return f"{super().format_help()}\n{options_text()}"


# The class that add_subparsers returns has no public name.
Subcommands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def make_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands."""
    # allow_abbrev is off, because "--conf.x" must be an error, not an abbreviation of --config.
    parser = argparse.ArgumentParser(
        prog="orthoreg",
        description="OrthoReg and task arithmetic: fine-tune, add, negate and report.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    text = "print the versions of the packages in use, and exit"
    parser.add_argument("--version", nargs=0, action=_Versions, help=text)
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", parser_class=_Parser
    )
    for name, text in {"run": "run all stages in order", **STAGE_HELP}.items():
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name != "report":
            command.lists_options = True
            _add_config(command, required=name != "run")
            _add_hosts(command)
        if name == "run":
            _add_given(command)
        command.add_argument(
            "--workdir", required=True, type=pathlib.Path, help="folder of this run"
        )
    text = "write a config file to start from, with every option and its comment"
    init = commands.add_parser("init", help=text, description=text, allow_abbrev=False)
    init.add_argument(
        "file", type=pathlib.Path, metavar="FILE.py", help="file to write; must be new"
    )
    _add_config(init, required=False, role="config whose values to set (default: none); ")
    _add_export(commands)
    _add_merge(commands)
    _add_vector(commands)
    _add_push(commands)
    _add_measure(commands)
    _add_data(commands)
    text = "print a script that completes this command: source <(orthoreg completion bash)"
    shell = commands.add_parser("completion", help=text, description=text, allow_abbrev=False)
    shell.add_argument("shell", choices=SHELLS, help="whose script")
    return parser


def _add_data(commands: Subcommands) -> None:
    text = "check the data of tasks, or fetch missing data from the hub"
    data = commands.add_parser("data", help=text, description=text, allow_abbrev=False)
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in DATA_ACTIONS.items():
        action = actions.add_parser(name, help=text, description=text, allow_abbrev=False)
        _add_config(action, required=False)
        add = action.add_argument
        add("--tasks", help="instead of a config's: e.g. dtd,svhn; 8, 14, 20: the field's lists")
        add("--data", default="data", help="data folder, with --tasks (default: data)")
        if name == "prepare":
            add(
                "--tfds",
                action="store_true",
                help="prepare with tensorflow-datasets, not from the hub",
            )


def _add_given(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("to evaluate models that were fine-tuned elsewhere")
    add = group.add_argument
    add("--models", nargs="+", metavar="TASK=MODEL", help="one for each task: directories, "
        "safetensors files or hub names, with @REVISION, or files of task vectors")  # fmt: skip
    add("--experts", default="", metavar="SET", help="published models of the --tasks, on the "
        "hub: fusionbench/ViT-B/32, .../ViT-B/16, .../ViT-L/14")  # fmt: skip
    add("--tasks", default="", help="with --experts")
    add("--base", default="", help="the CLIP they were fine-tuned from (with --experts: known)")
    add("--data", default="", help="a folder, or embedded (default: the config's; embedded)")
    add("--control", default="", help="task whose accuracy negation must keep")


def _add_export(commands: Subcommands) -> None:
    text = "export an edited model of a finished run as a Hugging Face directory with a model card"
    export = commands.add_parser("export", help=text, description=text, allow_abbrev=False)
    add = export.add_argument
    add("--workdir", required=True, type=pathlib.Path, help="folder of the run")
    add("--out", required=True, type=pathlib.Path, help="directory to write; must be new")
    add("--overwrite", action="store_true", help="replace a model that an earlier command wrote")
    add("--method", required=True, help="one of the run's methods, e.g. full+orthoreg")
    add("--seed", type=int, help="one of the run's seeds (default: the first)")
    add("--tasks", default="", help="tasks to add, e.g. mnist,emoji (default: all of the run)")
    add("--forget", default="", metavar="TASK", help="task to subtract instead")
    add("--alpha", type=float, help="default: as chosen on validation; 1 for a single task")
    _add_layout(export)


def _add_layout(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--layout",
        default="transformers",
        help="of the directory: transformers (a whole CLIPModel), vision or vision-bare (the image "
        "tower alone, keys with or without vision_model.), vision-projection, open_clip",
    )


def _add_merge(commands: Subcommands) -> None:
    text = "merge task vectors of a run, of models or of files into a CLIP directory with its card"
    merge = commands.add_parser("merge", help=text, description=text, allow_abbrev=False)
    add = merge.add_argument
    add("--merger", required=True, help="average, ties, tsv_m, wudi, ...; adamerging, "
        "regmean or fisher, which use validation images of --tasks")  # fmt: skip
    add("--option", nargs="*", default=[], metavar="NAME=VALUE", help="parameters, e.g. k=30")
    add("--space", default="", choices=("knots", "core"), help="merge in a basis that all vectors "
        "share: of their outputs (knots), or of inputs and outputs (core)")  # fmt: skip
    add("--match-norms", default="", choices=("mean", "smallest", "largest"),
        help="scale the vectors to one norm first")  # fmt: skip
    add("--out", required=True, type=pathlib.Path, help="directory to write; must be new")
    add("--overwrite", action="store_true", help="replace a model that an earlier command wrote")
    add("--alpha", type=float, help="α in θ₀ + α τ (default: chosen on validation)")
    add("--draw", type=int, default=0, help="seed of mergers that draw random numbers (default: 0)")
    add("--tasks", default="", help="for a run: tasks to merge (default: all); otherwise: tasks "
        "to choose alpha on, one per model or vector in the same order")  # fmt: skip
    _add_layout(merge)
    run = merge.add_argument_group("to merge a run").add_argument
    run("--workdir", type=pathlib.Path, help="folder of the run")
    run("--method", default="", help="one of the run's methods, e.g. full+orthoreg")
    run("--seed", type=int, help="one of the run's seeds (default: the first)")
    files = merge.add_argument_group("to merge models or vectors").add_argument
    files("--models", nargs="+", metavar="MODEL", help="fine-tuned CLIPs, image towers or LoRA "
          "adapters: directories, safetensors files or hub names, with @REVISION")  # fmt: skip
    files("--experts", default="", metavar="SET", help="published models of the --tasks, on the "
          "hub: fusionbench/ViT-B/32, .../ViT-B/16, .../ViT-L/14")  # fmt: skip
    files("--vectors", nargs="+", metavar="FILE", type=pathlib.Path, help="files of task vectors")
    files("--base", "--model", dest="base", default="", help="the CLIP they were fine-tuned from")
    files("--visual-only", action="store_true", help="ignore the models' text towers")
    files("--any-base", action="store_true", help="accept vectors with another or unknown base")
    files("--data", default="", help="data to choose alpha on: embedded (default), or a folder")


def _add_vector(commands: Subcommands) -> None:
    text = "write a fine-tuned model's task vector (its difference from the base) as safetensors"
    vector = commands.add_parser("vector", help=text, description=text, allow_abbrev=False)
    add = vector.add_argument
    add("--model", required=True, help="a CLIP, image tower or LoRA adapter; see merge --models")
    add("--base", required=True, help="the CLIP it was fine-tuned from")
    add("--out", required=True, type=pathlib.Path, help="file to write; must be new")
    add("--visual-only", action="store_true", help="ignore the model's text tower")


def _add_push(commands: Subcommands) -> None:
    text = "upload a directory that export or merge wrote to the hub, with its card"
    push = commands.add_parser("push", help=text, description=text, allow_abbrev=False)
    add = push.add_argument
    add("--model", required=True, type=pathlib.Path, help="directory to upload")
    add("--to", required=True, metavar="USER/NAME", help="hub repository; created if missing")
    add("--private", action="store_true", help="create it as a private repository")


def _add_measure(commands: Subcommands) -> None:
    text = "print a model's accuracies, using the zero-shot head from its own text tower"
    measure = commands.add_parser("measure", help=text, description=text, allow_abbrev=False)
    add = measure.add_argument
    add("--model", required=True, help="a CLIP directory, embedded, ViT-B/32, ... or a hub name")
    add("--base", default="", help="for an image tower or adapter: the CLIP it was fine-tuned from")
    add("--data", default="embedded", help="embedded, or a folder; see `data` in a config")
    add("--tasks", default="", help="e.g. mnist,emoji (default: all in the data's tasks.json)")
    add("--split", default="test", choices=("train", "val", "test"), help="default: test")


def _add_config(command: argparse.ArgumentParser, required: bool = True, role: str = "") -> None:
    command.add_argument(
        "--config",
        required=required,
        type=pathlib.Path,
        help=f"{role}a Python file with get_config(), or the name of a config in the package, e.g. "
        "embedded; override an option with "
        "--config.NAME=VALUE, e.g. --config.training.steps=200",
    )


def _add_hosts(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--distributed",
        action="store_true",
        help="join the other processes of this job, as TPU pods, SLURM or Open MPI announce them",
    )
    command.add_argument("--coordinator", metavar="HOST:PORT", help="address of the first process")
    command.add_argument("--processes", type=int, help="number of processes")
    command.add_argument("--process", type=int, help="index of this process, from 0")


def close_output() -> None:
    """Redirects standard output to nowhere, so that flushing at exit cannot fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
