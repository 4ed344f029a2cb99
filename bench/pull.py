"""Pull and unpack: from a registry on loopback to unpacked layers, beside podman, and skopeo with umoci.

The image is made of this machine's own files, five layers of about 220 MB, 77 MB as gzip. Every store lies on one fresh
ext4 on a loop device (``BENCH_DISK=plain``: a folder of the disk of ``.cache``). Ours is the node's image provider in a
process that is up, as the node is; the peers are the commands that people type. The floor is the least that has to be
done: ``curl | tar -xz`` of all layers at once, nothing verified.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from report import report

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CACHE = Path(__file__).parents[1] / ".cache" / "bench"
LAYERS = (("/usr/share", 60), ("/usr/lib", 62), ("/usr/bin", 28), ("/usr/share/doc", 5), ("/usr/include", 35))
"""Where each layer's files come from, and how many megabytes of them."""
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
    layout = _image(CACHE / "image")
    with ExitStack() as stack:
        disk = stack.enter_context(_disk(CACHE))
        host = stack.enter_context(_registry(CACHE / "registry"))
        reference = f"{host}/bench:latest"
        _run("skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}:latest", f"docker://{reference}")
        ways: dict[str, Callable[[], float]] = {
            "nanocloud": lambda: _ours(disk, host, reference),
            "podman pull": lambda: _podman(disk, reference),
            "skopeo copy + umoci unpack": lambda: _umoci(disk, reference),
            "floor": lambda: _floor(disk, host, layout),
        }
        samples: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                samples[name].append(way())
    ours, floor = samples.pop("nanocloud"), samples.pop("floor")
    report("pull.seconds", "s", ours=ours, peers=samples, floor=floor)
    for process, sizes in _memory.items():
        report(f"pull.{process}_memory", "MB", ours=sizes, peers={}, floor=())


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
    _remove(root)
    return float(answer["seconds"])


def _podman(disk: Path, reference: str) -> float:
    folder = disk / "podman"
    folder.mkdir()
    settings = folder / "containers.conf"
    settings.write_text('[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]\n')
    words = ["podman", "--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "overlay"]
    words += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    seconds = _timed([*words, "pull", "--quiet", "--tls-verify=false", reference], CONTAINERS_CONF=str(settings))
    subprocess.run(["umount", str(folder / "root" / "overlay")], stderr=subprocess.DEVNULL, check=False)
    _remove(folder)
    return seconds


def _umoci(disk: Path, reference: str) -> float:
    folder = disk / "umoci"
    folder.mkdir()
    copied = f"{folder}/image:latest"
    seconds = _timed(["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{reference}", f"oci:{copied}"])
    seconds += _timed(["umoci", "unpack", "--image", copied, str(folder / "bundle")])
    _remove(folder)
    return seconds


def _floor(disk: Path, host: str, layout: Path) -> float:
    script = ""
    for number, digest in enumerate(_layers(layout)):
        folder = disk / "floor" / str(number)
        folder.mkdir(parents=True)
        script += f"curl -s http://{host}/v2/bench/blobs/{digest} | tar -xz -C {folder} --same-owner &\n"
    seconds = _timed(["sh", "-c", f"{script}wait"])
    _remove(disk / "floor")
    return seconds


def _timed(command: list[str], **environment: str) -> float:
    began = time.perf_counter()
    _run(*command, **environment)
    return time.perf_counter() - began


def _run(*command: str, **environment: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def _remove(folder: Path) -> None:
    """Outside the time that is taken; what is left to write must not fall on the next one."""
    shutil.rmtree(folder)
    os.sync()


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


def _layers(layout: Path) -> list[str]:
    (manifest,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    blob = layout / "blobs" / "sha256" / manifest["digest"].removeprefix("sha256:")
    return [layer["digest"] for layer in json.loads(blob.read_bytes())["layers"]]


@contextmanager
def _disk(cache: Path) -> Iterator[Path]:
    """An empty folder for every store, on one file system."""
    folder = cache / "disk"
    if os.environ.get("BENCH_DISK") == "plain":
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder)
        return
    file = cache / "disk.img"
    folder.mkdir(parents=True, exist_ok=True)
    file.unlink(missing_ok=True)
    with file.open("wb") as made:
        made.truncate(4 << 30)
    _run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(file))
    _run("mount", "-o", "loop", str(file), str(folder))
    try:
        yield folder
    finally:
        _run("umount", str(folder))
        file.unlink()
        folder.rmdir()


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\nlog: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{host}'}}\n"
    )
    process = subprocess.Popen(
        ["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + 20
        while subprocess.run(["curl", "-sf", f"http://{host}/v2/"], capture_output=True, check=False).returncode:
            if time.monotonic() > limit:
                sys.exit("the registry does not answer")
            time.sleep(0.05)
        yield host
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    main()
