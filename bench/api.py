"""The API of a node beside the JSON gateway of etcd: both over TLS, connections kept.

GET of one small object, LIST of 500 of 700 bytes, PATCH of one (each connection its own), by 16 connections (LIST: 4);
and one change told to 1,000 watches. The gateway's GET and LIST are ranges, its PATCH a transaction that compares and
puts: it has no objects, checks nothing and merges nothing. No Kubernetes API server is packaged by Debian.

The server has one core of the machine, what asks has another. What a request costs the server on a processor is told
besides, for it does not move with what else the machine does.
"""

from __future__ import annotations

import json
import os
import resource
import ssl
import sys
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import peers
import trustme
from disk import fresh_disk
from https_load import Audience, Place, load, read_answer
from node import making_node
from processes import cost_of, descendants
from report import report
from rounds import interleave

from nanocloud.client.endpoint import find_endpoint

ROUNDS, SECONDS = 5, 1.5
WATCHERS = 1000
ITEMS = 500
PEER = "etcd's gateway"
_VALUE = "v" * 512
_CORES = sorted(os.sched_getaffinity(0))


@attrs.frozen
class Server:
    """One contender; how each of the requests is written to it."""

    place: Place
    pid: int
    get: bytes
    list: bytes
    patch: Callable[[int, str], bytes]
    """Of the object of a connection, to a value."""
    watch: Callable[[], bytes]
    """From now on."""
    watch_begins: bytes

    def pids(self) -> list[int]:
        return descendants(self.pid)


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure api needs root: the server does")
    if missing := peers.missing("etcd"):
        sys.exit(f"the measure api needs {', '.join(missing)}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with fresh_disk() as disk, _node(disk / "n") as node, _gateway(disk / "etcd") as gateway:
        servers = {"nanocloud": node, PEER: gateway}
        for server in servers.values():
            _pin(server.pids(), _CORES[0])
        os.sched_setaffinity(0, {_CORES[-1]})
        for name, connections in (("get", 16), ("list", 4), ("patch", 16)):
            ways = {who: partial(_rate, server, name, connections) for who, server in servers.items()}
            _report(name, interleave(ways, ROUNDS, warm_up=1))
        with ExitStack() as stack:
            ways = {who: stack.enter_context(_audience(server)) for who, server in servers.items()}
            _report_fan_out(interleave(ways, ROUNDS, warm_up=1))


def _report(name: str, samples: dict[str, list[tuple[float, float]]]) -> None:
    for unit, position in (("per s", 0), ("us of processor", 1)):
        numbers = {who: [sample[position] for sample in found] for who, found in samples.items()}
        ours = numbers.pop("nanocloud")
        called = f"api.{name}" if position == 0 else f"api.{name}_cost"
        report(called, unit, ours=ours, peers=numbers, less_is_better=position == 1)


def _report_fan_out(samples: dict[str, list[tuple[float, float]]]) -> None:
    for called, unit, position in (("api.watch-1000", "ms", 0), ("api.watch-1000_cost", "us of processor", 1)):
        numbers = {who: [sample[position] for sample in found] for who, found in samples.items()}
        report(called, unit, ours=numbers.pop("nanocloud"), peers=numbers)


def _rate(server: Server, name: str, connections: int) -> tuple[float, float]:
    """Requests a second, and microseconds of processor of the server for one."""
    numbers = count(1)

    def patch(connection: int) -> bytes:
        return server.patch(connection, f"{next(numbers)}-{_VALUE}")

    request = {"get": lambda _: server.get, "list": lambda _: server.list, "patch": patch}[name]
    before = cost_of(server.pids())
    answered = load(server.place, request, SECONDS, connections=connections)
    cost = cost_of(server.pids()) - before
    return answered / SECONDS, cost.cpu_seconds / answered * 1e6


@contextmanager
def _audience(server: Server) -> Iterator[Callable[[], tuple[float, float]]]:
    """Gives a call that makes a change: milliseconds until the last of 1,000 knows it, and microseconds of processor
    for each of them."""
    audience = Audience(server.place, server.watch(), WATCHERS, first=server.watch_begins)
    writer = server.place.connect()
    numbers = count(1)

    def change() -> tuple[float, float]:
        mark = f"change-{next(numbers):04}-"  # 12 bytes: in base64 they end where a group ends
        wanted = b64encode(mark.encode()) if server.watch_begins else mark.encode()
        before = cost_of(server.pids())
        seconds = audience.until_all_saw(wanted, lambda: writer.sendall(server.patch(0, mark)))
        cost = (cost_of(server.pids()) - before).cpu_seconds / WATCHERS * 1e6
        read_answer(writer)
        return seconds * 1000, cost

    yield change
    audience.close()
    writer.close()


def _pin(pids: list[int], core: int) -> None:
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {core})


# ---- ours ------------------------------------------------------------------------------------------------------------


@contextmanager
def _node(folder: Path) -> Iterator[Server]:
    with making_node(folder) as node, node.entered():
        endpoint = find_endpoint({k: v for k, v in node.environment.items() if k != "KUBECONFIG"})
        where = urlsplit(endpoint.server)
        assert where.port
        assert node.server
        place = Place(where.hostname or "", where.port, endpoint.ssl_context())
        writer = place.connect()
        for namespace, names in (("many", ITEMS), ("few", 16)):
            _send(writer, place.request("POST", "/api/v1/namespaces", _json({"metadata": {"name": namespace}})))
            for number in range(names):
                body = {"metadata": {"name": f"thing-{number}"}, "data": {"value": _VALUE}}
                _send(writer, place.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", _json(body)))
        writer.close()
        base = "/api/v1/namespaces/few/configmaps"
        yield Server(
            place=place,
            pid=node.server.process.pid,
            get=place.request("GET", f"{base}/thing-0"),
            list=place.request("GET", "/api/v1/namespaces/many/configmaps"),
            patch=lambda number, value: place.request(
                "PATCH", f"{base}/thing-{number}", _json({"data": {"value": value}}), "application/merge-patch+json"
            ),
            watch=partial(_watch, place, base),
            watch_begins=b"",
        )


def _watch(place: Place, path: str) -> bytes:
    one = place.connect()
    one.sendall(place.request("GET", f"{path}?limit=1"))
    revision = json.loads(read_answer(one))["metadata"]["resourceVersion"]
    one.close()
    return place.request("GET", f"{path}?watch=true&resourceVersion={revision}")


def _send(one: ssl.SSLSocket, request: bytes) -> None:
    one.sendall(request)
    read_answer(one)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


# ---- etcd ------------------------------------------------------------------------------------------------------------


@contextmanager
def _gateway(folder: Path) -> Iterator[Server]:
    folder.mkdir()
    ca = trustme.CA()
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    ca.configure_trust(context)
    served = ca.issue_cert("127.0.0.1")
    served.private_key_pem.write_to_path(str(folder / "key.pem"))
    served.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
    words, plain = peers.etcd_command(folder / "data")
    url = plain.replace("http:", "https:")
    words = [word.replace(plain, url) for word in words]
    words += [f"--cert-file={folder}/cert.pem", f"--key-file={folder}/key.pem"]
    where = urlsplit(url)
    assert where.port
    place = Place("127.0.0.1", where.port, context)
    with peers.log_of(words) as process:
        peers.wait_until(partial(_is_up, place), "etcd", process)
        yield _filled(place, process.popen.pid)


def _is_up(place: Place) -> bool:
    try:
        place.connect().close()
    except OSError:
        return False
    return True


def _filled(place: Place, pid: int) -> Server:
    value = _json({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"uid": "u" * 100}, "data": {"value": _VALUE}})
    writer = place.connect()
    for prefix, names in (("many", ITEMS), ("few", 16)):
        for number in range(names):
            _send(writer, _call(place, "kv/put", key=_b64(f"{prefix}/{number}"), value=_b64(value)))
    writer.close()
    few = {"key": _b64("few/"), "range_end": _b64("few0")}
    return Server(
        place=place,
        pid=pid,
        get=_call(place, "kv/range", key=_b64("few/0")),
        list=_call(place, "kv/range", key=_b64("many/"), range_end=_b64("many0")),
        patch=lambda number, text: _call(
            place,
            "kv/txn",
            compare=[{"key": _b64(f"few/{number}"), "target": "CREATE", "result": "GREATER", "create_revision": "0"}],
            success=[{"request_put": {"key": _b64(f"few/{number}"), "value": _b64(text)}}],
        ),
        watch=lambda: _call(place, "watch", create_request=few),
        watch_begins=b'"created":true',
    )


def _call(place: Place, what: str, **fields: object) -> bytes:
    return place.request("POST", f"/v3/{what}", _json(fields))


def _b64(text: str | bytes) -> str:
    return b64encode(text.encode() if isinstance(text, str) else text).decode()
