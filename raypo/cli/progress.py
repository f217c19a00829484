"""What a person sees while something runs: what it is, how far it is, how long is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from raypo.io.progress import Progress

# Results go to stdout; what only accompanies the work goes to stderr.
console = Console(stderr=True)
_SECONDS_BETWEEN_LINES = 15.0


@contextmanager
def progress_bar(
    stage: str, expected: float | None = None, seconds_after: float = 0.0
) -> Iterator[Progress]:
    """A Progress that is drawn as a bar on a terminal and as lines elsewhere.

    Args:
        stage: what is running.
        expected: seconds it usually takes, said until its own pace is known.
        seconds_after: what is expected to follow this stage; added as 'left in all'.
    """
    started = time.monotonic()
    first: list[tuple[float, int]] = []  # when and where the first unit was done: starting aside
    totals: list[int] = []  # a stage of several phases counts each in its own units

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
