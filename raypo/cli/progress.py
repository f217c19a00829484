"""Progress bars: the stage, how far it is, and how much time is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from raypo.io.progress import Progress

# Results go to stdout, everything else to stderr.
console = Console(stderr=True)
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_bar(
    stage: str, expected: float | None = None, seconds_after: float = 0.0
) -> Iterator[Progress]:
    """Yield a Progress that draws a bar on a terminal and prints lines elsewhere.

    Args:
        stage: name of what is running.
        expected: seconds that it is expected to take; used until its speed is known.
        seconds_after: expected seconds of the stages after it, shown as 'in all'.
    """
    started = time.monotonic()
    first: list[tuple[float, int]] = []  # time and units of the first report: excludes start-up
    totals: list[int] = []  # a stage with several phases has a total for each

    def left(done: int, total: int) -> str:
        now = time.monotonic()
        if totals != [total]:
            totals[:], first[:] = [total], []
        if done and not first:
            first.append((now, done))
        if first and done > first[0][1]:
            remaining = (now - first[0][0]) * (total - done) / (done - first[0][1])
        elif expected is not None:
            remaining = max(0.0, expected - (now - started))
        else:
            return ""
        text = f"{clock(remaining)} left"
        return f"{text} ({clock(remaining + seconds_after)} in all)" if seconds_after else text

    if console.is_terminal:
        with _bars() as bars:
            task = bars.add_task(stage, total=None, left="", note="")

            def draw(done: int, total: int, note: str = "") -> None:
                bars.update(task, completed=done, total=total, left=left(done, total), note=note)

            yield draw
        return

    last = [0.0]
    console.print(f"{stage} …", highlight=False)

    def line(done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - last[0] >= _SECONDS_BETWEEN_LINES:
            last[0] = now
            parts = [f"{stage}: {done}/{total}", left(done, total), note]
            console.print("  " + ", ".join(filter(None, parts)), highlight=False, soft_wrap=True)
            sys.stderr.flush()

    yield line


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars() -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("[dim]{task.fields[note]}"),
        console=console,
    )
