"""The floor: a container by hand, with as little as is needed, from one Python process in an enclosure.

``crun``, an overlay over one folder with the image's files, a network namespace with a veth pair on a bridge, and an
address: no seccomp filter, no log, no monitor, no record of anything. Run as a program it is that process: it reads a
line of words, does what they say, and answers ``done``.

    start N          start container N
    start-many A B   start containers A to B, ten at a time
    exec N           run ``true`` in it, by ``crun exec``
    remove N         TERM, wait for its end, crun delete, unmount, and remove the network namespace
    remove-many A B  the same for many, ten at a time
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from doorbell import GATEWAY
from enclosure import Enclosure, enclosure

CLIENTS = 10
_BRIDGE = "hand0"
_CLONE_NEWNET, _MS_BIND, _MNT_DETACH = 0x40000000, 4096, 2
_libc = ctypes.CDLL(None, use_errno=True)


class ByHand:
    """From outside: the process in its enclosure, which takes one word at a time."""

    name = "by hand"

    def __init__(self, inside: Enclosure, process: subprocess.Popen[str], folder: Path) -> None:
        self.inside, self._process, self._folder = inside, process, folder

    def ask(self, *words: object) -> None:
        self.say(*words)
        self.hear()

    def say(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()

    def hear(self) -> None:
        assert self._process.stdout is not None
        if (answer := self._process.stdout.readline()) != "done\n":
            raise RuntimeError(f"by hand: {answer or 'the process ended; see above'}")

    def shell(self, number: int) -> list[str]:
        """The same start as a shell script, as people have it by hand; to be run as it is."""
        return self.inside.command("sh", "-ec", _SHELL.format(id=f"c{number}", folder=self._folder, **_numbers(number)))


@contextmanager
def by_hand(folder: Path, image: Path) -> Iterator[ByHand]:
    """``image`` is the folder with the image's files; everything else lies in ``folder``."""
    folder.mkdir()
    name = f"ncbench-hand-{os.getpid()}"
    (folder / "image").symlink_to(image)
    with enclosure(cgroups=[name]) as inside:
        command = inside.command(sys.executable, __file__, str(folder), name)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            made = ByHand(inside, process, folder)
            made.hear()
            yield made


# ---- in the enclosure ------------------------------------------------------------------------------------------------


def main(folder: Path, cgroup: str) -> None:
    make_bridge()
    os.chdir(folder)
    subprocess.run(["crun", "spec"], check=True)
    template = json.loads(Path("config.json").read_text())
    template["process"] |= {"terminal": False, "args": ["/run.sh"]}
    template["root"] = {"path": "rootfs", "readonly": False}
    shell = template | {"linux": _linux("@ID@", cgroup)}
    Path("shell.json").write_text(json.dumps(shell))
    ways: dict[str, Callable[[int], None]] = {
        "start": lambda number: _start(folder, number, template, cgroup),
        "exec": lambda number: _crun("exec", f"c{number}", "/bin/true"),
        "remove": lambda number: _remove(folder, number),
    }
    print("done", flush=True)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for line in sys.stdin:
            word, *numbers = line.split()
            way, (first, *last) = ways[word.removesuffix("-many")], map(int, numbers)
            if last:
                list(pool.map(way, range(first, last[0] + 1)))
            else:
                way(first)
            print("done", flush=True)


def make_bridge() -> None:
    """What ``connect`` needs."""
    ip(f"link add {_BRIDGE} type bridge", f"addr add {GATEWAY}/16 dev {_BRIDGE}", f"link set {_BRIDGE} up")
    Path("/run/netns").mkdir()


def _start(folder: Path, number: int, template: dict[str, object], cgroup: str) -> None:
    bundle = folder / f"c{number}"
    for path in (bundle, bundle / "upper", bundle / "work", bundle / "rootfs"):
        path.mkdir()
    options = f"lowerdir={folder}/image,upperdir={bundle}/upper,workdir={bundle}/work,volatile"
    _mount("overlay", bundle / "rootfs", "overlay", 0, options)
    connect(number)
    config = template | {"linux": _linux(f"c{number}", cgroup)}
    (bundle / "config.json").write_text(json.dumps(config))
    _crun("run", "-d", "--bundle", str(bundle), "--pid-file", str(bundle / "pid"), f"c{number}")


def _linux(name: str, cgroup: str) -> dict[str, object]:
    namespaces = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]
    return {
        "namespaces": [*namespaces, {"type": "network", "path": f"/run/netns/{name}"}],
        "cgroupsPath": f"/{cgroup}/{name}",
    }


def connect(number: int) -> None:
    """A namespace by a thread that ends, as it has to be in one process; then netlink on both sides."""
    failed: list[BaseException] = []

    def work() -> None:
        try:
            from pyroute2 import IPRoute

            with IPRoute() as node:
                bridge = node.link_lookup(ifname=_BRIDGE)[0]
                path = Path(f"/run/netns/c{number}")
                path.touch()
                _check(_libc.unshare(_CLONE_NEWNET), "unshare")
                _mount("/proc/thread-self/ns/net", path, None, _MS_BIND, None)
                with path.open() as namespace:
                    peer = {"ifname": "eth0", "net_ns_fd": namespace.fileno()}
                    node.link("add", ifname=f"hand{number}", kind="veth", peer=peer, master=bridge, state="up")
            with IPRoute() as pod:
                index = pod.link_lookup(ifname="eth0")[0]
                pod.link("set", index=1, state="up")
                pod.link("set", index=index, state="up")
                pod.addr("add", index=index, address=_numbers(number)["address"], prefixlen=16)
                pod.route("add", dst="0.0.0.0/0", gateway=GATEWAY)
        except BaseException as exc:
            failed.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def disconnect(number: int) -> None:
    """What ``connect`` has made goes."""
    ip(f"link del hand{number}")
    namespace = Path(f"/run/netns/c{number}")
    _unmount(namespace)
    namespace.unlink()


def _remove(folder: Path, number: int) -> None:
    pid = int(Path(f"c{number}/pid").read_text())
    descriptor = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        select.select([descriptor], [], [], 10)
    finally:
        os.close(descriptor)
    _crun("delete", f"c{number}")
    disconnect(number)
    _unmount(folder / f"c{number}" / "rootfs")
    shutil.rmtree(folder / f"c{number}")


def _crun(*words: str) -> None:
    pid = os.posix_spawnp("crun", ["crun", "--cgroup-manager=cgroupfs", *words], os.environ)
    if status := os.waitpid(pid, 0)[1]:
        raise RuntimeError(f"crun {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}")


def ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def _numbers(number: int) -> dict[str, str]:
    return {"number": str(number), "address": f"10.88.{1 + number // 250}.{1 + number % 250}"}


def _mount(source: str, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    words = (None if word is None else word.encode() for word in (source, str(target), kind))
    _check(_libc.mount(*words, flags, options.encode() if options else None), f"mount {target}")


def _unmount(path: Path) -> None:
    _check(_libc.umount2(str(path).encode(), _MNT_DETACH), f"umount {path}")


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), what)


_SHELL = f"""
cd {{folder}}
mkdir {{id}} {{id}}/upper {{id}}/work {{id}}/rootfs
mount -t overlay overlay -o lowerdir={{folder}}/image,upperdir={{id}}/upper,workdir={{id}}/work,volatile {{id}}/rootfs
ip netns add {{id}}
ip -batch - <<END
link add hand{{number}} type veth peer name eth0 netns {{id}}
link set hand{{number}} master {_BRIDGE} up
END
ip -n {{id}} -batch - <<END
link set lo up
link set eth0 up
addr add {{address}}/16 dev eth0
route add default via {GATEWAY}
END
sed 's|@ID@|{{id}}|g' shell.json >{{id}}/config.json
crun --cgroup-manager=cgroupfs run -d --bundle {{id}} --pid-file {{folder}}/{{id}}/pid {{id}}
"""

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
