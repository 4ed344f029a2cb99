"""Containers that are started, stopped and removed: one at a time, and fifty at once.

The image is present everywhere. *Start* is from the request until the image's program runs and has reached its gateway
through its network (see ``doorbell.py``); for ours the request is the POST of a Bundle, for the peers the command
(podman's is started in other namespaces, which takes a millisecond), by hand a line to a process that is up. *Stop* is
from the request until the container has been stopped and has given back its network and mounts: for ours a PATCH, until
the Pod object is gone; the peers' ``stop``, until the command is back. *End* is from the same request until the process
has ended; it ends at once when it gets TERM. *Teardown* is from the request to remove a running container until nothing
of it is left: for ours the DELETE of the Bundle, until it is gone; ``rm --force``, of which only docker's kills without
asking. By hand stop and teardown are the same. *Fifty at once* are asked for by ten clients side by side.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import attrs
from by_hand import CLIENTS
from contenders import Client, Contender, Floor, Ours, Shell, Theirs, contenders
from disk import fresh_disk
from doorbell import wait_for_end
from report import report
from rounds import interleave, seconds_of

ROUNDS, ROUNDS_OF_MANY, MANY = 15, 3, 50
_numbers = count(1)


@attrs.frozen
class Life:
    """Of one container, in milliseconds."""

    start: float
    end: float
    stop: float
    teardown: float


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure pods needs root: it makes containers")
    with fresh_disk() as disk, contenders(disk) as (ours, theirs, floor, shell):
        everyone = (ours, *theirs, floor, shell)
        lives = interleave({one.name: lambda one=one: _live(one) for one in everyone}, ROUNDS, warm_up=2)
        clients = [Client(ours.node) for _ in range(CLIENTS)]
        ways: dict[str, Callable[[], tuple[float, float]]] = {
            ours.name: lambda: _many(ours, clients),
            **{peer.name: lambda peer=peer: _many(peer, [peer] * CLIENTS) for peer in theirs},
            floor.name: lambda: _many_by_hand(floor),
        }
        many = interleave(ways, ROUNDS_OF_MANY)
    for what in ("start", "end", "stop", "teardown"):
        samples = {name: [getattr(life, what) for life in values] for name, values in lives.items()}
        _report(f"pod.{what}", "ms", samples, ours, theirs, floor, shell)
    for position, what in enumerate((f"start-{MANY}", f"teardown-{MANY}")):
        samples = {name: [both[position] for both in values] for name, values in many.items()}
        _report(f"pod.{what}", "s", samples, ours, theirs, floor)


def _report(
    name: str,
    unit: str,
    samples: dict[str, list[float]],
    ours: Ours,
    theirs: list[Theirs],
    floor: Floor,
    *others: Shell,
) -> None:
    report(
        name,
        unit,
        ours=samples[ours.name],
        peers={peer.name: samples[peer.name] for peer in theirs},
        floor=samples[floor.name],
        floor_name=floor.name,
        others={other.name: samples[other.name] for other in others},
    )


def _live(one: Contender) -> Life:
    first, second = next(_numbers), next(_numbers)
    asked = time.perf_counter()
    one.begin(first)
    connection = one.bell.answer()
    started = time.perf_counter() - asked
    _settle(one, first)
    asked = time.perf_counter()
    one.stop(first)
    wait_for_end(connection)
    ended = time.perf_counter() - asked
    one.stopped(first)
    stopped = time.perf_counter() - asked
    if not isinstance(one, Floor):
        one.remove(first)
        one.removed(first)
    one.begin(second)
    connection = one.bell.answer()
    _settle(one, second)
    asked = time.perf_counter()
    one.remove(second)
    one.removed(second)
    teardown = time.perf_counter() - asked
    connection.close()
    os.sync()
    return Life(*(seconds * 1000 for seconds in (started, ended, stopped, teardown)))


def _settle(one: Contender, number: int) -> None:
    """What a start leaves to be done in the background is not what a stop costs."""
    one.begun(number)
    time.sleep(0.2)


def _many(one: Ours | Theirs, clients: Sequence[Client | Theirs]) -> tuple[float, float]:
    """Seconds until all run, and until all are gone; each client has its share, one after the other."""
    numbers = [next(_numbers) for _ in range(MANY)]
    shares = [(client, numbers[place::CLIENTS]) for place, client in enumerate(clients)]

    def begin(share: tuple[Client | Theirs, list[int]]) -> None:
        client, mine = share
        for number in mine:
            client.begin(number)
            if isinstance(client, Theirs):
                client.begun(number)

    def remove(share: tuple[Client | Theirs, list[int]]) -> None:
        client, mine = share
        for number in mine:
            client.remove(number)
            if isinstance(client, Theirs):
                client.removed(number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        asked = time.perf_counter()
        begun = [pool.submit(begin, share) for share in shares]
        connections = [one.bell.answer() for _ in numbers]
        started = time.perf_counter() - asked
        for waiting in begun:
            waiting.result()
        if isinstance(one, Ours):
            for number in numbers:
                one.begun(number)
        time.sleep(0.5)
        asked = time.perf_counter()
        list(pool.map(remove, shares))
        if isinstance(one, Ours):
            for number in numbers:
                one.removed(number)
        gone = time.perf_counter() - asked
    for connection in connections:
        connection.close()  # the end of a network may have been faster than the word of a process's end
    os.sync()
    return started, gone


def _many_by_hand(floor: Floor) -> tuple[float, float]:
    first = next(_numbers)
    last = first + MANY - 1
    for _ in range(MANY - 1):
        next(_numbers)
    began = time.perf_counter()
    floor.hand.say("start-many", first, last)
    connections = [floor.bell.answer() for _ in range(MANY)]
    started = time.perf_counter()
    floor.hand.hear()
    seconds = seconds_of(lambda: floor.hand.ask("remove-many", first, last))
    for connection in connections:
        connection.close()  # the end of a network may have been faster than the word of a process's end
    os.sync()
    return started - began, seconds


if __name__ == "__main__":
    main()
