"""Bad input: the exit status, one clear error that names what is wrong, and a node that is as it was."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from inventory import take_inventory
from nodes import TestNode, is_gone, is_ready, making_node, phase
from tinyimages import Layout

from nanocloud.client.api import bundles_path

SERVE = {"/serve.sh": "#!/bin/sh\necho up\nexec sleep 100000\n"}
LABELS: dict[str, Any] = {
    "choosy": {"size=small": [], "size=large": [], "needed": []},
    "roomy": {"volume_1": ["/data"], "volume_size_1": ["32Mi"]},
    "nojson": "{not json",
    "nopath": {"volume_1": ["data"]},
    "noname": {"a b": ["x"]},
    "ported": {"port_1": ["18081->80"]},
    "rival": {"port_1": ["18081->80"]},
    "rotten": {},
    "forged": {},
}


@pytest.fixture(scope="module")
def node(nodes_folder: Any) -> Iterator[TestNode]:
    with making_node(nodes_folder / "input") as made:
        for name, options in LABELS.items():
            files = SERVE if name in ("ported", "rival", "roomy") else {"/serve.sh": f"#!/bin/sh\necho {name}\n"}
            made.layout.add(name, command=["/serve.sh"], files=files, labels={"io.nanocloud.options": options})
        rotten = own_layer(made.layout, "rotten")
        rotten.write_bytes(rotten.read_bytes()[:-20] + bytes(20))
        forged = own_layer(made.layout, "forged")
        forged.write_bytes(gzip.compress(b"other content of the same form", mtime=0))
        made.create("tinydb")  # so that what is made once is there
        made.until("bundles", "tinydb", is_ready)
        made.request("DELETE", bundles_path("default", "tinydb"))
        made.until("bundles", "tinydb", is_gone)
        yield made


def own_layer(layout: Layout, name: str) -> Any:
    """The blob of the layer that only this image has."""
    blobs = layout.folder / "blobs" / "sha256"
    for entry in json.loads((layout.folder / "index.json").read_text())["manifests"]:
        if entry["annotations"]["org.opencontainers.image.ref.name"] == name:
            manifest = json.loads((blobs / entry["digest"].partition(":")[2]).read_text())
            return blobs / manifest["layers"][-1]["digest"].partition(":")[2]
    raise LookupError(name)


@pytest.fixture(autouse=True)
def _as_before(node: TestNode) -> Iterator[None]:
    before = take_inventory(node)
    yield
    assert node.request("GET", bundles_path(None))["items"] == []
    assert take_inventory(node) == before


FAILED, USAGE = 1, 2
REFUSED: dict[str, tuple[str, int, str]] = {
    "an unknown service": ("tinydv", FAILED, r"no service 'tinydv'; did you mean tinydb"),
    "an unknown option": ("tinydb -o prot=1", FAILED, r"prot: .* did you mean port"),
    "a value outside the choices": ("choosy -o size=medium", FAILED, r"size: 'medium' is not a choice; .*small, large"),
    "a value that is missing": ("choosy", USAGE, r"one option that has no default: needed \(any text\)"),
    "a layout that is not there": ("tinydb --image oci:/nowhere:x", FAILED, r"oci:/nowhere"),
    "a tag that is not in the layout": ("tinydb --image oci:{layout}:tinydv", FAILED, r"tinydv"),
    "a registry that does not answer": ("tinydb --image 127.0.0.1:5999/x:1", FAILED, r"127\.0\.0\.1:5999"),
    "an image reference of no form": ("tinydb --image :x", FAILED, r'spec\.image: ":x"'),
    "a size of no form": ("roomy -o volume_size_1=much", FAILED, r"volume_size_1: 'much' is not a size; .*Mi"),
    "a name in capitals": ("TinyDB", FAILED, r'"TinyDB": must be an RFC 1123 label'),
    "a name that climbs": ("../tinydb", FAILED, r"'\.\.' is not a name"),
    "a name that is too long": ("a" * 64, FAILED, r"at most 63 characters"),
    "a namespace in capitals": ("tinydb -n Bad", FAILED, r"'Bad' is not a namespace"),
    "a namespace that is not there": ("tinydb -n other", FAILED, r'namespaces "other" not found'),
    "a label that is not JSON": ("nojson", FAILED, r"io\.nanocloud\.options: line 1 column 2: is not JSON"),
    "a label with a relative path": ("nopath", FAILED, r"io\.nanocloud\.options\[\"volume_1\"\]: .*'data'"),
    "a label with a bad name": ("noname", FAILED, r"io\.nanocloud\.options\[\"a b\"\]: .* is not an option name"),
    "an option without a value": ("tinydb -o port", USAGE, r"'port' is not KEY=VALUE"),
    "an option given twice": ("tinydb -o port=1 -o port=2", USAGE, r"port is given twice"),
    "a time of no form": ("tinydb --timeout soon", USAGE, r"'soon' is not a duration"),
    "a switch that is not there": ("tinydb --frobnicate", USAGE, r"No such option.*--frobnicate"),
    # These are found out when the pod is prepared; the installation is taken back.
    "a layer whose bytes are broken": ("rotten", FAILED, r"ErrImagePull: .*sha256:"),
    "a layer with another content": ("forged", FAILED, r"ErrImagePull: .*sha256:"),
    "a volume larger than the disk": ("roomy -o volume_size_1=4Ti", FAILED, r"VolumeFull: .*4 TiB.* has .*GiB"),
    "a volume beyond what there can be": ("roomy -o volume_size_1=9Ti", FAILED, r"16 MiB to 8 TiB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_install_refuses(node: TestNode, case: str) -> None:
    words, code, message = REFUSED[case]
    done = node.cli("install", *words.format(layout=node.layout.folder).split(), code=code)
    errors = [line for line in done.stderr.splitlines() if line.lower().startswith("error:")]
    assert len(errors) == 1, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) <= 4


def test_a_port_that_a_program_holds_is_told_with_the_program(node: TestNode) -> None:
    with node.entered():
        listener = socket.create_server(("127.0.0.1", 18081))
    with listener:
        said = node.cli("install", "ported", code=FAILED).stderr
    assert re.search(rf"PortInUse: host port 18081/tcp is held by .* \(pid {os.getpid()}\)", said)


def test_a_port_that_a_service_holds_is_told_with_the_service(node: TestNode) -> None:
    node.cli("install", "ported")
    said = node.cli("install", "rival", code=FAILED).stderr
    assert re.search(r"PortInUse: host port 18081/tcp is held by .*default/ported-0", said)
    assert is_ready(node.bundle("ported"))
    node.cli("uninstall", "ported")


def test_a_volume_holds_what_was_asked_for_and_no_more(node: TestNode) -> None:
    node.cli("install", "roomy", "-o", "volume_size_1=48Mi")
    fits = node.cli("exec", "roomy", "--", "sh", "-c", "dd if=/dev/zero of=/data/file bs=1M count=42")
    assert "42+0 records out" in fits.stderr
    full = node.cli("exec", "roomy", "--", "sh", "-c", "dd if=/dev/zero of=/data/file bs=1M count=60", code=1)
    assert "No space left on device" in full.stderr
    size = node.cli("exec", "roomy", "--", "sh", "-c", "stat -c %s /data/file").stdout
    assert 42 * 1024 * 1024 < int(size) <= 48 * 1024 * 1024
    node.cli("uninstall", "roomy")


APPLIED: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown service": ({"service": "tinydv"}, "ImageNotFound", "did you mean tinydb"),
    "an unknown option": ({"service": "tinydb", "options": {"prot": "1"}}, "OptionsInvalid", "prot"),
    "a broken label": ({"service": "nojson"}, "LabelInvalid", "is not JSON"),
    "a broken layer": ({"service": "rotten"}, "ErrImagePull", "sha256:"),
}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
class TestKubectl:
    @pytest.fixture(autouse=True)
    def _kubeconfig(self, node: TestNode) -> None:
        if not (node.home / ".kube/config").exists():
            node.run("sh", stdin=node.cli("config").stdout)

    @pytest.mark.parametrize("case", APPLIED)
    def test_an_applied_bundle_that_cannot_be_says_so_in_conditions_and_events(self, node: TestNode, case: str) -> None:
        spec, reason, message = APPLIED[case]
        name = spec["service"]
        body = {"apiVersion": "nanocloud.io/v1", "kind": "Bundle", "metadata": {"name": name}, "spec": spec}
        node.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        found = node.until("bundles", name, lambda bundle: phase(bundle) == "Failed")
        assert found is not None
        status = found["status"]
        assert status["reason"] == reason
        assert message in status["message"]
        assert any(c["status"] == "False" and c["reason"] == reason for c in status["conditions"])
        told = [e for e in node.events() if e["involvedObject"]["uid"] == found["metadata"]["uid"]]
        assert any(e["type"] == "Warning" and message in e["message"] for e in told), told
        node.kubectl("delete", "bundle", name)

    def test_a_bundle_of_no_form_is_refused_with_the_field(self, node: TestNode) -> None:
        body = {
            "apiVersion": "nanocloud.io/v1",
            "kind": "Bundle",
            "metadata": {"name": "x"},
            "spec": {"service": "tinydb", "start": "yes", "optoins": {}},
        }
        said = node.kubectl("apply", "-f", "-", stdin=json.dumps(body), code=1).stderr
        assert "optoins" in said
        del body["spec"]["optoins"]
        said = node.kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(body), code=1).stderr
        assert said == 'The Bundle "x" is invalid: spec.start: must be true or false, not "yes"\n'
