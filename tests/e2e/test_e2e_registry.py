"""Images from a real registry, on the node's loopback and without TLS, as the configuration allows."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nodes import Server, TestNode, is_ready, making_node

pytestmark = pytest.mark.skipif(
    not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="needs docker-registry and skopeo"
)
CONFIG = """\
[dockyard]
plain_http = ["127.0.0.1:5000"]
registry = "127.0.0.1:5000"

[node]
keep_unused_images_seconds = 2
"""
REGISTRY = """\
version: 0.1
log: {{level: info}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:5000"}}
"""


@pytest.fixture(scope="module")
def node(nodes_folder: Path) -> Iterator[TestNode]:
    """A node whose layout is empty: what was in it is in the registry now."""
    with making_node(nodes_folder / "registry", config=CONFIG) as made:
        file = made.folder / "registry.yaml"
        file.write_text(REGISTRY.format(folder=made.folder / "blobs"))
        registry = Server(made.inside("docker-registry", "serve", file), made.environment)
        try:
            registry.wait_for_line("listening on")
            for name in ("tinydb", "tinyapp"):
                for tag in ("1", "latest"):
                    made.cli("dockyard", "push", name, f"127.0.0.1:5000/{name}:{tag}")
            shutil.rmtree(made.layout.folder)
            yield made
        finally:
            registry.end(signal.SIGKILL)


def test_an_image_is_installed_from_a_registry(node: TestNode) -> None:
    node.cli("install", "tinydb", "--image", "127.0.0.1:5000/tinydb:1")
    bundle = node.bundle("tinydb")
    assert bundle["status"]["image"].startswith("127.0.0.1:5000/tinydb@sha256:")
    assert node.cli("logs", "tinydb").stdout == "database is starting\n"
    node.cli("uninstall", "tinydb")


def test_a_service_comes_from_the_configured_registry_with_what_it_needs(node: TestNode) -> None:
    node.cli("install", "tinyapp")
    assert is_ready(node.bundle("tinydb"))
    node.cli("uninstall", "tinyapp")


def test_a_tag_that_the_registry_lacks_is_named(node: TestNode) -> None:
    said = node.cli("install", "tinydb", "--image", "127.0.0.1:5000/tinydb:2", code=1).stderr
    assert "127.0.0.1:5000/tinydb" in said
    assert len(said.splitlines()) <= 2


def test_a_host_that_was_not_named_is_not_spoken_to_in_plaintext(node: TestNode) -> None:
    said = node.cli("install", "tinydb", "--image", "localhost:5000/tinydb:1", code=1).stderr
    assert "localhost:5000" in said


def test_what_nothing_uses_any_more_leaves_the_disk_and_shared_layers_stay(node: TestNode) -> None:
    """``tinydb`` and ``tinyapp`` have their lower layer in common; each also has one that was made for its stack."""
    folder = node.state_dir / "images" / "layers"

    def layers() -> int:
        return sum(not path.name.startswith(".") for path in folder.iterdir())

    node.cli("install", "tinyapp")
    wait_until(lambda: layers() == 5)
    node.cli("uninstall", "tinyapp", "--keep-services")
    wait_until(lambda: layers() == 3)
    assert is_ready(node.bundle("tinydb"))
    node.cli("restart", "tinydb")
    node.cli("uninstall", "tinydb")
    wait_until(lambda: not list(folder.iterdir()))
    assert not list((node.state_dir / "images" / "images").iterdir())
    node.cli("install", "tinydb")  # fetched again
    assert layers() == 3
    node.cli("uninstall", "tinydb")


def test_an_archive_is_installed_and_pushed(node: TestNode) -> None:
    archive = node.folder / "tinydb.tar"
    node.run("skopeo", "copy", "--src-tls-verify=false", "docker://127.0.0.1:5000/tinydb:1", f"oci-archive:{archive}:x")
    said = node.cli("dockyard", "push", f"oci-archive:{archive}:x", "127.0.0.1:5000/other/tinydb").stdout
    node.cli("install", "tinydb", "--image", f"oci-archive:{archive}:x")
    image = node.bundle("tinydb")["status"]["image"]
    assert image.startswith(f"oci-archive:{archive}")
    assert image.rpartition("@")[2] == said.strip().rpartition("@")[2]
    node.cli("uninstall", "tinydb")


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.05)
