from __future__ import annotations

import threading
from threading import Event

import pytest

from vconv.workflows.background import in_background


def test_work_beside_gives_its_result() -> None:
    def work(stop: Event) -> tuple[str, bool]:
        return threading.current_thread().name, stop.is_set()

    with in_background(work) as result:
        name, stopped = result()
    assert name != threading.current_thread().name
    assert not stopped


def test_what_fails_beside_is_raised_where_its_result_is_asked_for() -> None:
    def work(stop: Event) -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"), in_background(work) as result:
        result()


def test_work_is_told_to_stop_when_the_other_fails() -> None:
    stopped: list[bool] = []

    def work(stop: Event) -> None:
        stopped.append(stop.wait(60))

    with pytest.raises(KeyError), in_background(work):
        raise KeyError
    assert stopped == [True]
