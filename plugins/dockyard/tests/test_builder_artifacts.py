"""Files that recipes fetch by URL and digest: from where, what is kept, what is refused, what users read."""

from __future__ import annotations

import base64
import hashlib
import os
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from nanocloud.errors import ImageError, InvalidError
from nanocloud_dockyard import artifacts, recipes
from nanocloud_dockyard.recipes import Artifact, Recipe

CONTENT = b"#!/bin/sh\necho hello\n" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Answers by path, and remembers what it was asked."""

    def __init__(self, *, context: ssl.SSLContext | None = None) -> None:
        asked: list[tuple[str, str | None]] = []
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers.get("Authorization")))
                status, headers, body = answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Silent."""

        self.asked, self.answers = asked, answers
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        made.answers["/tool"] = (200, {}, CONTENT)
        yield made


class Kept:
    def __init__(self, folder: Path) -> None:
        self.folder, self.target = folder / "artifacts", folder / "target"
        self.told: list[str] = []

    def provide(
        self, url: str, *, sha256: str = SHA256, argument: str | None = "TOOL", **arguments: str
    ) -> dict[str, bytes]:
        artifact = Artifact(file="tool", url=url, sha256=sha256, argument=argument)
        made = artifacts.provide(
            _recipe(artifact), self.folder, self.target, arguments=arguments, progress=self.told.append
        )
        assert made
        return {path.name: path.read_bytes() for path in made.iterdir()}

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def _recipe(*found: Artifact) -> Recipe:
    return Recipe(
        service="thing",
        folder=Path("/nonexistent"),
        description="",
        capabilities=(),
        options={},
        exports=recipes.Exports(),
        artifacts=found,
        digest="",
    )


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_a_file_is_fetched_once_and_kept_by_its_digest(server: Server, kept: Kept) -> None:
    assert kept.provide(f"{server.url}/tool") == {"tool": CONTENT}
    assert kept.provide(f"{server.url}/tool") == {"tool": CONTENT}
    assert server.asked == [("/tool", None)]
    assert kept.names() == [SHA256]
    assert kept.told == [f"taking tool from {server.url}/tool"]


def test_what_was_kept_is_checked_before_it_is_used_again(server: Server, kept: Kept) -> None:
    kept.provide(f"{server.url}/tool")
    (kept.folder / SHA256).write_bytes(CONTENT[:-1])
    assert kept.provide(f"{server.url}/tool") == {"tool": CONTENT}
    assert len(server.asked) == 2


def test_a_recipe_without_files_has_no_context(tmp_path: Path) -> None:
    made = artifacts.provide(
        _recipe(), tmp_path / "artifacts", tmp_path / "target", arguments={}, progress=lambda line: None
    )
    assert made is None
    assert list(tmp_path.iterdir()) == []


def test_the_argument_names_a_local_file_or_a_mirror(server: Server, kept: Kept, tmp_path: Path) -> None:
    (tmp_path / "local").write_bytes(CONTENT)
    nowhere = "https://nowhere.invalid/tool"
    assert kept.provide(nowhere, TOOL=str(tmp_path / "local")) == {"tool": CONTENT}
    (kept.folder / SHA256).unlink()
    assert kept.provide(nowhere, TOOL=f"{server.url}/tool") == {"tool": CONTENT}
    assert kept.told[0] == f"taking tool from {tmp_path / 'local'}"


def test_another_file_than_the_recipe_says_is_refused_wherever_it_comes_from(
    server: Server, kept: Kept, tmp_path: Path
) -> None:
    other = b"something else"
    (tmp_path / "local").write_bytes(other)
    server.answers["/other"] = (200, {}, other)
    digest = hashlib.sha256(other).hexdigest()
    for source in (str(tmp_path / "local"), f"{server.url}/other"):
        with pytest.raises(ImageError) as caught:
            kept.provide("https://nowhere.invalid/tool", TOOL=source)
        assert str(caught.value) == f"thing: {source} holds sha256:{digest}; the recipe demands sha256:{SHA256}"
        assert kept.names() == []


def test_a_source_that_cannot_be_reached_says_which_and_what_to_do(kept: Kept) -> None:
    with pytest.raises(ImageError) as caught:
        kept.provide("https://nowhere.invalid/1.2/tool")
    assert str(caught.value).startswith("thing: https://nowhere.invalid/1.2/tool cannot be fetched: ")
    assert caught.value.hint == (
        "name a mirror's URL or a local file that has this digest: "
        "nanocloud dockyard build thing --build-arg TOOL=/path/or/url"
    )
    with pytest.raises(ImageError) as caught:
        kept.provide("https://nowhere.invalid/tool", argument=None)
    assert caught.value.hint == (
        "the recipe can be built where this address can be reached: https://nowhere.invalid/tool"
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nonexistent/tool", "/nonexistent/tool does not exist"),
        ("/dev", "/dev is no file"),
        ("ftp://mirror.example/tool", "ftp://mirror.example/tool is no http or https address"),
        ("{}/missing", "{}/missing cannot be fetched: 127.0.0.1 answered 404"),
        ("{}/broken", "{}/broken cannot be fetched: peer closed connection"),
        ("{}/circle", "{}/circle cannot be fetched: it redirects more than 5 times"),
    ],
)
def test_sources_that_cannot_be_used(server: Server, kept: Kept, source: str, message: str) -> None:
    server.answers["/broken"] = (200, {"Content-Length": "100000", "Connection": "close"}, b"short")
    server.answers["/circle"] = (302, {"Location": "/circle"}, b"")
    with pytest.raises(ImageError) as caught:
        kept.provide("https://nowhere.invalid/tool", TOOL=source.replace("{}", server.url))
    assert message.replace("{}", server.url) in str(caught.value)
    assert kept.names() == []


def test_more_than_the_limit_is_refused_while_it_arrives(
    server: Server, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "MAX_ARTIFACT_BYTES", 1000)
    with pytest.raises(ImageError, match="is over 1000 bytes"):
        kept.provide(f"{server.url}/tool")
    assert kept.names() == []


def test_a_password_reaches_its_host_alone_and_no_message(server: Server, kept: Kept) -> None:
    with Server() as other:
        other.answers["/tool"] = (200, {}, CONTENT)
        server.answers["/moved?signature=s3cret"] = (302, {"Location": f"{other.url}/tool"}, b"")
        source = f"{server.url}/moved?signature=s3cret".replace("//", "//user:s3cret@")
        assert kept.provide("https://nowhere.invalid/tool", TOOL=source) == {"tool": CONTENT}
        basic = "Basic " + base64.b64encode(b"user:s3cret").decode()
        assert server.asked == [("/moved?signature=s3cret", basic)]
        assert other.asked == [("/tool", None)]
        (kept.folder / SHA256).unlink()
        del server.answers["/moved?signature=s3cret"]
        with pytest.raises(ImageError) as caught:
            kept.provide("https://nowhere.invalid/tool", TOOL=source)
    assert "s3cret" not in f"{caught.value} {caught.value.hint} {kept.told}"


def test_tls_is_checked_and_never_left(
    server: Server, kept: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Server(context=context) as secure:
        secure.answers["/tool"] = (302, {"Location": f"{server.url}/tool"}, b"")
        with pytest.raises(ImageError, match="certificate verify failed"):
            kept.provide(f"{secure.url}/tool")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with pytest.raises(ImageError, match=r"redirects to http://, which is not https"):
            kept.provide(f"{secure.url}/tool")
        assert server.asked == []
        secure.answers["/tool"] = (200, {}, CONTENT)
        assert kept.provide(f"{secure.url}/tool") == {"tool": CONTENT}


def test_files_that_no_build_used_for_long_are_removed(server: Server, kept: Kept) -> None:
    kept.provide(f"{server.url}/tool")
    (kept.folder / "0123").write_bytes(b"old")
    for name in kept.names():
        os.utime(kept.folder / name, (0, 0))
    kept.provide(f"{server.url}/tool")
    artifacts.collect(kept.folder)
    assert kept.names() == [SHA256]


GOOD = {"file": "tool", "url": "https://a.example/tool", "sha256": "0" * 64, "argument": "TOOL"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": "../tool"}, "artifact file is '../tool'; it must be a plain file name"),
        ({"url": "http://a.example/tool"}, "artifact url is 'http://a.example/tool'; it must be an https address"),
        ({"url": "https://u:p@a.example/tool"}, "it must be an https address"),
        ({"sha256": "0" * 63}, "it must be 64 digits of lower-case hex"),
        ({"argument": "tool"}, "artifact argument is 'tool'; it must be a name of upper-case letters"),
        ({"extra": "x"}, "extra"),
    ],
)
def test_an_artifact_that_cannot_be_is_refused_with_its_field(
    tmp_path: Path, change: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidError) as caught:
        _load(tmp_path, [GOOD | change])
    assert message in f"{caught.value} {caught.value.hint}"


def test_artifacts_of_one_recipe_differ_in_name_and_argument(tmp_path: Path) -> None:
    assert _load(tmp_path, [GOOD]).artifacts == (Artifact(**GOOD),)
    with pytest.raises(InvalidError, match="two artifacts have the file 'tool'"):
        _load(tmp_path, [GOOD, GOOD | {"argument": "OTHER"}])
    with pytest.raises(InvalidError, match="two artifacts have the argument 'TOOL'"):
        _load(tmp_path, [GOOD, GOOD | {"file": "other"}])


def _load(folder: Path, found: list[dict[str, str]]) -> Recipe:
    recipe = folder / "thing"
    recipe.mkdir(exist_ok=True)
    for name, text in (("Containerfile", ""), ("options.json", "{}"), ("exports.json", "{}")):
        (recipe / name).write_text(text)
    lines = ['description = "x"\n']
    for artifact in found:
        lines += ["[[artifact]]\n", *(f'{name} = "{value}"\n' for name, value in artifact.items())]
    (recipe / "recipe.toml").write_text("".join(lines))
    return recipes.load("thing", folder)
