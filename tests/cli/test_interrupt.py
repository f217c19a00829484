"""Ctrl-C ends a command wherever it meets it, and never its clean-up."""

import signal
import threading
import time

import pytest

from raypo.cli import interrupt


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(interrupt, "_AGAIN_AFTER", 0.05)
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


def sleep(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.005)


class ClearsWhatIsRaised:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        sleep(0.01)


def test_an_interrupt_that_a_destructor_clears_is_raised_again():
    """Without a word of the first: pytest would make an error of it."""
    passed = []
    with pytest.raises(KeyboardInterrupt), interrupt.raised_until_heard():
        ClearsWhatIsRaised()
        passed.append("the destructor")
        sleep(5)
        passed.append("the rest")
    assert passed == ["the destructor"]


def test_clean_up_is_not_interrupted():
    cleaned = []
    with pytest.raises(KeyboardInterrupt), interrupt.raised_until_heard():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            try:
                raise ValueError
            except ValueError:
                sleep(0.3)
            cleaned.append(True)
    assert cleaned == [True]


def test_a_second_ctrl_c_ends_clean_up_too():
    with pytest.raises(KeyboardInterrupt), interrupt.raised_until_heard():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("clean-up went on")


def test_another_handler_and_another_thread_keep_theirs(monkeypatch):
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        with interrupt.raised_until_heard():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [True]
    failed = []

    def elsewhere():
        try:
            with interrupt.raised_until_heard():
                pass
        except ValueError as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed
