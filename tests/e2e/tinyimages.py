"""Tiny real images for the end-to-end tests: one static busybox, a script or two, labels; in an OCI layout folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BUSYBOX = Path("/bin/busybox")
APPLETS = (
    "sh cat echo ls sleep true false id env wget httpd nc kill ps grep mkdir rm touch dd df mount hostname "
    "nslookup md5sum tee head tail stat chmod seq date sync cut tr wc printf test expr"
)


class Layout:
    """An OCI layout folder that images are added to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        self._manifests: list[dict[str, Any]] = []
        self._write_index()

    def reload(self) -> None:
        """Know what somebody else has put there."""
        self._manifests = json.loads((self.folder / "index.json").read_text())["manifests"]

    def reference(self, name: str) -> str:
        return f"oci:{self.folder}:{name}"

    def add(
        self,
        name: str,
        *,
        command: list[str],
        files: Mapping[str, str] | None = None,
        labels: Mapping[str, Any] | None = None,
        user: str = "",
        passwd: str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
        stop_signal: str = "SIGKILL",
    ) -> str:
        """Add an image; ``files`` are executable scripts by path, label values that are no text become JSON.

        Busybox's servers, as PID 1, ignore SIGTERM; so the default signal is the one that ends them at once.
        """
        base = _layer({"bin/busybox": BUSYBOX.read_bytes(), "etc/passwd": passwd.encode(), "etc/group": b"root:x:0:\n"})
        top = _layer({path.lstrip("/"): content.encode() for path, content in (files or {}).items()}, applets=True)
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (labels or {}).items()}
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Cmd": command,
                "Labels": texts,
                "User": user,
                "Env": ["PATH=/bin:/usr/bin"],
                "WorkingDir": "/",
                "StopSignal": stop_signal,
            },
            "rootfs": {"type": "layers", "diff_ids": [_digest(base), _digest(top)]},
        }
        layers = [self._blob(gzip.compress(layer, 1, mtime=0), "layer.v1.tar+gzip") for layer in (base, top)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self._blob(json.dumps(config).encode(), "config.v1+json"),
            "layers": layers,
        }
        descriptor = self._blob(json.dumps(manifest).encode(), "manifest.v1+json")
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self._manifests = [m for m in self._manifests if m["annotations"] != descriptor["annotations"]] + [descriptor]
        self._write_index()
        return self.reference(name)

    def _blob(self, content: bytes, kind: str) -> dict[str, Any]:
        digest = _digest(content)
        (self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(content)}

    def _write_index(self) -> None:
        index = {"schemaVersion": 2, "manifests": self._manifests}
        (self.folder / "index.json").write_text(json.dumps(index))


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _layer(files: Mapping[str, bytes], *, applets: bool = False) -> bytes:
    buffer, folders = io.BytesIO(), set[str]()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in sorted(files.items()):
            for parent in reversed(Path(path).parents[:-1]):
                if str(parent) not in folders:
                    folders.add(str(parent))
                    entry = tarfile.TarInfo(str(parent))
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for applet in APPLETS.split() if applets else ():
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, "/bin/busybox", 0o777
            tar.addfile(entry)
        for folder in ("tmp", "run", "data", "proc", "sys", "dev", "etc") if applets else ():
            if folder not in folders:
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
    return buffer.getvalue()


DATABASE_OPTIONS = {"port": ["5000"], "port_1": ["5000"], "volume_1": ["/data"], "volume_size_1": ["32Mi"]}
DATABASE_EXPORTS = {"options": ["host", "port"], "bindings": ["create_user"]}
DATABASE_FILES = {
    "/serve.sh": "#!/bin/sh\necho database is starting\ntouch /data/users\nchmod 666 /data/users\n"
    "exec nc -ll -p 5000 -e /show.sh\n",
    "/show.sh": "#!/bin/sh\ncat /data/users\n",
    "/usr/lib/nanocloud/ready.sh": "#!/bin/sh\ntest -e /data/users\n",
    # One line a user: name and what the secret hashes to; repeating changes nothing.
    "/usr/lib/nanocloud/bindings/create_user": "#!/bin/sh\n"
    'sum=$(md5sum < "$2")\ngrep -q "^$1 " /data/users || echo "$1 $sum" >> /data/users\n',
}
"""A database in a few lines: it keeps users in a file on its volume and shows them to whoever connects."""

APP_OPTIONS = {
    "database=&tinydb": ["*database_host", "*database_port", "&create_user $user $password"],
    "user": ["app"],
    "password": ["!rand 24 alnum"],
    "env_DB_HOST": ["*database_host", "$database_host"],
    "env_DB_PORT": ["*database_port", "$database_port"],
    "env_DB_PASSWORD": ["*password", "$password"],
    "port_1": ["8080"],
}
APP_FILES = {
    "/serve.sh": "#!/bin/sh\nmkdir -p /tmp/www\n"
    "nc $DB_HOST $DB_PORT < /dev/null > /tmp/www/index.html || exit 3\n"
    "echo app is up\nexec httpd -f -p 8080 -h /tmp/www\n",
    "/usr/lib/nanocloud/ready.sh": "#!/bin/sh\nwget -q -O - http://127.0.0.1:8080/ | grep -q app\n",
}


def add_tiny_services(layout: Layout) -> None:
    """``tinydb`` and ``tinyapp``, which selects it."""
    layout.add(
        "tinydb",
        command=["/serve.sh"],
        files=DATABASE_FILES,
        labels={"io.nanocloud.options": DATABASE_OPTIONS, "io.nanocloud.exports": DATABASE_EXPORTS},
    )
    layout.add("tinyapp", command=["/serve.sh"], files=APP_FILES, labels={"io.nanocloud.options": APP_OPTIONS})


if __name__ == "__main__":
    import sys

    add_tiny_services(Layout(Path(sys.argv[1])))
    print(os.listdir(sys.argv[1]))
