"""The worker: in order, bounded, flushed; and a run whose logging happens in it."""

import threading
import time

import pytest

from lightning_xai.callbacks import background


def test_tasks_run_in_order_in_one_other_thread():
    worker, seen = background.Worker(), []
    for number in range(50):
        worker.submit(lambda number=number: seen.append((number, threading.current_thread().name)))
    worker.flush()
    worker.stop()
    assert [number for number, _ in seen] == list(range(50))
    assert {name for _, name in seen} == {"lightning_xai"}


def test_a_full_queue_holds_the_submitter():
    worker, gate = background.Worker(), threading.Event()
    for _ in range(background.ROOM + 1):  # one runs, the others wait
        worker.submit(gate.wait)
    submitted = threading.Event()
    threading.Thread(target=lambda: (worker.submit(lambda: None), submitted.set())).start()
    assert not submitted.wait(0.2)
    gate.set()
    assert submitted.wait(5)
    worker.stop()


def test_stop_runs_what_waits():
    worker, seen = background.Worker(), []
    for number in range(background.ROOM):
        worker.submit(lambda number=number: (time.sleep(0.01), seen.append(number)))
    worker.stop()
    assert seen == list(range(background.ROOM))


class Owner:
    pass


def test_one_worker_an_owner():
    trainer = Owner()
    assert background.worker_of(trainer) is background.worker_of(trainer)
    background.finish(trainer)
    background.finish(trainer)
    with pytest.raises(KeyError):
        background._WORKERS[trainer]
