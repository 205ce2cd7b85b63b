"""What profiles of models and of files share: what their MACs leave out."""

from __future__ import annotations

import abc

from tfnas.graph.macs import not_counted
from tfnas.table import Tabular


class CountedProfile(Tabular):
    """A profile whose MACs are a lower bound where some parts are not counted."""

    @property
    @abc.abstractmethod
    def uncounted(self) -> tuple[str, ...]:
        """The parts whose MACs are not known."""

    @abc.abstractmethod
    def summary(self) -> str:
        """Returns the totals as one line."""

    def check_counted(self, argument: str) -> None:
        """Raises ValueError where a limit on MACs can't be kept, since some are not counted.

        Args:
            argument: Name of the limit, for the message.
        """
        if self.uncounted:
            raise ValueError(not_counted(argument, self.uncounted))

    def notes(self) -> list[str]:
        """Returns the totals, and what they are without."""
        if not self.uncounted:
            return [self.summary()]
        return [self.summary(), f"MACs not counted: {', '.join(self.uncounted)}"]
