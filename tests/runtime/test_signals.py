"""Signals are answered where nothing is lost, and never swallowed."""

import signal

import pytest

from curricula.runtime.processes import Place
from curricula.runtime.signals import Interrupted, deferred, sigterm_raises, stop_requests


def test_a_deferred_interrupt_is_raised_at_the_end_of_the_block():
    reached = []

    def work():
        with deferred():
            signal.raise_signal(signal.SIGINT)
            reached.append("end of the block")
        reached.append("behind it")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert reached == ["end of the block"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_deferred_signal_reaches_the_handler_outside(number):
    with stop_requests() as stop:
        with deferred():
            signal.raise_signal(number)
            assert stop.received is None
        assert stop.received == number


def test_sigterm_raises_with_its_status_in_one_process_alone(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="terminated") as raised, sigterm_raises():
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.status == 143
    shared = Place(rank=1, count=2)
    monkeypatch.setattr("curricula.runtime.signals.started", lambda: shared)
    with sigterm_raises():
        assert signal.getsignal(signal.SIGTERM) == before


def test_nothing_is_raised_without_a_signal_and_handlers_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_requests() as stop, deferred():
        pass
    assert stop.received is None
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once_with_its_status(number):
    with stop_requests() as stop:
        signal.raise_signal(number)
        assert stop.received == number
        with pytest.raises(Interrupted) as raised:
            signal.raise_signal(number)
    assert raised.value.status == 128 + number
