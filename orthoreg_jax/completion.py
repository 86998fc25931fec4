"""Completion of the command `orthoreg` in bash and zsh, made from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from .option_list import parse_options
from .shipped_configs import shipped_configs

SHELLS = ("bash", "zsh")
# Values that the parser leaves to checks after it, whose tables take seconds to import.
VALUES = {
    "--merger": (
        *("average", "task_arithmetic", "ties", "dare", "dare_ties", "breadcrumbs", "consensus"),
        *("pcb", "slerp", "model_stock", "tsv_m", "iso_c", "iso_cts", "wudi", "cart", "dc_merge"),
        *("adamerging", "regmean", "fisher"),
    ),
    "--layout": ("transformers", "vision", "vision-bare", "vision-projection", "open_clip"),
    "--experts": ("fusionbench/ViT-B/32", "fusionbench/ViT-B/16", "fusionbench/ViT-L/14"),
}
# `at` is the line up to the cursor's word. Where no words are given, files are completed. In bash
# "=" is a word by itself.
_SCRIPT = """\
{zsh}_orthoreg() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  local at="${{COMP_WORDS[*]:1:COMP_CWORD-1}}"
  at="${{at% =}}"
  COMPREPLY=()
  case "$at" in
{cases}
  esac
  case "$at" in
    *" --config") COMPREPLY=( $(compgen -f -X '!*.py' -- "$current") ) ;;
  esac
  case "$words" in
    *" --config "*)
      case "$current" in
        --config.*)
          words="{options}"
          compopt -o nospace 2> /dev/null  # zsh may lack it
        ;;
      esac
    ;;
  esac
  COMPREPLY+=( $(compgen -W "$words" -- "$current") )
}}
complete -o default -F _orthoreg orthoreg
"""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that a shell reads, as by `source <(orthoreg completion bash)`.

    Args:
      parser: of the command; its subcommands, their options and values are completed, and all else
        as files.
      shell: one of `SHELLS`.
    """
    options = [f"--config.{option.name}=" for option in parse_options()]
    return _SCRIPT.format(
        zsh="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        cases="\n".join(f'    {where}) words="{words}" ;;' for where, words in _cases(parser)),
        options=" ".join(option for option in options if ".METHOD." not in option),
    )


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """A parser's subcommands by name."""
    found = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return next((dict(action.choices) for action in found), {})


def _cases(parser: argparse.ArgumentParser, path: str = "") -> Iterator[tuple[str, str]]:
    """Patterns of the line before the cursor's word, and the words that may follow, specific first.

    Args:
      parser: of the command or a subcommand.
      path: words that lead to it.
    """
    commands = subparsers(parser)
    for name, each in commands.items():
        yield from _cases(each, f"{path} {name}".strip())
    flags: list[str] = []
    free: list[str] = []
    valued: list[argparse.Action] = []
    for action in parser._actions:
        flags += action.option_strings
        if not action.option_strings:
            free += [str(choice) for choice in action.choices or ()]
        elif action.nargs != 0:
            valued.append(action)
    for action in valued:
        values = action.choices or next(
            (VALUES[flag] for flag in action.option_strings if flag in VALUES), ()
        )
        if action.dest == "config":
            values = list(shipped_configs())
        where = "|".join(f'"{path}"*" {flag}"' for flag in action.option_strings)
        yield where, " ".join(map(str, values))
    words = " ".join(dict.fromkeys([*free, *flags]))
    yield (f'"{path}"' if commands else f'"{path}"|"{path} "*'), f" {words} "
