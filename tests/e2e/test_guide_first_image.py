"""The guide's first image, built, checked, installed and used by the guide's own commands on a real node."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from catalogue import MINUTES, STATE, catalogue_node
from nodes import NANOCLOUD, TestNode
from tinyimages import Layout

pytestmark = pytest.mark.images
GUIDE = Path(__file__).parents[2] / "docs" / "images.md"
PASSWORD = "s3cret"


def guide() -> str:
    found = re.search(r"^## Your first image.*?(?=^## )", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found[0]


def written(folder: Path) -> None:
    """The files of the guide, as its reader makes them."""
    for title, text in re.findall(r'^```\w+ title="(drop/[^"]+)"\n(.*?)^```', guide(), re.MULTILINE | re.DOTALL):
        (folder / title).parent.mkdir(parents=True, exist_ok=True)
        (folder / title).write_text(text)


def dependant() -> str:
    found = re.search(r'title="a dependant\'s options.json"\n(.*?)^```', guide(), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader works."""
    made = tmp_path_factory.mktemp("guide")
    written(made)
    run_on_host(made, "nanocloud dockyard build ./drop")
    return made


@pytest.fixture(scope="module", name="node")
def guided_node(nodes_folder: Path, folder: Path) -> Iterator[TestNode]:
    with catalogue_node(nodes_folder) as node:
        yield node


def run_on_host(folder: Path, command: str) -> None:
    """Building needs packages, and a node of tests has no network; so it happens beside, in the tests' own state."""
    environment = {
        **os.environ,
        "NANOCLOUD_STATE_DIR": str(STATE),
        "PATH": f"{NANOCLOUD.parent}:{os.environ['PATH']}",
    }
    subprocess.run(["sh", "-euc", command], check=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL)


def run_block(node: TestNode, folder: Path, block: str) -> str:
    said = ""
    for line in block.splitlines():
        if line.startswith("nanocloud dockyard build "):
            run_on_host(folder, line)
            continue
        environment = {"PATH": f"{NANOCLOUD.parent}:{os.environ['PATH']}"}
        said += node.run("sh", "-euc", f"cd {folder}\n{line}", environment=environment, seconds=MINUTES).stdout
    return said


def test_the_guide_leads_to_a_service_that_others_can_use(node: TestNode, folder: Path) -> None:
    build, check, by_hand, again = re.findall(r"^```sh\n(.*?)^```", guide(), re.MULTILINE | re.DOTALL)
    assert "drop: gold at best" in run_block(node, folder, build)
    said = run_block(node, folder, check)
    assert "\ndrop: gold\n" in said
    assert "drop is ready" in said
    assert "me\n" in run_block(node, folder, by_hand)

    address = node.pod("drop")["status"]["podIP"]
    url = f"http://{address}:8080"
    ours = ("-u", f"me:{PASSWORD}")
    put = ("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", "-T", GUIDE)
    assert node.run(*put, *ours, f"{url}/guide.md").stdout == "201"
    assert node.run("curl", "-sSf", *ours, f"{url}/guide.md").stdout == GUIDE.read_text()
    assert node.run(*put, "-u", "me:wrong", f"{url}/guide.md").stdout == "401"
    assert node.run(*put, "-u", "../files/me:x", f"{url}/guide.md").stdout == "403"
    refused = node.cli("exec", "drop", "--", "/usr/lib/nanocloud/bindings/revoke_user", "../files/me/guide.md", code=64)
    assert "must be made of" in refused.stderr

    assert "drop is ready" in run_block(node, folder, again)
    image = Layout(node.folder / "apps").add(
        "app", command=["sleep", "1000000"], labels={"io.nanocloud.options": dependant()}
    )
    node.cli("install", "app", "--image", image, seconds=MINUTES)
    account = node.env_of("app")
    url = f"http://{node.pod('drop')['status']['podIP']}:8080"
    theirs = ("-u", f"{account['STORE_USER']}:{account['STORE_PASSWORD']}")
    assert node.run(*put, *theirs, f"{url}/a/b").stdout == "201"
    node.cli("uninstall", "app", seconds=MINUTES)
    assert node.run(*put, *theirs, f"{url}/a/b").stdout == "403"
    assert "b" in node.cli("exec", "drop", "--", "ls", "/var/lib/drop/files/app/a").stdout
