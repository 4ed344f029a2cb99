"""Indexes, manifests, configurations and layout folders that must be refused: ``CASES``, by the hundred."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@attrs.frozen(kw_only=True)
class HostileDocument:
    write: Callable[[Path, Any, Any], None]
    """Makes the layout folder."""
    says: str = ""


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _put(folder: Path, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
    (folder / "blobs/sha256" / _digest(data).removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data), **more}


def _index(folder: Path, *descriptors: Any, data: bytes | None = None) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    text = json.dumps({"schemaVersion": 2, "manifests": list(descriptors)}).encode()
    (folder / "index.json").write_bytes(text if data is None else data)


def _image(new_image: Any, new_tar: Any) -> Any:
    return new_image.of(bytes(new_tar().file(b"f")))


def _changed(part: str, *path: Any, value: Any) -> Callable[[Path, Any, Any], None]:
    """An image whose manifest or configuration has ``value`` at ``path``; ``...`` takes the field away."""

    def write(folder: Path, new_image: Any, new_tar: Any) -> None:
        image = _image(new_image, new_tar)
        image.finish()  # so that the manifest has its configuration
        at = getattr(image, part)
        for step in path[:-1]:
            at = at[step]
        if value is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = value
        if part == "configuration":
            image.write_layout(folder, None)
            return
        for data in image.blobs.values():
            _put(folder, data, "")
        _index(folder, _put(folder, json.dumps(image.manifest).encode(), MANIFEST))

    return write


def _document(data: bytes, media_type: str = MANIFEST) -> Callable[[Path, Any, Any], None]:
    return lambda folder, _image, _tar: _index(folder, _put(folder, data, media_type))


def _configuration(data: bytes) -> Callable[[Path, Any, Any], None]:
    def write(folder: Path, new_image: Any, new_tar: Any) -> None:
        image = _image(new_image, new_tar)
        image.finish()
        for blob in image.blobs.values():
            _put(folder, blob, "")
        image.manifest["config"] = _put(folder, data, "application/vnd.oci.image.config.v1+json")
        _index(folder, _put(folder, json.dumps(image.manifest).encode(), MANIFEST))

    return write


def _nested(depth: int) -> Callable[[Path, Any, Any], None]:
    def write(folder: Path, new_image: Any, new_tar: Any) -> None:
        descriptor = _put(folder, b"{}", MANIFEST)
        for _ in range(depth):
            data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]}).encode()
            descriptor = _put(folder, data, INDEX)
        _index(folder, descriptor)

    return write


def _file(name: str, make: Callable[[Path], Any]) -> Callable[[Path, Any, Any], None]:
    """A layout with one file of it replaced."""

    def write(folder: Path, new_image: Any, new_tar: Any) -> None:
        descriptor = _image(new_image, new_tar)
        descriptor.write_layout(folder)
        digest = descriptor.finish()["digest"].removeprefix("sha256:")
        path = folder / name.replace("MANIFEST", digest)
        path.unlink()
        make(path)

    return write


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 34)


def _nowhere(path: Path) -> None:
    path.symlink_to("/nowhere")


DIGESTS = {
    "absent": ...,
    "empty": "",
    "a number": 5,
    "null": None,
    "a path": "sha256:../../../../etc/passwd",
    "short": "sha256:abc",
    "upper case": "sha256:" + "A" * 64,
    "another algorithm": "sha512:" + "a" * 128,
    "md5": "md5:" + "a" * 32,
    "with a newline": "sha256:" + "a" * 64 + "\n",
    "with a slash": "sha256:" + "a" * 63 + "/",
}
SIZES = {
    "absent": ...,
    "text": "5",
    "negative": -1,
    "a fraction": 1.5,
    "true": True,
    "null": None,
    "beyond all": 1 << 63,
}
KINDS: dict[str, Any] = {"null": None, "a number": 5, "text": "text", "a list": [1], "true": True}
JSON: dict[str, bytes] = {
    "empty": b"",
    "noise": bytes(range(256)),
    "no end": b'{"config": {',
    "null": b"null",
    "a number": b"1e999",
    "a list": b"[]",
    "text": b'"manifest"',
    "nested without end": b'{"a":' + b"[" * 200_000,
    "nested and closed": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "over the limit": b'{"config": {}, "layers": [' + b" " * (5 << 20) + b"]}",
    "a million lists": b'{"layers": [' + b"[]," * 1_300_000 + b"[]]}",
    "a million objects": b'{"layers": [' + b"{}," * 1_300_000 + b"{}]}",
    "a million keys": b"{" + b",".join(b'"%d":0' % n for n in range(400_000)) + b"}",
    "NaN": b'{"config": NaN, "layers": []}',
    "two texts": b'{"layers": []}{"layers": []}',
    "broken text": b'{"layers": "\xff\xfe"}',
    "lone surrogate": b'{"config": {"digest": "\\ud800"}, "layers": []}',
}


def _all() -> dict[str, HostileDocument]:
    cases: dict[str, HostileDocument] = {}

    def add(name: str, write: Callable[[Path, Any, Any], None], says: str = "") -> None:
        cases[name] = HostileDocument(write=write, says=says)

    for name, data in JSON.items():
        add(f"manifest: {name}", _document(data))
        add(f"index of platforms: {name}", _document(data, INDEX))
        add(f"configuration: {name}", _configuration(data))
        add(f"layout: index.json, {name}", lambda folder, _i, _t, data=data: _index(folder, data=data))
    for name, value in DIGESTS.items():
        add(f"digest of a layer: {name}", _changed("manifest", "layers", 0, "digest", value=value), "layers[0].digest")
        add(f"digest of the configuration: {name}", _changed("manifest", "config", "digest", value=value), "digest")
        add(
            f"digest in an index: {name}",
            lambda folder, _i, _t, value=value: _index(
                folder, {"mediaType": MANIFEST, "size": 2, **({} if value is ... else {"digest": value})}
            ),
            "digest",
        )
        if name != "absent":
            add(f"digest of a diff: {name}", _changed("configuration", "rootfs", "diff_ids", value=[value]), "diff_ids")
    for name, value in SIZES.items():
        add(f"size of a layer: {name}", _changed("manifest", "layers", 0, "size", value=value), "layers[0].size")
        add(f"size of the configuration: {name}", _changed("manifest", "config", "size", value=value), "size")
    for name, value in KINDS.items():
        add(f"field config: {name}", _changed("manifest", "config", value=value))
        if name != "a list":
            add(f"field layers: {name}", _changed("manifest", "layers", value=value))
        add(f"field of a layer: {name}", _changed("manifest", "layers", 0, value=value))
        add(f"field rootfs: {name}", _changed("configuration", "rootfs", value=value))
        if name != "text":
            add(f"field os: {name}", _changed("configuration", "os", value=value))
        for field in ("Env", "Entrypoint", "Cmd"):
            if name not in ("null",):
                add(f"field {field}: {name}", _changed("configuration", "config", value={field: value}), field)
        for field in ("Labels", "ExposedPorts", "Volumes"):
            if name != "null":
                add(f"field {field}: {name}", _changed("configuration", "config", value={field: value}), field)
        for field in ("User", "WorkingDir", "StopSignal"):
            if name not in ("text", "null"):
                add(f"field {field}: {name}", _changed("configuration", "config", value={field: value}), field)
    add("field User: a NUL", _changed("configuration", "config", value={"User": "a\0b"}), "User")
    add("field Env: a NUL", _changed("configuration", "config", value={"Env": ["A=\0"]}), "Env")
    add("field Labels: of numbers", _changed("configuration", "config", value={"Labels": {"a": 1}}), "Labels")
    add("field os: another", _changed("configuration", "os", value="plan9"), "plan9")
    add("field architecture: another", _changed("configuration", "architecture", value="pdp11"), "pdp11")
    add("field os: control characters", _changed("configuration", "os", value="linux\x1b[2J\n"))
    add("layers: too many", _changed("manifest", "layers", value=[{}] * 128), "layers")
    add("layers: more than diffs", _changed("configuration", "rootfs", "diff_ids", value=[]), "diff_ids")
    add(
        "layers: of an unknown kind",
        _changed("manifest", "layers", 0, "mediaType", value="text/html\x1b"),
        "which is no layer",
    )
    add("layers: larger than the limit", _changed("manifest", "layers", 0, "size", value=1 << 40), "max_image_bytes")
    add("kind: a chart", _changed("manifest", "config", "mediaType", value="application/vnd.cncf.helm.config.v1+json"))
    add("kind: an index by its own words", _changed("manifest", "mediaType", value=INDEX))
    add("kind: unknown by its own words", _changed("manifest", "mediaType", value="text/plain"))
    add("kind: two in one", _changed("manifest", "manifests", value=[]), "ambiguous")
    add("kind: neither", _document(b"{}"), "ambiguous")
    add("index: nested too deep", _nested(6), "deeper than")
    add("index: nested a hundred times", _nested(100), "deeper than")
    add(
        "index: empty", _document(json.dumps({"mediaType": INDEX, "manifests": []}).encode(), INDEX), "has no image for"
    )
    many = {"mediaType": MANIFEST, "digest": "sha256:" + "a" * 64, "size": 1}
    add("index: too many", _document(json.dumps({"mediaType": INDEX, "manifests": [many] * 1025}).encode(), INDEX))
    add(
        "index: for other machines",
        _document(
            json.dumps(
                {"mediaType": INDEX, "manifests": [many | {"platform": {"os": "plan9", "architecture": "pdp11"}}]}
            ).encode(),
            INDEX,
        ),
        "plan9/pdp11",
    )
    add(
        "index: a platform that is none", _document(json.dumps({"manifests": [many | {"platform": 5}]}).encode(), INDEX)
    )
    for name, make in {
        "a pipe": os.mkfifo,
        "a folder": os.mkdir,
        "a link to nowhere": _nowhere,
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to itself": lambda path: path.symlink_to(path),
        "a large file": _large,
        "absent": lambda path: None,
    }.items():
        for file in ("oci-layout", "index.json", "blobs/sha256/MANIFEST"):
            add(f"layout: {file}, {name}", _file(file, make))
    add("layout: another version", _file("oci-layout", lambda path: path.write_text('{"imageLayoutVersion": "9"}')))
    add("layout: other bytes", _file("blobs/sha256/MANIFEST", lambda path: path.write_bytes(b"{}")), "has digest")
    return cases


CASES = _all()
