"""Plans on a real node: what would happen is shown, then happens, then nothing is left to do; and what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import NANOCLOUD, TestNode, making_node
from terminals import terminal
from tinyimages import DATABASE_FILES

from nanocloud.client.api import bundles_path

NEEDY = {
    "domain": [],
    "admin_token": [],
    "secret_1": ["admin_token"],
    "port_1": [],
    "mode=fast": [],
    "mode=safe": [],
    "env_DOMAIN": ["*domain", "$domain"],
    "env_TOKEN": ["*admin_token", "$admin_token"],
}
"""A service that cannot do without a few values."""


@pytest.fixture(scope="module")
def node(nodes_folder: Path) -> Iterator[TestNode]:
    with making_node(nodes_folder / "plans", start=False) as made:
        made.layout.add(
            "needy",
            command=["/serve.sh"],
            files=DATABASE_FILES,
            labels={"io.nanocloud.options": NEEDY},
        )
        made.start()
        yield made


@pytest.fixture(autouse=True)
def clean(node: TestNode) -> Iterator[None]:
    """Every test begins and ends with nothing installed."""
    yield
    for bundle in node.request("GET", bundles_path(None))["items"]:
        name = bundle["metadata"]["name"]
        if node.get("bundles", name) is not None:
            node.cli("uninstall", name, "--force")


# ---- required options ------------------------------------------------------------------------------------------------


def test_on_a_terminal_a_missing_option_is_asked_for_and_a_secret_not_shown(node: TestNode) -> None:
    with terminal(node.inside(NANOCLOUD, "install", "needy", "--option", "mode=safe"), node.environment) as typing:
        typing.wait_for("needy needs 3 options that have no default")
        typing.wait_for(r"domain \(any text\): ")
        typing.type("")
        typing.wait_for("a value is needed")
        typing.wait_for(r"domain \(any text\): ")
        typing.type("example.org")
        typing.wait_for(r"admin_token \(secret\): ")
        typing.type("hunter2")
        typing.wait_for(r"port_1 \(port\[/proto\], or .*\): ")
        typing.type("eighty")
        typing.wait_for(r"write port\[/proto\], or ")
        typing.wait_for(r"port_1 \(port\[/proto\], or .*\): ")
        typing.type("80")
        assert typing.end() == 0, typing.text
    assert "needy is ready" in typing.text
    assert "hunter2" not in typing.text
    assert node.env_of("needy") | {"DOMAIN": "example.org", "TOKEN": "hunter2"} == node.env_of("needy")
    options = node.bundle("needy")["status"]["options"]
    assert (options["mode"], options["port_1"], options["admin_token"]) == ("safe", "80", "********")


def test_elsewhere_the_list_of_missing_options_is_the_error(node: TestNode) -> None:
    said = node.cli("install", "needy", "--option", "port_1=80", code=2).stderr
    assert said == (
        "error: needy needs 2 options that have no default: domain (any text), admin_token (secret)\n"
        "  add --option domain=VALUE --option-file admin_token=FILE\n"
    )
    assert node.get("bundles", "needy") is None
    # Another mistake is told first, and a dry run asks for the same.
    assert "'quick' is not a choice" in node.cli("install", "needy", "-o", "mode=quick", code=1).stderr
    most = ("install", "needy", "-o", "port_1=80", "-o", "domain=x")
    assert "needs one option that has no default: admin_token" in node.cli(*most, "--dry-run", code=1).stderr


def test_a_secret_can_come_from_a_file(node: TestNode, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("line one\nline two\n")
    node.cli("install", "needy", "-o", "port_1=80", "-o", "domain=x", "--option-file", f"admin_token={file}")
    said = node.cli("exec", "needy", "--", "sh", "-c", 'echo "$TOKEN"').stdout
    assert said == "line one\nline two\n"


def test_a_dependencys_missing_options_are_told_as_its_own(node: TestNode) -> None:
    node.layout.add("leaner", command=["/serve.sh"], labels={"io.nanocloud.options": {"helper=&needy": []}})
    said = node.cli("install", "leaner", code=1).stderr
    assert "service needy, which comes first: options are invalid: domain: is required and has no default" in said
    assert "install needy by itself first" in said
    assert node.request("GET", bundles_path(None))["items"] == []
