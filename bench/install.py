"""The demo's application with its database, from the command until it is ready: WordPress and MariaDB.

Ours is ``nanocloud install wordpress --option database=mariadb``: it decides passwords, brings MariaDB up, has an
account made in it, and brings WordPress up. The peer is ``podman kube play`` of the manifests beside this file, which
know every address and password already, with the order by hand: play MariaDB, ask until it is ready, make the account
by its image's own command, play WordPress, ask until it is ready. Both have the same images, present and unpacked, ask
the same scripts whether they are ready, and speak to the database without TLS. What the applications do themselves,
making tables above all, is most of the time and the same for both.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from disk import CACHE, fresh_disk
from doorbell import IMAGE, NETWORK, add_image
from node import Layout, TestNode, making_node
from peers import Peer, PeerError, podman
from report import report
from rounds import interleave, seconds_of

from nanocloud_dockyard.builder import Builder

ROUNDS = 3
SERVICES = ("mariadb", "wordpress")
READY = "/usr/lib/nanocloud/ready.sh"
MANIFESTS = Path(__file__).parent / "manifests"
NETWORK_OPTION = ("--network=podman",)  # the network of ``podman run``; kube's own one takes no addresses by hand
DATABASE_ADDRESS = "10.88.5.5"  # as the manifest of WordPress has it
_PAUSE_SECONDS = 0.1
_LIMIT_SECONDS = 120.0


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("the measure install needs root: it makes containers")
    layout = _images()
    with (
        fresh_disk(gigabytes=12) as disk,
        making_node(disk / "n", config=f'[cni-bridge]\nsubnet = "{NETWORK}"\n', start=False) as node,
        podman(disk / "podman", pause=IMAGE) as peer,
    ):
        shutil.rmtree(node.layout.folder)
        shutil.copytree(layout, node.layout.folder)
        node.start()
        small = Layout(disk / "layout")
        add_image(small)
        peer.load(small.folder, IMAGE)
        for service in SERVICES:
            peer.load(layout, service)
        ways: dict[str, Callable[[], float]] = {"nanocloud": lambda: _ours(node), "by hand": lambda: _theirs(peer)}
        samples = interleave(ways, ROUNDS, warm_up=1)
    report("install.seconds", "s", ours=samples["nanocloud"], peers={"podman kube play": samples["by hand"]})


def _images() -> Path:
    """The catalogue's images, as the tests have them; built the first time, which downloads packages."""
    builder = Builder(CACHE.parent / "images", progress=lambda name, said: print(f"{name}: {said}", file=sys.stderr))
    for service in SERVICES:
        builder.build(service)
    return builder.layout


def _ours(node: TestNode) -> float:
    words = ("install", "wordpress", "--option", "database=mariadb", "--timeout", "5m")
    seconds = seconds_of(lambda: node.cli(*words, seconds=_LIMIT_SECONDS))
    node.cli("uninstall", "wordpress", seconds=_LIMIT_SECONDS)
    node.until("bundles", "mariadb", lambda bundle: bundle is None)
    os.sync()
    return seconds


def _theirs(peer: Peer) -> float:
    def install() -> None:
        peer.run("kube", "play", *NETWORK_OPTION, f"--ip={DATABASE_ADDRESS}", str(MANIFESTS / "mariadb.yaml"))
        _until_ready(peer, "mariadb-main")
        script = "printf %s a-password-of-a-measure >/tmp/password && exec $0 wordpress wordpress /tmp/password plain"
        command = ("sh", "-c", script, "/usr/lib/nanocloud/bindings/create_user")
        peer.run("exec", "--user=65534:65534", "mariadb-main", *command)
        peer.run("kube", "play", *NETWORK_OPTION, str(MANIFESTS / "wordpress.yaml"))
        _until_ready(peer, "wordpress-main")

    seconds = seconds_of(install)
    for name in ("wordpress", "mariadb"):
        peer.run("kube", "down", str(MANIFESTS / f"{name}.yaml"))
        peer.run("volume", "rm", f"{name}-data")
    os.sync()
    return seconds


def _until_ready(peer: Peer, container: str) -> None:
    limit = time.monotonic() + _LIMIT_SECONDS
    while True:
        try:
            peer.run("exec", container, READY)
        except PeerError:
            if time.monotonic() > limit:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


if __name__ == "__main__":
    main()
