# SPDX-License-Identifier: BSD-3-Clause
import signal
import sys
import threading

import pytest

from mlimages_jax.files.interrupts import held_back
from mlimages_jax.files.remote import append_line, write_text
from tests.support import bucket


@pytest.fixture(autouse=True)
def _handler():
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def test_an_interrupt_comes_once_when_the_outer_block_has_ended():
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back():
        with held_back():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        reached.append(1)
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.timeout(20)  # it would wait for itself
def test_an_interrupt_while_another_is_noted_ends_no_program():
    def again(frame, event, argument):
        signal.raise_signal(signal.SIGINT)

    noted = []
    with pytest.raises(KeyboardInterrupt), held_back():
        handler = signal.getsignal(signal.SIGINT)
        sys.settrace(again)  # called where a function begins, so inside of the handler too
        try:
            handler(signal.SIGINT, None)
            noted.append(1)
        finally:
            sys.settrace(None)
    assert noted


def test_an_error_of_the_block_is_not_lost():
    with pytest.raises(KeyboardInterrupt) as told, held_back():
        signal.raise_signal(signal.SIGINT)
        raise OSError("no bucket")
    assert isinstance(told.value.__context__, OSError)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.SIG_DFL, lambda *_: None])
def test_other_handlers_stay(handler):
    signal.signal(signal.SIGINT, handler)
    with held_back():
        pass
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_change_no_handler():
    seen = []

    def look():
        with held_back():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("write", [write_text, append_line])
def test_a_text_in_a_bucket_is_never_cut_short(tmp_path, monkeypatch, write):
    """Between opening and writing, an interrupt left an empty object; the earlier one was lost."""
    with bucket.in_folder(tmp_path) as remote:
        opened = type(remote).open

        def interrupted(self, mode="r", *args, **kwargs):
            file = opened(self, mode, *args, **kwargs)
            if "w" in mode:
                signal.raise_signal(signal.SIGINT)
            return file

        monkeypatch.setattr(type(remote), "open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write(remote / "text.txt", "new")
    assert (tmp_path / "text.txt").read_text().strip() == "new"
