"""A profile leaves a real node as a file, and the service comes back from it with the same passwords."""

from __future__ import annotations

import json
import stat
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nodes import TestNode, is_gone


@pytest.fixture(scope="module")
def app(node: TestNode) -> Iterator[TestNode]:
    """The node with ``tinyapp`` installed, with an option given."""
    node.cli("install", "tinyapp", "--option", "user=myapp")
    yield node
    for service in ("tinyapp", "copy", "tinydb"):
        if node.get("bundles", service) is not None:
            node.cli("uninstall", service)


def profile_in(file: Path) -> dict[str, Any]:
    with tarfile.open(file) as archive:
        assert archive.getnames() == ["manifest.json", "profile.json"]
        member = archive.extractfile("profile.json")
        assert member is not None
        found: dict[str, Any] = json.loads(member.read())
        return found


def decided(file: Path) -> dict[str, Any]:
    """What an export says of the service, but for ciphertext and what was its time."""
    document = profile_in(file)
    profile = document["profile"]
    options = {name: option.get("value", "secret") for name, option in profile["options"].items()}
    return {"spec": document["spec"] | {"options": []}, "image": profile["image"], "options": options}


def test_a_service_comes_back_from_its_profile_with_its_password(app: TestNode, tmp_path: Path) -> None:
    password, users = app.env_of("tinyapp")["DB_PASSWORD"], app.cli("exec", "tinydb", "--", "cat", "/data/users").stdout
    file, again = tmp_path / "app.tar", tmp_path / "again.tar"
    assert (
        "only this node can read them"
        in app.cli("bundle", "export", "tinyapp", "--secrets", "--output", str(file)).stdout
    )
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert password.encode() not in file.read_bytes()
    app.cli("uninstall", "tinyapp")
    app.until("bundles", "tinydb", is_gone)

    assert "tinyapp is ready" in app.cli("bundle", "import", str(file)).stdout
    assert app.env_of("tinyapp")["DB_PASSWORD"] == password
    # The database is a new one, with an empty volume: the same account was made in it.
    assert app.cli("exec", "tinydb", "--", "cat", "/data/users").stdout == users
    app.cli("bundle", "export", "tinyapp", "--secrets", "--output", str(again))
    assert decided(again) == decided(file)
    assert app.bundle("tinyapp")["spec"]["options"] == {"user": "myapp"}


def test_a_changed_export_makes_nothing(app: TestNode, tmp_path: Path) -> None:
    file = tmp_path / "app.tar"
    app.cli("bundle", "export", "tinyapp", "--output", str(file))
    for place in (b'"user"', b'"digest"', b"tinydb", b'"hmac"'):
        data = file.read_bytes()
        changed = tmp_path / "changed.tar"
        changed.write_bytes(data.replace(place, place[:-2] + b"x" + place[-1:], 1))
        done = app.cli("bundle", "import", str(changed), "--name", "copy", code=1)
        assert done.stderr.startswith("error: the export was changed, or is none")
    assert app.get("bundles", "copy") is None


def test_a_taken_name_is_refused_and_another_stands_beside_it(app: TestNode, tmp_path: Path) -> None:
    file = tmp_path / "app.tar"
    app.cli("bundle", "export", "tinyapp", "--secrets", "--output", str(file))
    assert "already exists" in app.cli("bundle", "import", str(file), code=1).stderr
    assert "exists already" in app.cli("bundle", "export", "tinyapp", "--output", str(file), code=2).stderr
    done = app.run(
        *("sh", "-c", "nanocloud bundle export tinyapp -o - | nanocloud bundle import - --name copy -o user=copyapp"),
        environment={"PATH": f"{Path(sys.executable).parent}:{app.environment['PATH']}"},
    )
    assert "decided anew: env_DB_PASSWORD, password" in done.stdout
    assert app.env_of("copy")["DB_PASSWORD"] != app.env_of("tinyapp")["DB_PASSWORD"]
    app.cli("uninstall", "copy")


def test_another_nodes_profile_is_refused_by_name(
    app: TestNode, new_node: Callable[..., TestNode], tmp_path: Path
) -> None:
    file = tmp_path / "app.tar"
    app.cli("bundle", "export", "tinyapp", "--secrets", "--output", str(file))
    other = new_node()
    done = other.cli("bundle", "import", str(file), code=1)
    assert "was made by another node" in done.stderr
    assert "import it on the node that made it" in done.stderr
    assert other.get("bundles", "tinyapp") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "no profile export"), (b"x" * 2000, "no tar file"), (bytes(3 * 1024 * 1024 + 1), "larger than")],
)
def test_what_is_no_export_is_told(app: TestNode, tmp_path: Path, content: bytes, told: str) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(content)
    done = app.cli("bundle", "import", str(file), code=None)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "cannot read" in app.cli("bundle", "import", str(tmp_path / "none"), code=2).stderr
