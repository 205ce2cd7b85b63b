"""Ctrl-C is announced by another thread, and is not lost."""

import os
import signal
import sys
import threading

import pytest

from tfnas.runtime.interrupts import Interrupts, announced_interrupts


def wait_for(event):
    assert event.wait(60)
    while True:  # until KeyboardInterrupt is raised
        signal.pause()


def test_an_interrupt_is_announced_once_and_raised():
    announced, calls = threading.Event(), []

    def announce():
        calls.append(threading.current_thread())
        announced.set()

    def interrupted():
        with announced_interrupts(announce) as found:
            seen.append(found)
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(announced)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert announced.wait(60)
    assert len(calls) == 1
    assert calls[0] is not threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        seen[0].check()
    assert signal.set_wakeup_fd(-1) == -1  # as before


def test_without_an_interrupt_nothing_is_raised():
    with announced_interrupts(pytest.fail) as found:
        found.check()
    Interrupts().check()


def test_no_traceback_is_printed_of_an_interrupt_in_a_finalizer(capsys):
    class Late:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    before = sys.unraisablehook
    sys.unraisablehook = sys.__unraisablehook__  # not that of pytest
    try:
        with announced_interrupts(pytest.fail):
            Late(KeyboardInterrupt())
            assert capsys.readouterr().err == ""
            Late(RuntimeError("lost"))
            assert "RuntimeError: lost" in capsys.readouterr().err
        assert sys.unraisablehook is sys.__unraisablehook__
    finally:
        sys.unraisablehook = before


def test_in_another_thread_nothing_is_watched():
    found = []

    def work():
        with announced_interrupts(pytest.fail) as interrupts:
            interrupts.check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_who_watched_before_hears_of_it_too():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    announced = threading.Event()
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with announced_interrupts(announced.set):
            os.kill(os.getpid(), signal.SIGINT)
            assert announced.wait(60)
            assert os.read(reader, 8) == bytes([signal.SIGINT])
        assert signal.set_wakeup_fd(writer) == writer
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)
