"""A merger as the command line names it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax

from orthoreg_jax.merging import SPACES, Merger, make_merger

from .fitting import FITTED, read_fitted


class MergerChoice(NamedTuple):
    """A merger by name, and its settings.

    Attributes:
      name: a key of `MERGERS` or `FITTED`.
      options: its parameters, as text.
      draw: the seed for its random numbers.
      space: a key of `SPACES` to merge in; "" merges in the space of the weights.
      match: the norm that vectors are scaled to first, see `match_norms`; "" for none.
    """

    name: str
    options: Mapping[str, str]
    draw: int = 0
    space: str = ""
    match: str = ""

    @property
    def fitted(self) -> bool:
        """Whether it looks at images."""
        return self.name in FITTED

    def check(self) -> None:
        """Refuses bad parameters.

        Raises:
          ValueError: no such merger or parameter, or a value that is none for it.
        """
        if not self.fitted:
            self.make()
            return
        read_fitted(self.name, self.options)
        if self.space:
            raise ValueError(f"--space: {self.name} merges in the space of the weights alone")

    def make(self) -> tuple[Merger, jax.Array | None]:
        """Makes a merger that is not fitted, and a key if it draws random numbers."""
        merger = make_merger(self.name, self.options)
        if self.space:
            merger = SPACES[self.space](merger)
        return merger, jax.random.key(self.draw) if merger.random else None

    def describe(self) -> str:
        """Describes the parameters in words."""
        texts = [f"{key} = {value}" for key, value in self.options.items()]
        if self.fitted:
            texts.append("fitted on validation images of the tasks, without their labels")
        elif self.make()[0].random:
            texts.append(f"seed {self.draw}")
        if self.space:
            texts.append(f"in the space {self.space}")
        if self.match:
            texts.append(f"the task vectors scaled to their {self.match} norm")
        return ", ".join(texts) or "default parameters"
