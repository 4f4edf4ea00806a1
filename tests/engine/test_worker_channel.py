"""The worker's end of the pipe to the run."""

from __future__ import annotations

import threading
from multiprocessing import Pipe

from lotteryfw.engine.messages import Alive, JobDone, JobFailed, Stop, Work
from lotteryfw.engine.worker import Channel


def test_messages_come_one_after_another_in_order() -> None:
    ours, theirs = Pipe()
    channel = Channel(theirs)
    groups = [Work({str(number): "name"}) for number in range(3)]
    for group in groups:
        ours.send(group)
    assert [channel.next() for _ in groups] == groups
    assert not channel.stopping


def test_a_stop_comes_before_work_that_was_not_begun() -> None:
    ours, theirs = Pipe()
    channel = Channel(theirs)
    ours.send(Work({"key": "name"}))
    ours.send(Stop())
    channel.receive(0)
    assert channel.stopping
    assert channel.next() is None


def test_a_worker_whose_run_is_gone_stops_and_may_still_send() -> None:
    ours, theirs = Pipe()
    channel = Channel(theirs)
    ours.close()
    channel.send(JobDone("key", None, stored=False))
    assert channel.next() is None
    assert channel.stopping


def test_the_heartbeat_never_sends_into_another_message() -> None:
    ours, theirs = Pipe()
    channel = Channel(theirs)
    channel.start_heartbeat(0.0001)
    sent = [JobFailed(str(number), "broke", "PluginError", "x" * 50_000) for number in range(20)]
    sender = threading.Thread(target=lambda: [channel.send(message) for message in sent])
    sender.start()
    received = []
    while len(received) < len(sent):
        message = ours.recv()
        if message != Alive():
            received.append(message)
    sender.join()
    assert received == sent
    theirs.close()  # which ends the thread
