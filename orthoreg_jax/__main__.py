"""The command `orthoreg`, also as `python -m orthoreg_jax`."""

from __future__ import annotations

import sys

from .extras import MissingExtraError, explained


def main() -> int:
    """Runs the command; without the extra [experiments], says that it is missing."""
    try:
        with explained("the command orthoreg"):
            from . import cli

            return cli.main()
    except MissingExtraError as error:
        print(f"orthoreg: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
