"""Registries that must be refused, or given up, in bounded time: ``CASES``, over a fake wire under a virtual clock."""

from __future__ import annotations

import base64
import hashlib
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import attrs
import httpx2
import trio

from nanocloud.errors import ImageError
from nanocloud_dockyard.media import this_platform
from nanocloud_dockyard.reference import RegistryReference
from nanocloud_dockyard.registry import RegistrySource
from nanocloud_dockyard.resolver import find
from nanocloud_dockyard.retry import Backoff
from nanocloud_dockyard.settings import DockyardConfig
from nanocloud_dockyard.transport import Transport

MOST_SECONDS = 1200
MOST_REQUESTS = 80
PASSWORD = "pa55word"
HOST = "reg.example"
BLOB = bytes(range(256)) * 4096
_PLATFORM = this_platform()
CONFIGURATION = json.dumps(
    {
        "os": "linux",
        "architecture": _PLATFORM.architecture,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(b"tar").hexdigest()]},
    }
).encode()


def _descriptor(data: bytes, kind: str) -> dict[str, Any]:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor(CONFIGURATION, "config.v1+json"),
        "layers": [_descriptor(BLOB, "layer.v1.tar")],
    }
).encode()
WHOLE = {"manifest": MANIFEST, "config": CONFIGURATION, "layer": BLOB}

Answer = Callable[[httpx2.Request], Any]


@attrs.frozen(kw_only=True)
class HostileRegistry:
    part: str
    """What it answers wrongly: manifest, config or layer."""
    answer: Answer
    elsewhere: Answer | None = None
    """What other hosts answer."""
    credentials: bool = True
    says: str = ""


class Body(httpx2.AsyncByteStream):
    """Pieces with pauses, as many as there are; perhaps a broken connection at the end."""

    def __init__(self, piece: bytes, times: int, *, pause: float = 0, breaks: bool = False) -> None:
        self._piece, self._times, self._pause, self._breaks = piece, times, pause, breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self._times):
            await trio.sleep(self._pause)
            yield self._piece
        if self._breaks:
            raise httpx2.ReadError("connection reset")


class Registry:
    """Answers as the case says; remembers who was told the password."""

    def __init__(self, case: HostileRegistry) -> None:
        self._case = case
        self.requests = 0
        self.leaked: str = ""

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        told = request.headers.get("Authorization", "")
        if told and (request.url.host != HOST or request.url.scheme != "https"):
            self.leaked = str(request.url)
        if request.url.host != HOST:
            assert self._case.elsewhere is not None, request.url
            found = self._case.elsewhere(request)
        elif _part(request) == self._case.part or _part(request) == "other":
            found = self._case.answer(request)
        else:
            found = httpx2.Response(200, stream=Body(WHOLE[_part(request)], 1))
        return await found if inspect.isawaitable(found) else found

    async def pull(self, folder: Path) -> None:
        """Everything that a pull reads, without unpacking it."""
        auth = folder / "auth.json"
        packed = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
        auth.write_text(json.dumps({"auths": {HOST: {"auth": packed}}}))
        config = DockyardConfig(auth_file=auth if self._case.credentials else None)
        async with Transport(config, wire=httpx2.MockTransport(self)) as transport:
            reference = RegistryReference(host=HOST, repository="a/b", tag="v1")
            source = RegistrySource(transport, reference, (), Backoff())
            found = await find(source, None, _PLATFORM)
            (layer,) = found.manifest.layers
            async with source.layer(layer) as content:
                assert not isinstance(content, int)
                sha256 = hashlib.sha256()
                async for chunk in content:
                    sha256.update(chunk)
            if sha256.hexdigest() != layer.digest.removeprefix("sha256:"):  # as the unpacking child would say
                raise ImageError(f"layer {layer.digest}: has another sha256 than stated")


def _part(request: httpx2.Request) -> str:
    path = request.url.path
    if "/manifests/" in path:
        return "manifest"
    if "/blobs/" not in path:
        return "other"
    return "config" if path.endswith(_descriptor(CONFIGURATION, "")["digest"]) else "layer"


def _status(status: int, **headers: str) -> Answer:
    return lambda request: httpx2.Response(
        status, stream=Body(b"no", 1), headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def _body(*arguments: Any, status: int = 200, headers: dict[str, str] | None = None, **options: Any) -> Answer:
    return lambda request: httpx2.Response(status, stream=Body(*arguments, **options), headers=headers or {})


def _raising(error: Exception) -> Answer:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise error

    return answer


async def _never(request: httpx2.Request) -> httpx2.Response:
    await trio.sleep_forever()
    raise AssertionError


def _there_and_back(request: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(302, headers={"Location": f"https://{HOST}/elsewhere"})


def _challenge(text: str) -> Answer:
    return lambda request: httpx2.Response(401, headers={"WWW-Authenticate": text})


def _resuming(**changes: str) -> Answer:
    """Cuts the first answer, then sends another range than asked."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if "Range" not in request.headers:
            return httpx2.Response(200, stream=Body(BLOB[:300_000], 1, breaks=True))
        return httpx2.Response(
            206, stream=Body(BLOB[300_000:], 1), headers={k.replace("_", "-"): v for k, v in changes.items()}
        )

    return answer


STATUSES = (
    204,
    205,
    300,
    304,
    400,
    401,
    402,
    403,
    404,
    405,
    406,
    408,
    410,
    418,
    425,
    429,
    451,
    500,
    501,
    502,
    503,
    504,
    599,
)
BODIES: dict[str, Answer] = {
    "empty": _body(b"", 0),
    "one byte": _body(b"x", 1),
    "without end": _body(bytes(1 << 20), 1 << 40),
    "a byte a minute": _body(b"x", 1 << 40, pause=55),
    "a byte a second": _body(b"x", 1 << 40, pause=1),
    "stops": _body(b"x" * 100, 2, pause=1e9),
    "broken at once": _body(b"", 0, breaks=True),
    "broken always": _body(b"x" * 100, 1, breaks=True),
    "a web page": _body(b"<html>log in</html>", 1, headers={"Content-Type": "text/html"}),
    "length too small": _body(b"x" * 100, 1, headers={"Content-Length": "5"}),
    "length absurd": _body(b"x" * 100, 1, headers={"Content-Length": "9" * 30}),
    "compressed on the way": _body(b"\x1f\x8b\x08" + bytes(200), 1, headers={"Content-Encoding": "gzip"}),
    "a part unasked": _body(b"x" * 100, 1, status=206),
}
LOCATIONS: dict[str, str] = {
    "to itself": "",
    "to plain http": "http://cdn.example/x",
    "to a file": "file:///etc/shadow",
    "to no scheme known": "gopher://cdn.example/x",
    "to a script": "javascript:alert(1)",
    "to data": "data:text/plain,x",
    "to nothing": "https://",
    "to plain http of itself": f"http://{HOST}/v2/a/b/manifests/v1",
}
CHALLENGES: dict[str, str] = {
    "none": "",
    "basic for ever": 'Basic realm="x"',
    "digest": 'Digest realm="x", nonce="y"',
    "a token server without TLS": 'Bearer realm="http://auth.example/token",service="x"',
    "a token server that is a file": 'Bearer realm="file:///etc/shadow"',
    "no realm": 'Bearer service="x"',
    "an empty realm": 'Bearer realm=""',
    "noise": '"\\",,,===' + "\x7f" * 50,
    "a long one": "Bearer " + ",".join(f'a{n}="{n}"' for n in range(5000)),
    "quotes without end": 'Bearer realm="' + "\\" * 5000,
}


def _all() -> dict[str, HostileRegistry]:
    cases: dict[str, HostileRegistry] = {}
    for part, status in itertools.product(WHOLE, STATUSES):
        cases[f"status: {status} for the {part}"] = HostileRegistry(part=part, answer=_status(status), says="")
    for part, (name, answer) in itertools.product(WHOLE, BODIES.items()):
        cases[f"body of the {part}: {name}"] = HostileRegistry(part=part, answer=answer)
    for part, (name, location) in itertools.product(WHOLE, LOCATIONS.items()):
        cases[f"redirect of the {part}: {name}"] = HostileRegistry(
            part=part,
            answer=lambda request, to=location: httpx2.Response(302, headers={"Location": to or str(request.url)}),
        )
    for part in WHOLE:
        onward = _status(302, Location="https://evil.example/x")
        cases[f"redirect of the {part}: there and back"] = HostileRegistry(
            part=part, answer=onward, elsewhere=_there_and_back, says="redirects more than 5 times"
        )
        cases[f"redirect of the {part}: to who asks for credentials"] = HostileRegistry(
            part=part, answer=onward, elsewhere=_challenge('Basic realm="x"'), says="access is refused (401)"
        )
        cases[f"silence for the {part}: no answer"] = HostileRegistry(part=part, answer=_never, says="tried 5 times")
        for name, error in {
            "no connection": httpx2.ConnectError("refused"),
            "no protocol": httpx2.RemoteProtocolError("illegal status line"),
            "no time": httpx2.ReadTimeout("timed out"),
        }.items():
            cases[f"silence for the {part}: {name}"] = HostileRegistry(
                part=part, answer=_raising(error), says="tried 5 times"
            )
        for after in ("99999999999", "-1", "soon", "1e9", "٣"):
            cases[f"retry of the {part}: after {after}"] = HostileRegistry(
                part=part,
                answer=lambda request, after=after: httpx2.Response(
                    503, headers=[(b"Retry-After", after.encode())], stream=Body(b"", 0)
                ),
                says="tried 5 times",
            )
    for name, challenge in CHALLENGES.items():
        cases[f"challenge: {name}"] = HostileRegistry(part="manifest", answer=_challenge(challenge))
        cases[f"challenge without credentials: {name}"] = HostileRegistry(
            part="manifest", answer=_challenge(challenge), credentials=False
        )
    for name, headers in {
        "another start": {"Content_Range": "bytes 0-99/1048576"},
        "another size": {"Content_Range": "bytes 300000-1048575/99"},
        "no range": {},
        "noise": {"Content_Range": "bytes */*"},
        "absurd": {"Content_Range": f"bytes {'9' * 40}-{'9' * 41}/1"},
    }.items():
        cases[f"range of the layer: {name}"] = HostileRegistry(part="layer", answer=_resuming(**headers))
    wrong = {"Docker-Content-Digest": "sha256:" + "a" * 64}
    cases["digest of the manifest: another than said"] = HostileRegistry(
        part="manifest", answer=_body(MANIFEST, 1, headers=wrong), says="as the registry says"
    )
    return cases


CASES = _all()
