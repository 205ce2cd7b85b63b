"""Progress in the terminal: a live display, or plain lines if stdout is no terminal."""

from __future__ import annotations

import sys

from absl import flags

from tfnas.compression.progress import PrintedProgress, Progress, TrialNews, duration


def progress_display(values: flags.FlagValues) -> PlainProgress | NoProgress:
    """Returns the live display, plain lines if stdout is no terminal, or nothing with --quiet.

    Args:
        values: The flags of the command.
    """
    if values["quiet"].value:
        return NoProgress()
    # Python's stdout is None where its descriptor is closed.
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return LiveProgress() if is_terminal else PlainProgress()


class NoProgress(Progress):
    """Shows nothing; used in a `with` block."""

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing."""


class PlainProgress(PrintedProgress):
    """Prints one line for each event, with the time left; used in a `with` block."""

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(self, *_: object) -> None:
        """Does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def trial_began(self, number: int, total: int) -> None:
        """Names the trial in the lines of its epochs."""
        self.steps_are_of(f"trial {number}/{total}")

    def trial_ended(self, news: TrialNews) -> None:
        """Prints the result of a trial and the best trial so far."""
        self.steps_are_of("")
        self.times.append(news.seconds)
        left = self.left() or f"about {duration(self.seconds_left(news))} left"
        self._say(f"trial {news.number}/{news.total} [{duration(news.seconds)}] {news.text}")
        self._say(f"  best: {news.best or 'none'}; {left}")
        if news.front is not None:
            self._say(f"  {news.front}")

    def seconds_left(self, news: TrialNews) -> float:
        """Returns the estimated time of the remaining trials, in s."""
        return sum(self.times) / len(self.times) * (news.total - news.number)


class LiveProgress(PlainProgress):
    """Shows a progress bar with the trial, the epoch and the time left, below the lines."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
        from rich.progress import Progress as Bar
        from rich.text import Text

        class Left(ProgressColumn):
            """The time left; drawn again as long as the bar is shown, so that it ticks."""

            def render(_, task: Task) -> Text:
                return Text(self.left() or self.trials_left)

        columns = [TextColumn("{task.description}"), BarColumn(bar_width=24), Left()]
        self.bar = Bar(*columns, console=Console(), transient=True)
        self.task = self.bar.add_task("", total=None)
        self.trials_left = ""
        self.number, self.total = 0, 1

    def phase(self, text: str) -> None:
        """Prints the start of a phase and resets the bar."""
        super().phase(text)
        self.number, self.trials_left = 0, ""
        self.bar.reset(self.task, total=1.0, description="working")
        self.bar.start()

    def __exit__(self, *_: object) -> None:
        """Removes the bar, also after an error."""
        self.bar.stop()

    def trial_began(self, number: int, total: int) -> None:
        """Shows the number of the trial."""
        super().trial_began(number, total)
        self.number, self.total = number, total
        self._show((number - 1) / total)

    def step_ended(self, number: int, total: int, unit: str) -> None:
        """Advances the bar."""
        fraction = number / total
        if self.number:  # the last fifth of a trial is converting and measuring
            fraction = (self.number - 1 + 0.8 * fraction) / self.total
        self._show(fraction, f"{unit} {number:,}/{total:,}")

    def trial_ended(self, news: TrialNews) -> None:
        """Prints the result of a trial and advances the bar."""
        super().trial_ended(news)
        self.trials_left = f"about {duration(self.seconds_left(news))} left"
        self.bar.update(self.task, completed=news.number / news.total)

    def _show(self, fraction: float, detail: str = "") -> None:
        trial = f"trial {self.number}/{self.total} " if self.number else ""
        self.bar.update(self.task, completed=fraction, total=1.0, description=f"{trial}{detail}")

    def _say(self, text: str) -> None:
        self.bar.console.print(text, highlight=False, markup=False)
