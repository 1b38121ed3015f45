"""Signals are answered where nothing is lost, and never swallowed."""

import signal

import pytest

from curricula.runtime.signals import Interrupted, deferred, stop_requests


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


def test_a_deferred_interrupt_reaches_the_handler_outside():
    with stop_requests() as stop:
        with deferred():
            signal.raise_signal(signal.SIGINT)
            assert stop.received is None
        assert stop.received == signal.SIGINT


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
