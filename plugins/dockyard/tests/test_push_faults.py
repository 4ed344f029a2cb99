"""Uploads to registries that are slow, broken or hostile: a fake wire under a virtual clock."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio

from nanocloud.errors import ImageError
from nanocloud_dockyard.media import OCI_MANIFEST, Descriptor
from nanocloud_dockyard.reference import RegistryReference
from nanocloud_dockyard.retry import Backoff
from nanocloud_dockyard.settings import DockyardConfig
from nanocloud_dockyard.source import Document, digest_of
from nanocloud_dockyard.transport import Transport
from nanocloud_dockyard.upload import RegistryTarget

BLOB = bytes(range(256)) * 4096
DESCRIPTOR = Descriptor(media_type="x", digest=digest_of(BLOB), size_bytes=len(BLOB))
UPLOAD = "/v2/a/b/blobs/uploads/1"


class Body(httpx2.AsyncByteStream):
    def __init__(self, data):
        self._data = data

    async def __aiter__(self):
        yield self._data


class Registry:
    """Keeps uploads as the specification says; a test bends what it answers."""

    def __init__(self):
        self.asked, self.kept, self.blobs = [], b"", set()
        self.location = UPLOAD
        self.cuts = []
        """After how many bytes the next PATCHes break."""
        self.forgets = False

    async def __call__(self, request):
        self.asked.append(request)
        answer = getattr(self, request.method.lower())
        return await answer(request)

    def methods(self):
        return [request.method for request in self.asked]

    async def head(self, request):
        return httpx2.Response(200 if request.url.path.rpartition("/")[2] in self.blobs else 404)

    async def post(self, request):
        self.kept = b""
        return httpx2.Response(202, headers={"Location": self.location, "Range": "0-0"})

    async def get(self, request):
        if self.forgets:
            return httpx2.Response(404)
        return httpx2.Response(204, headers={"Location": self.location, "Range": f"0-{len(self.kept) - 1}"})

    async def patch(self, request):
        body = await request.aread()
        start = int(request.headers["Content-Range"].partition("-")[0])
        if start != len(self.kept):
            return httpx2.Response(416)
        if self.cuts:
            self.kept += body[: self.cuts.pop(0)]
            raise httpx2.WriteError("broken pipe")
        self.kept += body
        return httpx2.Response(202, headers={"Location": self.location, "Range": f"0-{len(self.kept) - 1}"})

    async def put(self, request):
        if digest_of(self.kept) != request.url.params.get("digest"):
            return httpx2.Response(400)
        self.blobs.add(request.url.params["digest"])
        return httpx2.Response(201)


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def target(registry):
    def make(**config):
        transport = Transport(DockyardConfig(**config), wire=httpx2.MockTransport(registry))
        return RegistryTarget(transport, RegistryReference(host="reg.example", repository="a/b", tag="v1"), Backoff())

    return make


@asynccontextmanager
async def reading(at):
    async def chunks():
        for start in range(at, len(BLOB), 100_000):
            await trio.lowlevel.checkpoint()
            yield BLOB[start : start + 100_000]

    generator = chunks()
    yield generator
    await generator.aclose()


async def put(target):
    told = []
    await target.put_blob(DESCRIPTOR, reading, told.append)
    return told


async def test_a_blob_is_uploaded_whole(registry, target):
    assert not await target().has_blob(DESCRIPTOR)
    told = await put(target())
    assert registry.kept == BLOB
    assert registry.methods() == ["HEAD", "POST", "PATCH", "PUT"]
    assert told == sorted(told)
    assert told[-1] == len(BLOB)
    assert await target().has_blob(DESCRIPTOR)


async def test_an_upload_that_is_cut_goes_on_where_it_stopped(registry, target, autojump_clock):
    registry.cuts = [300_000, 400_000]
    await put(target())
    assert registry.kept == BLOB
    assert registry.methods() == ["POST", "PATCH", "GET", "PATCH", "GET", "PATCH", "PUT"]
    starts = [r.headers["Content-Range"].partition("-")[0] for r in registry.asked if r.method == "PATCH"]
    assert starts == ["0", "300000", "700000"]


async def test_an_upload_that_the_registry_forgot_begins_anew(registry, target, autojump_clock):
    registry.cuts, registry.forgets = [300_000], True
    await put(target())
    assert registry.methods() == ["POST", "PATCH", "GET", "POST", "PATCH", "PUT"]
    assert registry.kept == BLOB


async def test_cuts_with_progress_are_survived_and_others_given_up(registry, target, autojump_clock):
    registry.cuts = [300_000, 10, 10, 10, 300_000, 10, 10, 10]
    await put(target())
    registry.cuts = [10] * 9
    with pytest.raises(ImageError, match="tried 5 times"):
        await put(target())


@pytest.mark.parametrize("claim", ["0-99999999", "0-1048576"])
async def test_a_registry_that_claims_more_than_there_is_is_refused(registry, target, autojump_clock, claim):
    async def get(request):
        return httpx2.Response(204, headers={"Location": UPLOAD, "Range": claim})

    registry.cuts, registry.get = [10], get
    with pytest.raises(ImageError, match="of 1048576 bytes"):
        await put(target())


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("http://reg.example/x", "which is not https"),
        ("file:///etc/shadow", "address without a host|which is not https"),
        ("", "does not say where"),
    ],
)
async def test_an_upload_never_leaves_tls(registry, target, location, says):
    registry.location = location
    with pytest.raises(ImageError, match=says):
        await put(target())
    assert registry.methods() == ["POST"]


async def test_an_upload_at_another_host_carries_no_credentials(registry, target, tmp_path):
    packed = base64.b64encode(b"user:secret").decode()
    (tmp_path / "auth.json").write_text(json.dumps({"auths": {"reg.example": {"auth": packed}}}))
    registry.location = "https://store.example/upload?signed=1"
    honest = registry.post

    async def post(request):
        if "Authorization" not in request.headers:
            return httpx2.Response(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return await honest(request)

    registry.post = post
    await put(target(auth_file=tmp_path / "auth.json"))
    elsewhere = [request for request in registry.asked if request.url.host == "store.example"]
    assert [request.method for request in elsewhere] == ["PATCH", "PUT"]
    assert not any("Authorization" in request.headers for request in elsewhere)
    assert elsewhere[1].url.params["signed"] == "1"


async def test_a_token_that_ends_during_an_upload_is_renewed(registry, target, tmp_path):
    """The body that was refused is sent again, whole."""
    good, issued = ["t1"], iter(["t1", "t2"])
    honest = {name: getattr(registry, name) for name in ("post", "patch", "put")}
    challenge = {"WWW-Authenticate": 'Bearer realm="https://auth.example/token",service="reg"'}

    def walled(name):
        async def answer(request):
            if request.headers.get("Authorization") != f"Bearer {good[0]}":
                await request.aread()
                return httpx2.Response(401, headers=challenge)
            answer = await honest[name](request)
            if name == "post":
                good[0] = "t2"  # from now on the first token is too old
            return answer

        return answer

    async def token(request):
        assert request.url.params["scope"] == "repository:a/b:pull,push"
        return httpx2.Response(200, stream=Body(json.dumps({"token": next(issued), "expires_in": 300}).encode()))

    async def get(request):
        return await (token(request) if request.url.host == "auth.example" else honest_get(request))

    honest_get = registry.get
    for name in honest:
        setattr(registry, name, walled(name))
    registry.get = get
    await put(target())
    assert registry.kept == BLOB
    assert registry.methods() == ["POST", "GET", "POST", "PATCH", "GET", "PATCH", "PUT"]


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_changes_the_method_is_refused(registry, target, status):
    async def post(request):
        return httpx2.Response(status, headers={"Location": "https://other.example/"})

    registry.post = post
    with pytest.raises(ImageError, match=f"redirects a POST, with status {status}"):
        await put(target())


async def test_a_manifest_is_sent_again_after_a_fault(registry, target, autojump_clock):
    answers = [503, 201]

    async def answer(request):
        assert await request.aread() == b"{}"
        assert request.headers["Content-Type"] == OCI_MANIFEST
        return httpx2.Response(answers.pop(0), headers={"Docker-Content-Digest": digest_of(b"{}")})

    registry.put = answer
    await target().put_document(Document(b"{}", ""), OCI_MANIFEST, "v1")
    assert [str(request.url) for request in registry.asked] == ["https://reg.example/v2/a/b/manifests/v1"] * 2


async def test_a_registry_that_makes_something_else_of_a_manifest_is_refused(registry, target):
    async def answer(request):
        return httpx2.Response(201, headers={"Docker-Content-Digest": digest_of(b"other")})

    registry.put = answer
    with pytest.raises(ImageError, match="as sent"):
        await target().put_document(Document(b"{}", ""), OCI_MANIFEST, "v1")
