"""Running a step's tasks, in this process or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from raypo.data.readers.sources import release_memory
from raypo.io.progress import Progress

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
# Applies a function to every task and yields the results, plain values, in the tasks' order.
RunTasks = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def in_this_process(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """Run one task after the other, without Ray."""
    return map(function, tasks)


@dataclass(frozen=True)
class TaskRunner:
    """Runs a step's tasks and reports progress."""

    run_tasks: RunTasks
    progress: Progress

    def run(
        self, function: Callable[[TaskT], ResultT], tasks: Sequence[TaskT], what: str
    ) -> list[ResultT]:
        """Results of all tasks, in order.

        Args:
            function: takes a task.
            tasks: of the step.
            what: the step's name in the progress display.
        """
        results: list[ResultT] = []
        self.progress(0, len(tasks), what)
        for result in self.run_tasks(function, tasks):
            results.append(result)
            self.progress(len(results), len(tasks), what)
        release_memory()
        return results
