"""Pull and unpack: from a registry on loopback to unpacked layers, beside podman, docker, and skopeo with umoci.

The image is made of this machine's own files: five layers, some 240 MB unpacked, 93 MB as gzip. Every store lies on one
fresh ext4 on a loop device (``BENCH_DISK=plain``: a folder of the disk of ``.cache``). Ours is the node's image
provider in a process that is up, as the node is, and has nothing else in it; the peers are the commands that people
type. The floor is the least that has to be done: ``curl | tar -xz`` of all layers at once, nothing verified.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from disk import CACHE, fresh_disk, remove
from peers import Peer, docker, podman, registry, run
from report import report
from rounds import interleave, seconds_of

ROUNDS = 5
LAYERS = (("/usr/share", 60), ("/usr/lib", 90), ("/usr/bin", 28), ("/usr/share/doc", 5), ("/usr/include", 35))
"""Where each layer's files come from, and how many megabytes of them."""
FLOOR = "curl and tar, all layers at once"
_NODE = """
import json, resource, sys, threading, time, trio
from pathlib import Path
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.settings import DockyardConfig

async def main(root, host, reference):
    async with Dockyard(DockyardConfig(plain_http=(host,)), Path(root)) as dockyard:
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        began = time.perf_counter()
        await dockyard.ensure(await dockyard.resolve(reference))
        seconds = time.perf_counter() - began
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of the largest; not below what it was born with
    print(json.dumps({"seconds": seconds, "node": int(status["VmHWM"].split()[0]), "child": children}))

trio.run(main, *sys.argv[1:])
"""


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure pull needs root: it unpacks files of all owners, and mounts")
    layout = _image(CACHE / "image-of-250-mb")
    unpacked = _unpacked_bytes(layout)
    with fresh_disk(gigabytes=8) as disk, ExitStack() as stack:
        host = stack.enter_context(registry(CACHE / "registry"))
        reference = f"{host}/bench:latest"
        run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{reference}")
        peers = [
            stack.enter_context(podman(disk / "podman", network=False)),
            stack.enter_context(docker(disk / "docker", network=False)),
        ]
        samples = interleave(
            {
                "nanocloud": lambda: _ours(disk, host, reference),
                **{f"{peer.name} pull": partial(_peer, peer, reference) for peer in peers},
                "skopeo copy + umoci unpack": lambda: _umoci(disk, reference),
                FLOOR: lambda: _floor(disk, host, layout),
            },
            ROUNDS,
        )
    ours, floor = samples.pop("nanocloud"), samples.pop(FLOOR)
    report("pull.seconds", "s", ours=ours, peers=samples, floor=floor, floor_name=FLOOR)
    rates = {name: [unpacked / 1e6 / seconds for seconds in values] for name, values in samples.items()}
    report(
        "pull.rate",
        "MB/s",
        ours=[unpacked / 1e6 / seconds for seconds in ours],
        peers=rates,
        floor=[unpacked / 1e6 / seconds for seconds in floor],
        floor_name=FLOOR,
        less_is_better=False,
    )
    for process, sizes in _memory.items():
        report(f"pull.{process}_memory", "MB", ours=sizes)


# ---- what is measured ------------------------------------------------------------------------------------------------

_memory: dict[str, list[float]] = {"node": [], "child": []}
"""Peaks of the node's process and of its largest unpacking child, one a round."""


def _ours(disk: Path, host: str, reference: str) -> float:
    root = disk / "ours"
    command = [sys.executable, "-c", _NODE, str(root), host, reference]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
    for process, sizes in _memory.items():
        sizes.append(answer[process] * 1024 / 1e6)
    remove(root)
    return float(answer["seconds"])


def _peer(peer: Peer, reference: str) -> float:
    insecure = ("--tls-verify=false",) if peer.name == "podman" else ()
    seconds = seconds_of(lambda: peer.run("pull", "--quiet", *insecure, reference))
    peer.run("rmi", "--force", reference)
    os.sync()
    return seconds


def _umoci(disk: Path, reference: str) -> float:
    folder = disk / "umoci"
    folder.mkdir()
    copied = f"{folder}/image:latest"
    copy = ("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"oci:{copied}")
    seconds = seconds_of(lambda: run(*copy))
    seconds += seconds_of(lambda: run("umoci", "unpack", "--image", copied, str(folder / "bundle")))
    remove(folder)
    return seconds


def _floor(disk: Path, host: str, layout: Path) -> float:
    script = ""
    for number, digest in enumerate(_layers(layout)):
        folder = disk / "floor" / str(number)
        folder.mkdir(parents=True)
        script += f"curl -s http://{host}/v2/bench/blobs/{digest} | tar -xz -C {folder} --same-owner &\n"
    seconds = seconds_of(lambda: run("sh", "-c", f"{script}wait"))
    remove(disk / "floor")
    return seconds


# ---- what it is measured on ------------------------------------------------------------------------------------------


def _image(folder: Path) -> Path:
    """A layout folder of this machine's files; made once."""
    if (folder / "index.json").exists():
        return folder
    print("making the image, once", file=sys.stderr)
    (folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    diff_ids, layers = [], []
    for number, (source, megabytes) in enumerate(LAYERS):
        tar = folder / "layer.tar"
        _write_tar(tar, Path(source), megabytes * 1_000_000, f"layer{number}")
        diff_ids.append(_digest(tar.read_bytes()))
        layers.append(_blob(folder, gzip.compress(tar.read_bytes(), 6, mtime=0), "layer.v1.tar+gzip"))
        tar.unlink()
    config = {"os": "linux", "architecture": _architecture(), "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(folder, json.dumps(config).encode(), "config.v1+json"),
        "layers": layers,
    }
    descriptor = _blob(folder, json.dumps(manifest).encode(), "manifest.v1+json")
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return folder


def _write_tar(path: Path, source: Path, most: int, prefix: str) -> None:
    left = most
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder, folders, files in os.walk(source):
            folders.sort()
            inside = Path(prefix) / Path(folder).relative_to("/")
            tar.add(folder, str(inside), recursive=False)
            for name in sorted(files):
                file = Path(folder, name)
                size = file.lstat().st_size
                if size <= left and (file.is_symlink() or file.is_file()) and size < most // 4:
                    tar.add(file, str(inside / name), recursive=False)
                    left -= size
            if left < most // 50:
                return


def _blob(folder: Path, data: bytes, kind: str) -> dict[str, Any]:
    digest = _digest(data)
    (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(data)
    return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest, "size": len(data)}


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _architecture() -> str:
    return subprocess.run(["dpkg", "--print-architecture"], capture_output=True, text=True, check=True).stdout.strip()


def _unpacked_bytes(layout: Path) -> int:
    """Of all layers together, as tar streams."""
    blobs = layout / "blobs" / "sha256"
    # The last four bytes of a gzip stream: its length, RFC 1952, section 2.3.1.
    ends = ((blobs / digest.removeprefix("sha256:")).read_bytes()[-4:] for digest in _layers(layout))
    return sum(int.from_bytes(end, "little") for end in ends)


def _layers(layout: Path) -> list[str]:
    (manifest,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    blob = layout / "blobs" / "sha256" / manifest["digest"].removeprefix("sha256:")
    return [layer["digest"] for layer in json.loads(blob.read_bytes())["layers"]]


if __name__ == "__main__":
    main()
