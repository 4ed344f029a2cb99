"""The keyspace beside etcd, on one disk: durable writes, reads, watch latency, and a store of 100,000 keys.

Ours is the whole keyspace (transactions, watches, leases) in a process that uses it, as the node does; etcd is a server
with defaults, asked over gRPC by a client that keeps its own cost low (``etcd_client.py``). While writes are counted, a
watcher follows them on both sides. Values have 1 KiB. A round gives each a fresh store, which is left idle for a moment
before writes are counted. The store of 100,000 keys was closed in order before its start is timed; then it is a process
with the keyspace and nothing else. Floors: the same bytes written over those of a file and synced (``fdatasync``), as
many values at a time as there are writers.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import peers
from disk import fresh_disk, remove
from etcd_client import Channel, fields, integer, keep_in_flight, text
from keyspace_process import IDLE_SECONDS
from processes import pss_megabytes
from report import report
from rounds import interleave

ROUNDS = 5
FLOOR = "overwrite and fdatasync"
VALUE = b"v" * 1024
PUTS = {1: 2000, 64: 20_000}
GETS, EVENTS, KEYS = 20_000, 500, 100_000
_PROCESS = str(Path(__file__).with_name("keyspace_process.py"))
_KV, _WATCH, _LEASE = "/etcdserverpb.KV/", "/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseGrant"
_BATCH = 10  # puts in a transaction: one frame of HTTP/2


@attrs.define
class Round:
    """What one contender showed in one round."""

    rates: dict[str, float] = attrs.field(factory=dict)
    milliseconds: dict[str, list[float]] = attrs.field(factory=dict)
    start_seconds: float = 0.0
    megabytes: float = 0.0


def main() -> None:
    if missing := peers.missing("etcd"):
        sys.exit(f"the measure keyspace needs {', '.join(missing)}")
    with fresh_disk() as disk:
        contenders: dict[str, Callable[[], Round]] = {
            "nanocloud": partial(_ours, disk / "ours"),
            "etcd": partial(_etcd, disk / "etcd"),
            FLOOR: partial(_floor, disk / "floor"),
        }
        samples = interleave(contenders, ROUNDS)
        stores = interleave(
            {"nanocloud": partial(_our_store, disk / "ours"), "etcd": partial(_etcd_store, disk / "etcd")}, 3
        )
    _report(samples)
    for name, unit, take in (
        ("keyspace.100k_start", "s", lambda one: one.start_seconds),
        ("keyspace.100k_memory", "MB", lambda one: one.megabytes),
    ):
        report(name, unit, ours=[*map(take, stores["nanocloud"])], peers={"etcd": [*map(take, stores["etcd"])]})


def _report(samples: dict[str, list[Round]]) -> None:
    ours, etcd, floor = samples["nanocloud"], samples["etcd"], samples[FLOOR]
    for name in ("put_1", "put_64", "transact_64", "get"):
        rates = [[one.rates[name] for one in rounds if name in one.rates] for rounds in (ours, etcd, floor)]
        more = {"floor": rates[2], "floor_name": FLOOR} if rates[2] else {}
        report(f"keyspace.{name}", "per s", ours=rates[0], peers={"etcd": rates[1]}, less_is_better=False, **more)
    for name in ("put_1", "put_64", "watch"):
        for part in (50, 99):
            times = [[_percentile(one.milliseconds[name], part) for one in rounds] for rounds in (ours, etcd)]
            report(f"keyspace.{name}_p{part}", "ms", ours=times[0], peers={"etcd": times[1]})


def _percentile(values: Sequence[float], part: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[part - 1]


# ---- ours ------------------------------------------------------------------------------------------------------------


def _ours(folder: Path) -> Round:
    done = Round()
    for name, *words in (
        *((f"put_{writers}", "put", writers, count) for writers, count in PUTS.items()),
        ("transact_64", "transact", 64, PUTS[64]),
        ("get", "get", GETS),
        ("watch", "watch", EVENTS),
    ):
        result = _process(folder, *words)
        if "rate" in result:
            done.rates[name] = result["rate"]
        done.milliseconds[name] = [seconds * 1000 for seconds in result.get("seconds", ())]
        remove(folder)
    return done


def _process(folder: Path, *words: object) -> dict[str, Any]:
    command = [sys.executable, _PROCESS, str(folder), *map(str, words)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _our_store(folder: Path) -> Round:
    _process(folder, "load", KEYS)
    began = time.time()
    command = [sys.executable, _PROCESS, str(folder), "start"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        seconds = json.loads(process.stdout.readline())["up"] - began
        megabytes = pss_megabytes([process.pid])
        process.stdin.close()
        process.wait()
    remove(folder)
    return Round(start_seconds=seconds, megabytes=megabytes)


# ---- etcd ------------------------------------------------------------------------------------------------------------


def _etcd(folder: Path) -> Round:
    done = Round()
    for writers, count in PUTS.items():
        _etcd_writes(folder, done, f"put_{writers}", writers, count, _put)
    _etcd_writes(folder, done, "transact_64", 64, PUTS[64], _transact)
    with peers.etcd(folder) as url:
        channel = Channel(url)
        for number in range(500):
            channel.call(f"{_KV}Put", text(1, _key(number)) + text(2, VALUE))
        get = [text(1, _key(number)) for number in range(500)]
        calls = iter(range(GETS))
        seconds, _ = keep_in_flight(
            channel, lambda *_: channel.start(f"{_KV}Range", get[next(calls) % 500]), GETS, writers=64
        )
        done.rates["get"] = GETS / seconds
        done.milliseconds["watch"] = [_event_milliseconds(channel, events) for events in [_watch(channel)] * EVENTS]
        channel.close()
    remove(folder)
    return done


def _etcd_writes(
    folder: Path, done: Round, name: str, writers: int, count: int, make: Callable[[Channel], Callable[..., int]]
) -> None:
    with peers.etcd(folder) as url:
        channel = Channel(url)
        _watch(channel)
        begin = make(channel)
        time.sleep(IDLE_SECONDS)
        seconds, took = keep_in_flight(channel, begin, count, writers=writers)
        channel.close()
    remove(folder)
    done.rates[name], done.milliseconds[name] = count / seconds, [each * 1000 for each in took]


def _put(channel: Channel) -> Callable[[int, bytes | None], int]:
    puts = [text(1, _key(number)) + text(2, VALUE) for number in range(500)]
    number = 0

    def begin(_: int, __: bytes | None) -> int:
        nonlocal number
        number += 1
        return channel.start(f"{_KV}Put", puts[number % 500])

    return begin


def _transact(channel: Channel) -> Callable[[int, bytes | None], int]:
    """Compare the mod revision with the one of the last answer, then put with a lease."""
    granted = fields(channel.call(_LEASE, integer(1, 3600)))[2]
    assert isinstance(granted, int)
    revisions: dict[int, int] = {}

    def begin(writer: int, answer: bytes | None) -> int:
        if answer is not None:
            header = fields(answer)
            assert header.get(2) == 1, "a compare did not hold"
            assert isinstance(header[1], bytes)
            revisions[writer] = int(fields(header[1])[3])
        name = _key(writer)
        compare = integer(2, 2) + text(3, name) + integer(6, revisions.get(writer, 0))
        write = text(2, text(1, name) + text(2, VALUE) + integer(3, granted))
        return channel.start(f"{_KV}Txn", text(1, compare) + text(2, write))

    return begin


def _watch(channel: Channel) -> int:
    """Follow every key of the measure; the call's number."""
    stream = channel.start(_WATCH, text(1, text(1, b"bench/") + text(2, b"bench0")), last=False)
    next(channel.receive())  # created
    return stream


def _event_milliseconds(channel: Channel, watch: int) -> float:
    began = time.perf_counter()
    put = channel.start(f"{_KV}Put", text(1, _key(0)) + text(2, VALUE))
    waited, arrived = {put, watch}, 0.0
    for number, _ in channel.receive():
        if number == watch:
            arrived = time.perf_counter()
        waited.discard(number)
        if not waited:
            return (arrived - began) * 1000
    raise AssertionError


def _etcd_store(folder: Path) -> Round:
    command, url = peers.etcd_command(folder)
    with peers.log_of(command) as process:
        channel = _first_answer(url, process)
        batches = iter(range(0, KEYS, _BATCH))

        def begin(_: int, __: bytes | None) -> int:
            first = next(batches)
            puts = (text(1, _key(number)) + text(2, VALUE) for number in range(first, first + _BATCH))
            return channel.start(f"{_KV}Txn", b"".join(text(2, text(2, put)) for put in puts))

        keep_in_flight(channel, begin, KEYS // _BATCH, writers=8)
        channel.close()
        process.popen.terminate()
        process.popen.wait()
    command, url = peers.etcd_command(folder)
    began = time.time()
    with peers.log_of(command) as process:
        channel = _first_answer(url, process)
        seconds = time.time() - began
        megabytes = pss_megabytes([process.popen.pid])
        channel.close()
    remove(folder)
    return Round(start_seconds=seconds, megabytes=megabytes)


def _first_answer(url: str, process: peers.Process) -> Channel:
    while process.popen.poll() is None:
        try:
            channel = Channel(url)
            assert fields(channel.call(f"{_KV}Range", text(1, _key(0))))
        except OSError:
            time.sleep(0.002)
        else:
            return channel
    raise peers.PeerError(f"etcd does not come up:\n{process.said()}")


def _key(number: int) -> bytes:
    return b"bench/things/default/thing-%06d" % number


# ---- the floor -------------------------------------------------------------------------------------------------------


def _floor(folder: Path) -> Round:
    folder.mkdir()
    rates = {"put_1": _overwrites(folder / "file", 1), "put_64": _overwrites(folder / "file", 64)}
    remove(folder)
    return Round(rates=rates)


def _overwrites(file: Path, together: int) -> float:
    """Values written a second, ``together`` of them to a sync, into space that the file has already."""
    data, syncs, size_bytes = VALUE * together, 0, 8 << 20
    with file.open("wb", buffering=0) as out:
        out.write(bytes(size_bytes))
        os.fsync(out.fileno())
        began = time.perf_counter()
        while (seconds := time.perf_counter() - began) < 1:
            out.seek(syncs * len(data) % size_bytes)
            out.write(data)
            os.fdatasync(out.fileno())
            syncs += 1
    return syncs * together / seconds
