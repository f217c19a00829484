"""Ctrl-C: every command ends at it, with a message of its own and what is complete kept."""

from __future__ import annotations

import functools
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

# After how many seconds an interrupt that was not heard is raised again.
_AGAIN_AFTER = 1.0


class Interrupted(Exception):
    """Ctrl-C, as an error that typer does not answer by itself."""


def interruptible(app: typer.Typer) -> None:
    """Let every command of `app`, and of the apps in it, raise `Interrupted` at Ctrl-C."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _raising_interrupted(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            interruptible(group.typer_instance)


def _raising_interrupted(command: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            with raised_until_heard():
                return command(*arguments, **options)
        except KeyboardInterrupt:
            raise Interrupted from None

    return run


@contextmanager
def raised_until_heard() -> Iterator[None]:
    """Raise KeyboardInterrupt once a second from Ctrl-C on, until something handles it.

    Destructors, functions that run around a fork, and extension modules that are being imported
    clear whatever is raised in them: a command that takes its Ctrl-C there would run to its end.
    Nothing is printed of those, since they are raised again. Clean-up is not disturbed: while a
    KeyboardInterrupt is handled (`except`, `finally`, `__exit__`), none is added.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        yield  # somebody else answers Ctrl-C
        return
    pressed, done, again = threading.Event(), threading.Event(), threading.Event()

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        repeated = again.is_set()
        again.clear()
        pressed.set()
        if not (repeated and _is_handled()):
            raise KeyboardInterrupt

    def on_cleared(cleared: sys.UnraisableHookArgs) -> None:
        if cleared.exc_type is not KeyboardInterrupt:
            unraisable(cleared)

    def repeat() -> None:
        pressed.wait()
        while not done.wait(_AGAIN_AFTER):
            with sending:
                if not done.is_set():
                    again.set()
                    signal.pthread_kill(main, signal.SIGINT)

    main, sending = threading.get_ident(), threading.Lock()
    unraisable, sys.unraisablehook = sys.unraisablehook, on_cleared
    signal.signal(signal.SIGINT, on_interrupt)
    threading.Thread(target=repeat, name="interrupt", daemon=True).start()
    try:
        yield
    finally:
        with sending:  # what is sent arrives before the handler goes
            done.set()
        pressed.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.unraisablehook = unraisable


def _is_handled() -> bool:
    """Whether the code that a signal met is on its way out by a KeyboardInterrupt."""
    handled = sys.exc_info()[1]
    while handled is not None and not isinstance(handled, KeyboardInterrupt):
        handled = handled.__context__
    return handled is not None
