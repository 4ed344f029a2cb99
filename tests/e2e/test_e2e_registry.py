"""Images from a real registry, on the node's loopback and without TLS, as the configuration allows."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import Server, TestNode, is_ready, making_node

pytestmark = pytest.mark.skipif(
    not (shutil.which("docker-registry") and shutil.which("skopeo")), reason="needs docker-registry and skopeo"
)
CONFIG = '[dockyard]\nplain_http = ["127.0.0.1:5000"]\nregistry = "127.0.0.1:5000"\n'
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
                source, target = f"oci:{made.layout.folder}:{name}", f"docker://127.0.0.1:5000/{name}"
                for tag in ("1", "latest"):
                    made.run("skopeo", "copy", "--dest-tls-verify=false", source, f"{target}:{tag}")
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
