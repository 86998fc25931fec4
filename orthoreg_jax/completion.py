"""Completion of the command `orthoreg` in bash and zsh, made from its parser."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh")
# Words after the cursor's command; a word that takes a path, or none of these, completes to files.
_SCRIPT = """\
{zsh}_orthoreg() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    words="{commands}"
  else
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=( $(compgen -W "$words" -- "$current") )
}}
complete -o default -F _orthoreg orthoreg
"""


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script that a shell reads, as by `source <(orthoreg completion bash)`.

    Args:
      parser: of the command; its subcommands, their options and choices are completed, and all
        else as files.
      shell: one of `SHELLS`.
    """
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    cases = [
        f'      {name}) words="{" ".join(_words(command))}" ;;'
        for name, command in commands.choices.items()
    ]
    return _SCRIPT.format(
        zsh="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        commands=" ".join([*commands.choices, *_options(parser)]),
        cases="\n".join(cases),
    )


def _words(command: argparse.ArgumentParser) -> list[str]:
    """Choices of its arguments and its options, those of its own subcommands included."""
    words: list[str] = []
    for action in command._actions:
        if not action.option_strings:
            words += map(str, action.choices or ())
        if isinstance(action, argparse._SubParsersAction):
            words += [word for each in action.choices.values() for word in _options(each)]
    return list(dict.fromkeys([*words, *_options(command)]))


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [text for action in parser._actions for text in action.option_strings]
