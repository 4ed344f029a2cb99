"""The four ways to have a container that the measures of containers compare: ours, podman, docker, by hand.

All use the image of ``doorbell.py``, whose program rings when it runs. A container has a number. Each thing is asked
for by one call and waited for by another, so that what happens in between can be timed too: ``begin`` and ``begun``,
``stop`` and ``stopped``, ``remove`` and ``removed``.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

from by_hand import ByHand, by_hand
from doorbell import IMAGE, NETWORK, Doorbell, add_image, doorbell
from node import Layout, TestNode, making_node
from peers import Peer, docker, podman, run

from nanocloud.client.api import bundles_path, core_path


class Contender(Protocol):
    name: str
    bell: Doorbell

    def begin(self, number: int) -> None: ...

    def begun(self, number: int) -> None: ...

    def stop(self, number: int) -> None:
        """Ask politely, and give back what only a running container needs."""

    def stopped(self, number: int) -> None: ...

    def remove(self, number: int) -> None:
        """Stop what runs, and leave nothing of it."""

    def removed(self, number: int) -> None: ...


class Client:
    """Of our API: one connection, for one thread. A bundle a container, of the service that is given."""

    def __init__(self, node: TestNode, service: str = IMAGE) -> None:
        self._service = service
        with node.entered():
            self._api = node.api()
            self._api.request("GET", bundles_path("default"))  # it is there before it is needed

    def begin(self, number: int) -> None:
        body = {
            "apiVersion": "nanocloud.io/v1",
            "kind": "Bundle",
            "metadata": {"name": f"c{number}", "namespace": "default"},
            "spec": {"service": self._service},
        }
        self._api.request("POST", bundles_path("default"), body=body)

    def stop(self, number: int) -> None:
        path = bundles_path("default", f"c{number}")
        patch = {"spec": {"start": False}}
        self._api.request("PATCH", path, body=patch, content_type="application/merge-patch+json")

    def remove(self, number: int) -> None:
        self._api.request("DELETE", bundles_path("default", f"c{number}"))


class Ours(Client):
    """A client that also watches what comes of it."""

    name = "nanocloud"

    def __init__(self, node: TestNode, bell: Doorbell) -> None:
        super().__init__(node)
        self.node, self.bell = node, bell
        self._pods, self._bundles = Gone(node, core_path("default", "pods")), Gone(node, bundles_path("default"))

    def close(self) -> None:
        self._pods.close()
        self._bundles.close()

    def begun(self, number: int) -> None:
        self.node.until_settled(f"c{number}")

    def stopped(self, number: int) -> None:
        """The container is removed, its network given back, and last the pod's object."""
        self._pods.wait(f"c{number}-0")

    def removed(self, number: int) -> None:
        self._bundles.wait(f"c{number}")


class Gone:
    """The names of the objects of a collection that were deleted since."""

    def __init__(self, node: TestNode, path: str) -> None:
        with node.entered():
            api = node.api()
            version = api.request("GET", path)["metadata"]["resourceVersion"]
            self._changes = api.watch(path, query={"resourceVersion": version})
        self._node, self._names = node, set[str]()

    def close(self) -> None:
        self._changes.close()

    def wait(self, name: str) -> None:
        while name not in self._names:
            with self._node.entered():  # the first time it connects
                kind, changed = next(self._changes)
            if kind == "DELETED":
                self._names.add(changed["metadata"]["name"])
        self._names.remove(name)


class Theirs:
    """Podman or docker, by the commands that people type. Ten can be under way at once."""

    def __init__(self, peer: Peer, bell: Doorbell) -> None:
        self.peer, self.bell, self.name = peer, bell, peer.name
        self._commands: dict[int, subprocess.Popen[bytes]] = {}

    def begin(self, number: int) -> None:
        self._commands[number] = self.peer.spawn("run", "-d", *self.peer.run_options, f"--name=c{number}", IMAGE)

    def stop(self, number: int) -> None:
        self._commands[number] = self.peer.spawn("stop", f"c{number}")

    def remove(self, number: int) -> None:
        grace = ("--time=10",) if self.peer.name == "podman" else ()  # docker's has none: it kills
        self._commands[number] = self.peer.spawn("rm", "--force", *grace, f"c{number}")

    def begun(self, number: int) -> None:
        command = self._commands.pop(number)
        if code := command.wait():
            raise RuntimeError(f"{command.args!r} ended with {code}")

    stopped = removed = begun


class Floor:
    """By hand; see there. There is nothing between stopping and removing."""

    def __init__(self, hand: ByHand, bell: Doorbell) -> None:
        self.hand, self.bell, self.name = hand, bell, hand.name

    def begin(self, number: int) -> None:
        self.hand.say("start", number)

    def begun(self, number: int) -> None:
        self.hand.hear()

    def remove(self, number: int) -> None:
        self.hand.say("remove", number)

    stop, stopped, removed = remove, begun, begun


class Shell(Floor):
    """By hand, started by a shell script."""

    def __init__(self, hand: ByHand, bell: Doorbell) -> None:
        super().__init__(hand, bell)
        self.name = f"{hand.name}, as a shell script"

    def begin(self, number: int) -> None:
        self._script = subprocess.Popen(self.hand.shell(number), stdin=subprocess.DEVNULL)

    def begun(self, number: int) -> None:
        if code := self._script.wait():
            raise RuntimeError(f"{self.name} ended with {code}")


@contextmanager
def contenders(disk: Path) -> Iterator[tuple[Ours, list[Theirs], Floor, Shell]]:
    """All of them, up and with the image, on one disk."""
    layout = Layout(disk / "layout")
    add_image(layout)
    with ExitStack() as stack:
        node = stack.enter_context(making_node(disk / "n", config=f'[cni-bridge]\nsubnet = "{NETWORK}"\n'))
        node.layout.reload()
        add_image(node.layout)
        ours = stack.enter_context(closing(Ours(node, stack.enter_context(doorbell(node.network_file)))))
        theirs = []
        for start in (podman, docker):
            peer = stack.enter_context(start(disk / start.__name__))
            peer.load(layout.folder, IMAGE)
            theirs.append(Theirs(peer, stack.enter_context(doorbell(peer.inside.network))))
        run("umoci", "unpack", "--image", f"{layout.folder}:{IMAGE}", str(disk / "unpacked"))
        hand = stack.enter_context(by_hand(disk / "hand", disk / "unpacked" / "rootfs"))
        bell = stack.enter_context(doorbell(hand.inside.network))
        yield ours, theirs, Floor(hand, bell), Shell(hand, bell)
