"""Registries that are slow, broken or hostile: a fake wire under a virtual clock."""

from __future__ import annotations

import base64
import json

import httpx2
import pytest
import trio

from nanocloud.errors import ImageError, NotFoundError
from nanocloud_dockyard.media import OCI_MANIFEST, Descriptor
from nanocloud_dockyard.reference import RegistryReference
from nanocloud_dockyard.registry import Backoff, RegistrySource
from nanocloud_dockyard.settings import DockyardConfig, RegistrySettings
from nanocloud_dockyard.source import digest_of
from nanocloud_dockyard.transport import Transport

MANIFEST = json.dumps({"layers": [], "config": {}}).encode()
BLOB = bytes(range(256)) * 4096
DESCRIPTOR = Descriptor(media_type="x", digest=digest_of(BLOB), size_bytes=len(BLOB))
BLOB_PATH = f"/v2/a/b/blobs/{DESCRIPTOR.digest}"


class Cut(httpx2.AsyncByteStream):
    """A body that ends with a broken connection after ``size`` bytes."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self._data, self._size = data, size

    async def __aiter__(self):
        end = len(self._data) if self._size is None else self._size
        for at in range(0, end, 50_000):
            await trio.lowlevel.checkpoint()
            yield self._data[at : min(at + 50_000, end)]
        if self._size is not None:
            raise httpx2.ReadError("connection reset")


class Wire:
    """Answers requests from a list of handlers by host; remembers what was asked."""

    def __init__(self) -> None:
        self.hosts = {}
        self.asked = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        return self.hosts[request.url.host](request)

    def urls(self) -> list[str]:
        return [str(request.url) for request in self.asked]


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def source(wire, tmp_path):
    def make(host="reg.example", *, mirrors=(), backoff=None, **config):
        if mirrors:
            config["registries"] = {host: RegistrySettings(mirrors=mirrors)}
        transport = Transport(DockyardConfig(**config), wire=httpx2.MockTransport(wire))
        reference = RegistryReference(host=host, repository="a/b", tag="v1")
        return RegistrySource(transport, reference, mirrors, backoff or Backoff())

    return make


async def read(source):
    async with source.layer(DESCRIPTOR) as chunks:
        return b"".join([chunk async for chunk in chunks])


def ranged(request, data=BLOB):
    """An honest server of blobs."""
    if "Range" not in request.headers:
        return httpx2.Response(200, stream=Cut(data), headers={"Content-Length": str(len(data))})
    start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
    headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
    return httpx2.Response(206, stream=Cut(data[start:]), headers=headers)


# Documents


async def test_a_tag_is_resolved(wire, source):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(
        200, stream=Cut(MANIFEST), headers={"Content-Type": OCI_MANIFEST, "Docker-Content-Digest": digest_of(MANIFEST)}
    )
    document = await source().document(None)
    assert (document.data, document.media_type, document.digest) == (MANIFEST, OCI_MANIFEST, digest_of(MANIFEST))
    assert wire.urls() == ["https://reg.example/v2/a/b/manifests/v1"]
    assert OCI_MANIFEST in wire.asked[0].headers["Accept"]


async def test_docker_hub_is_asked_at_its_api(wire, source):
    wire.hosts["registry-1.docker.io"] = lambda request: httpx2.Response(200, stream=Cut(MANIFEST))
    await source("docker.io").document(None)


async def test_http_is_spoken_only_where_it_is_configured(wire, source):
    wire.hosts["127.0.0.1"] = lambda request: httpx2.Response(200, stream=Cut(MANIFEST))
    await source("127.0.0.1:5000").document(None)
    await source("127.0.0.1:5000", plain_http=("127.0.0.1:5000",)).document(None)
    await source("127.0.0.1:5001", plain_http=("127.0.0.1:5000",)).document(None)
    assert [url.partition(":")[0] for url in wire.urls()] == ["https", "http", "https"]


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ({"stream": Cut(b"other")}, "has digest"),
        ({"stream": Cut(bytes(5 << 20))}, "is over 4194304 bytes"),
        ({"status_code": 418}, "answered 418"),
        ({"status_code": 403}, "access is refused"),
        ({"status_code": 204}, "answered 204"),
    ],
)
async def test_a_wrong_answer_is_an_error_at_once(wire, source, response, says):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(**{"status_code": 200, **response})
    with pytest.raises(ImageError, match=says):
        await source().document(digest_of(MANIFEST))
    assert len(wire.asked) == 1


async def test_a_digest_that_the_registry_itself_gets_wrong_is_an_error(wire, source):
    headers = {"Docker-Content-Digest": digest_of(b"")}
    wire.hosts["reg.example"] = lambda request: httpx2.Response(200, stream=Cut(MANIFEST), headers=headers)
    with pytest.raises(ImageError, match="as the registry says"):
        await source().document(None)


async def test_what_does_not_exist_is_not_found(wire, source):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(404)
    with pytest.raises(NotFoundError, match="manifests/v1 does not exist"):
        await source().document(None)


# Again


async def test_passing_faults_are_tried_again_with_growing_pauses(wire, source, autojump_clock):
    answers = iter([500, 503, 429, None, 200])

    def answer(request):
        status = next(answers)
        if status is None:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(status, stream=Cut(MANIFEST))

    wire.hosts["reg.example"] = answer
    began = trio.current_time()
    assert (await source().document(None)).data == MANIFEST
    assert 3.75 <= trio.current_time() - began <= 7.5  # half to all of 0.5 + 1 + 2 + 4


async def test_a_registry_that_stays_broken_is_given_up(wire, source, autojump_clock):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(502)
    with pytest.raises(ImageError, match="answered 502; tried 5 times"):
        await source().document(None)
    assert len(wire.asked) == 5


async def test_the_server_may_say_when_to_come_again(wire, source, autojump_clock):
    answers = iter([("429", "30"), ("503", "99999"), ("503", "soon"), ("200", "")])

    def answer(request):
        status, after = next(answers)
        return httpx2.Response(int(status), stream=Cut(MANIFEST), headers={"Retry-After": after})

    wire.hosts["reg.example"] = answer
    began = trio.current_time()
    await source().document(None)
    assert 91 <= trio.current_time() - began <= 92  # 30, at most 60, and 2 at most


# Blobs


async def test_a_cut_blob_goes_on_where_it_stopped(wire, source, autojump_clock):
    def answer(request):
        response = ranged(request)
        if len(wire.asked) < 4:
            response.stream = Cut(response.stream._data, 300_000)
        return response

    wire.hosts["reg.example"] = answer
    assert await read(source()) == BLOB
    assert [request.headers.get("Range") for request in wire.asked] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
        "bytes=900000-",
    ]


async def test_a_body_that_just_ends_is_a_cut_too(wire, source, autojump_clock):
    def answer(request):
        if "Range" in request.headers:
            return ranged(request)
        return httpx2.Response(200, stream=Cut(BLOB[:1000]))

    wire.hosts["reg.example"] = answer
    assert await read(source()) == BLOB


async def test_a_server_that_ignores_ranges_is_read_from_the_start(wire, source, autojump_clock):
    sizes = iter([300_001, None])
    wire.hosts["reg.example"] = lambda request: httpx2.Response(200, stream=Cut(BLOB, next(sizes)))
    assert await read(source()) == BLOB


async def test_a_blob_that_is_cut_again_and_again_without_progress_is_given_up(wire, source, autojump_clock):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(200, stream=Cut(BLOB, 10))
    with pytest.raises(ImageError, match="tried 5 times"):
        await read(source())


async def test_many_cuts_with_progress_are_survived(wire, source, autojump_clock):
    blob = bytes(5 << 20)

    def answer(request):
        response = ranged(request, blob)
        response.stream = Cut(response.stream._data, min(300_000, len(response.stream._data)))
        return response

    wire.hosts["reg.example"] = answer
    descriptor = Descriptor(media_type="x", digest=digest_of(blob), size_bytes=len(blob))
    async with source().layer(descriptor) as chunks:
        assert b"".join([chunk async for chunk in chunks]) == blob
    assert len(wire.asked) > 15


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ({"stream": Cut(BLOB + b"x")}, "has more bytes, not 1048576"),
        ({"stream": Cut(b""), "headers": {"Content-Length": "5"}}, "has 5 bytes, not 1048576"),
        ({"status_code": 206, "stream": Cut(b""), "headers": {}}, "another range than asked"),
        ({"status_code": 206, "headers": {"Content-Range": "bytes 5-9/10"}}, "another range than asked"),
        ({"status_code": 206, "headers": {"Content-Range": "bytes 0-9/10"}}, "has 10 bytes"),
    ],
)
async def test_a_blob_of_another_size_is_an_error(wire, source, response, says):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(**{"status_code": 200, **response})
    with pytest.raises(ImageError, match=says):
        await read(source())


# Mirrors


async def test_a_mirror_is_asked_first(wire, source):
    wire.hosts["mirror.example"] = lambda request: httpx2.Response(200, stream=Cut(MANIFEST))
    await source(mirrors=("mirror.example/hub",)).document(None)
    assert wire.urls() == ["https://mirror.example/v2/hub/a/b/manifests/v1"]


@pytest.mark.parametrize("fault", ["unreachable", "missing", "wrong", "denied", "broken"])
async def test_a_mirror_that_fails_costs_one_try(wire, source, fault):
    def answer(request):
        if fault == "unreachable":
            raise httpx2.ConnectError("refused")
        status = {"missing": 404, "denied": 403, "broken": 500}.get(fault, 200)
        return httpx2.Response(status, stream=Cut(b"wrong"))

    wire.hosts["mirror.example"] = answer
    wire.hosts["reg.example"] = lambda request: httpx2.Response(200, stream=Cut(MANIFEST))
    document = await source(mirrors=("mirror.example",)).document(digest_of(MANIFEST))
    assert document.data == MANIFEST
    assert len(wire.asked) == 2


async def test_a_blob_cut_by_the_mirror_goes_on_from_the_registry(wire, source):
    wire.hosts["mirror.example"] = lambda request: httpx2.Response(200, stream=Cut(BLOB, 400_000))
    wire.hosts["reg.example"] = ranged
    assert await read(source(mirrors=("mirror.example",))) == BLOB
    assert [request.headers.get("Range") for request in wire.asked] == [None, "bytes=400000-"]


async def test_a_mirror_that_sent_wrong_bytes_is_left_out(wire, source):
    wire.hosts["reg.example"] = ranged
    asked = source(mirrors=("mirror.example",))
    assert asked.distrust()
    assert not asked.distrust()
    assert await read(asked) == BLOB


# Redirects and credentials


def token_wall(realm="https://auth.example/token", token="t0k3n"):
    """A registry that wants a bearer token."""

    def answer(request):
        if request.headers.get("Authorization") == f"Bearer {token}":
            return ranged(request) if "/blobs/" in request.url.path else httpx2.Response(200, stream=Cut(MANIFEST))
        challenge = f'Bearer realm="{realm}",service="reg",scope="repository:other:push"'
        return httpx2.Response(401, headers={"WWW-Authenticate": challenge})

    return answer


def tokens(request):
    return httpx2.Response(200, stream=Cut(json.dumps({"token": "t0k3n", "expires_in": 300}).encode()))


@pytest.fixture
def auth_file(tmp_path):
    path = tmp_path / "auth.json"
    path.write_text(json.dumps({"auths": {"reg.example": {"auth": base64.b64encode(b"user:secret").decode()}}}))
    return path


async def test_a_token_is_fetched_once_for_what_we_do(wire, source):
    wire.hosts |= {"reg.example": token_wall(), "auth.example": tokens}
    asked = source()
    await asked.document(None)
    assert await read(asked) == BLOB
    assert [request.url.host for request in wire.asked] == ["reg.example", "auth.example", "reg.example", "reg.example"]
    query = wire.asked[1].url.params
    assert (query["scope"], query["service"]) == ("repository:a/b:pull", "reg")  # not what the challenge asks for
    assert "Authorization" not in wire.asked[1].headers


async def test_credentials_buy_the_token(wire, source, auth_file):
    wire.hosts |= {"reg.example": token_wall(), "auth.example": tokens}
    await source(auth_file=auth_file).document(None)
    assert wire.asked[1].headers["Authorization"] == "Basic " + base64.b64encode(b"user:secret").decode()
    assert "secret" not in "".join(wire.urls())


async def test_basic_credentials_are_sent_when_asked_for(wire, source, auth_file):
    def answer(request):
        if "Authorization" in request.headers:
            return httpx2.Response(200, stream=Cut(MANIFEST))
        return httpx2.Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'})

    wire.hosts["reg.example"] = answer
    await source(auth_file=auth_file).document(None)
    assert ["Authorization" in request.headers for request in wire.asked] == [False, True]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda request: httpx2.Response(401), "refuses the credentials"),
        (lambda request: httpx2.Response(200, stream=Cut(b"<html>")), "no JSON"),
        (lambda request: httpx2.Response(200, stream=Cut(b"{}")), "without a token"),
        (lambda request: httpx2.Response(200, stream=Cut(b'{"token": "a\\r\\nX: y"}')), "without a token"),
        (lambda request: httpx2.Response(200, stream=Cut(bytes(70_000))), "over 65536 bytes"),
    ],
)
async def test_a_token_server_that_refuses_is_an_error(wire, source, auth_file, answer, says):
    wire.hosts |= {"reg.example": token_wall(), "auth.example": answer}
    with pytest.raises(ImageError, match=says) as caught:
        await source(auth_file=auth_file).document(None)
    assert "secret" not in str(caught.value)


async def test_a_token_server_without_tls_gets_nothing(wire, source, auth_file):
    wire.hosts["reg.example"] = token_wall(realm="http://auth.example/token")
    with pytest.raises(ImageError, match="token server that is not https"):
        await source(auth_file=auth_file).document(None)
    assert len(wire.asked) == 1


async def test_an_old_token_is_replaced(wire, source, autojump_clock):
    wire.hosts |= {"reg.example": token_wall(), "auth.example": tokens}
    asked = source()
    await asked.document(None)
    wire.hosts["reg.example"] = token_wall(token="new")
    wire.hosts["auth.example"] = lambda request: httpx2.Response(200, stream=Cut(b'{"access_token": "new"}'))
    await asked.document(None)


async def test_a_registry_that_asks_again_and_again_ends(wire, source):
    wire.hosts |= {"reg.example": token_wall(token="other"), "auth.example": tokens}
    with pytest.raises(ImageError, match=r"access is refused \(401\)"):
        await source().document(None)


async def test_a_redirect_to_another_host_carries_no_credentials(wire, source, auth_file):
    def registry(request):
        if "Authorization" not in request.headers:
            return token_wall()(request)
        return httpx2.Response(307, headers={"Location": "https://cdn.example/blob?signed=1"})

    wire.hosts |= {"reg.example": registry, "auth.example": tokens, "cdn.example": ranged}
    assert await read(source(auth_file=auth_file)) == BLOB
    assert str(wire.asked[-1].url) == "https://cdn.example/blob?signed=1"
    assert "Authorization" not in wire.asked[-1].headers


@pytest.mark.parametrize("location", ["https://reg.example:444/x", "https://evil.example/x", "//evil.example/x"])
async def test_another_port_is_another_host(wire, source, location):
    wire.hosts |= {"auth.example": tokens}

    def registry(request):
        if request.url.path == "/x":
            return ranged(request)
        if "Authorization" not in request.headers:
            return token_wall()(request)
        return httpx2.Response(302, headers={"Location": location})

    wire.hosts |= {"reg.example": registry, "evil.example": registry}
    assert await read(source()) == BLOB
    assert "Authorization" not in wire.asked[-1].headers


async def test_credentials_do_not_come_back_after_a_detour(wire, source):
    def registry(request):
        if request.url.path == "/back":
            return ranged(request)
        if "Authorization" not in request.headers:
            return token_wall()(request)
        return httpx2.Response(302, headers={"Location": "https://evil.example/x"})

    wire.hosts |= {
        "reg.example": registry,
        "auth.example": tokens,
        "evil.example": lambda request: httpx2.Response(302, headers={"Location": "https://reg.example/back"}),
    }
    assert await read(source()) == BLOB
    assert "Authorization" not in wire.asked[-1].headers


@pytest.mark.parametrize("location", ["http://cdn.example/x", "file:///etc/shadow", "ftp://x/y"])
async def test_a_redirect_never_leaves_tls(wire, source, location):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(302, headers={"Location": location})
    with pytest.raises(ImageError, match=r"redirects to|names an address"):
        await read(source())
    assert len(wire.asked) == 1


async def test_redirects_end(wire, source):
    wire.hosts["reg.example"] = lambda request: httpx2.Response(302, headers={"Location": request.url.path + "x"})
    with pytest.raises(ImageError, match="redirects more than 5 times"):
        await read(source())
    assert len(wire.asked) == 6


async def test_a_range_survives_a_redirect(wire, source, autojump_clock):
    def cdn(request):
        response = ranged(request)
        if "Range" not in request.headers:
            response.stream = Cut(BLOB, 300_000)
        return response

    wire.hosts |= {
        "reg.example": lambda request: httpx2.Response(302, headers={"Location": "https://cdn.example/x"}),
        "cdn.example": cdn,
    }
    assert await read(source()) == BLOB
    assert [request.headers.get("Range") for request in wire.asked] == [None, None, "bytes=300000-", "bytes=300000-"]
