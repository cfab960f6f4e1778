"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

Update: TypeAlias = Callable[[float, str], None]

SECONDS_BETWEEN_LINES = 10.0


class Reporter:
    """Tells the user what is going on. ``console`` defaults to standard error."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """Print a line."""
        self.console.print(text, soft_wrap=True, markup=False)

    @contextmanager
    def task(self, name: str) -> Iterator[Update]:
        """Show a task; the yielded function takes the fraction done and a text such as "loss 0.12"."""
        left = TimeLeft()
        if self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"))
            with Progress(*columns, console=self.console) as bar:
                row = bar.add_task(name, total=1.0, told="")

                def update(fraction: float, text: str) -> None:
                    bar.update(row, completed=fraction, told=f"{fraction:4.0%}  {text}{left.after(fraction)}")

                yield update
            return
        said = time.monotonic()

        def update_line(fraction: float, text: str) -> None:
            nonlocal said
            ending = left.after(fraction)
            if time.monotonic() - said >= SECONDS_BETWEEN_LINES or fraction >= 1.0:
                said = time.monotonic()
                self.say(f"{name} {fraction:4.0%}  {text}{ending}")

        self.say(f"{name} ...")
        yield update_line


class TimeLeft:
    """Guesses the time left from the speed since the first call, so that a resumed task is judged by its own pace."""

    def __init__(self) -> None:
        self.start: tuple[float, float] | None = None

    def after(self, fraction: float) -> str:
        """Return ", m:ss left", or nothing where it is not known yet."""
        now = time.monotonic()
        if self.start is None:
            self.start = (now, fraction)
        since, begun = self.start
        if fraction <= begun or fraction >= 1.0:
            return ""
        seconds = round((now - since) * (1 - fraction) / (fraction - begun))
        return f", {seconds // 60}:{seconds % 60:02d} left"
