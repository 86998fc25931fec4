"""`python -m orthoreg_jax` is the command `orthoreg`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
