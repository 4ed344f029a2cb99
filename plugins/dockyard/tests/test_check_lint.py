"""What a check says of an image's files: each rule on an image that breaks it and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from nanocloud.planning.label import image_contract
from nanocloud.providers.image import Digest, Image, ImageConfig
from nanocloud_dockyard.check.findings import RULES, Finding, Level, level_of
from nanocloud_dockyard.check.lint import MAX_SIZE_BYTES, lint
from nanocloud_dockyard.check.memory import memory_of
from nanocloud_dockyard.check.residue import traces_left
from nanocloud_dockyard.check.subject import Subject
from nanocloud_dockyard.check.tree import ImageTree
from nanocloud_dockyard.check.variations import shown, variations

NOW = 1_800_000_000.0  # 2027-01-15
USER = 1234
BINDINGS = "usr/lib/nanocloud/bindings"
SCRIPT = "#!/bin/sh\nexit 0\n"
FILES: dict[str, str] = {
    "bin/sh": "\x7fELF",
    "usr/bin/env": "\x7fELF",
    "etc/passwd": f"root:x:0:0::/:/bin/sh\nthing:x:{USER}:{USER}::/:/bin/sh\n",
    "etc/group": f"root:x:0:\nthing:x:{USER}:\n",
    "usr/lib/nanocloud/start.sh": SCRIPT,
    "usr/lib/nanocloud/ready.sh": SCRIPT,
    f"{BINDINGS}/create_user": SCRIPT,
    f"{BINDINGS}/verify_user": SCRIPT,
    f"{BINDINGS}/revoke_user": SCRIPT,
}
OPTIONS: dict[str, Any] = {
    "port_1": ["80"],
    "volume_1": ["/data"],
    "password": ["!rand 24 alnum"],
    "env_PASSWORD": ["*password", "$password"],
}
EXPORTS: dict[str, Any] = {
    "options": ["host"],
    "bindings": ["create_user", "verify_user", "revoke_user"],
    "owned": {"create_user": [1]},
}
CONFIG: dict[str, Any] = {
    "entrypoint": ("/usr/lib/nanocloud/start.sh",),
    "user": "thing",
    "exposed_ports": ("80/tcp",),
    "volumes": ("/data",),
}


def write(root: Path, files: Mapping[str, str | None]) -> Path:
    for name, text in files.items():
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
    return root


@pytest.fixture
def subject(tmp_path: Path) -> Callable[..., Subject]:
    """A good image with some of it replaced; None takes a file away."""

    def make(
        *,
        files: Mapping[str, str | None] | None = None,
        options: Mapping[str, Any] | None = None,
        exports: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        size_bytes: int = 1,
        has_stop_signal: bool = True,
        created: str = "2027-01-01T00:00:00Z",
        owner: int = USER,
        **config: Any,
    ) -> Subject:
        layer = write(tmp_path / "layer", FILES | dict(files or {}))
        (layer / "data").mkdir(exist_ok=True)
        os.chown(layer / "data", owner, owner)
        said = {
            "io.nanocloud.options": json.dumps(OPTIONS | dict(options or {})),
            "io.nanocloud.exports": json.dumps(EXPORTS | dict(exports or {})),
            **(labels or {}),
        }
        image = Image(
            reference="thing",
            digest=Digest("sha256:" + "ab" * 32),
            config=ImageConfig(labels=said, **(CONFIG | config)),
            size_bytes=size_bytes,
        )
        return Subject(image=image, tree=ImageTree([layer]), has_stop_signal=has_stop_signal, created=created)

    return make


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other users")


@needs_root
def test_a_good_image_is_gold(subject: Callable[..., Subject]) -> None:
    assert lint(subject(), now=NOW) == []
    assert level_of([]) is Level.GOLD


BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("label", {"labels": {"io.nanocloud.options": '{"a": ["!"]}'}}, "io.nanocloud.options"),
    ("label", {"labels": {"io.nanocloud.exports": '{"optionen": []}'}}, "io.nanocloud.exports"),
    ("label", {"labels": {"io.nanocloud.capabilities": "chown"}}, "io.nanocloud.capabilities"),
    ("no-options", {"labels": {"io.nanocloud.options": "{}"}}, "io.nanocloud.options"),
    ("export-option", {"exports": {"options": ["hostname"]}}, "hostname"),
    ("export-binding", {"files": {f"{BINDINGS}/verify_user": None}}, "verify_user"),
    ("binding-unexported", {"files": {f"{BINDINGS}/extra": SCRIPT}}, "extra"),
    ("binding-owned", {"exports": {"owned": {}}}, "create_user"),
    ("companion-alone", {"exports": {"bindings": ["verify_user", "revoke_user"], "owned": {}}}, "no create_user"),
    ("no-verify", {"exports": {"bindings": ["create_user", "revoke_user"]}}, "create_user"),
    ("no-revoke", {"exports": {"bindings": ["create_user", "verify_user"]}}, "create_user"),
    ("capabilities", {"labels": {"io.nanocloud.capabilities": "CAP_CHOWN"}}, "CHOWN"),
    ("default-secret", {"options": {"admin_password": ["hunter2"]}}, "admin_password"),
    ("default-secret", {"options": {"secret_1": ["key"], "key": ["hunter2"]}}, "key"),
    ("default-secret", {"options": {"env_API_KEY": ["hunter2"]}}, "env_API_KEY"),
    ("port-undeclared", {"exposed_ports": ("80/tcp", "81/udp")}, "81/udp"),
    ("start-command", {"entrypoint": ()}, "not set"),
    ("start-command", {"entrypoint": ("/usr/sbin/thing",)}, "/usr/sbin/thing"),
    ("user-unknown", {"user": "nobody-here"}, "nobody-here"),
    ("user-root", {"user": ""}, "root"),
    ("environment-secret", {"environment": {"ROOT_PASSWORD": "hunter2"}}, "ROOT_PASSWORD"),
    ("stop-signal", {"has_stop_signal": False}, "STOPSIGNAL"),
    ("no-ready-script", {"files": {"usr/lib/nanocloud/ready.sh": None}}, "ready.sh"),
    ("script-interpreter", {"files": {"usr/lib/nanocloud/ready.sh": "#!/usr/bin/perl\n"}}, "/usr/bin/perl"),
    ("script-interpreter", {"files": {f"{BINDINGS}/create_user": "#!/usr/bin/env python3\n"}}, "env python3"),
    ("script-interpreter", {"files": {f"{BINDINGS}/create_user": "echo hello\n"}}, "nor begins with #!"),
    ("script-syntax", {"files": {f"{BINDINGS}/create_user": "#!/bin/sh\nif true; then\n"}}, "create_user"),
    ("volume-undeclared", {"volumes": ("/data", "/cache")}, "/cache"),
    ("volume-path", {"options": {"volume_2": ["/more"]}}, "/more"),
    ("volume-path", {"owner": 0}, "belongs to user 0"),
    ("image-size", {"size_bytes": MAX_SIZE_BYTES + 1}, "1024 MiB"),
    ("image-age", {"created": "2026-01-01T00:00:00Z"}, "379 days"),
]


@needs_root
@pytest.mark.parametrize(("rule", "change", "told"), BROKEN)
def test_each_rule_is_told_of_what_breaks_it(
    subject: Callable[..., Subject], rule: str, change: dict[str, Any], told: str
) -> None:
    made = subject(**change)
    found = [finding for finding in lint(made, now=NOW) if finding.rule == rule]
    assert any(told in f"{finding.where} {finding.message}" for finding in found), lint(made, now=NOW)
    assert level_of(found) is RULES[rule].at_best


@needs_root
def test_who_runs_a_script_must_be_able_to(subject: Callable[..., Subject], tmp_path: Path) -> None:
    made = subject()
    (tmp_path / "layer" / BINDINGS / "create_user").chmod(0o700)
    ready = tmp_path / "layer/usr/lib/nanocloud/ready.sh"
    ready.chmod(0o700)
    assert {f.where for f in lint(made, now=NOW) if f.rule == "script-mode"} == {
        f"/{BINDINGS}/create_user",
        "/usr/lib/nanocloud/ready.sh",
    }
    os.chown(ready, USER, USER)
    assert "/usr/lib/nanocloud/ready.sh" not in {f.where for f in lint(made, now=NOW)}


def test_every_rule_that_looks_at_files_has_a_test() -> None:
    of_trials = {"install", "not-tried", "slow-ready", "idle-memory", "residue"}
    of_trials |= {name for name in RULES if name.startswith("account-")}
    assert {rule for rule, _, _ in BROKEN} | {"script-mode"} | of_trials == RULES.keys()


def test_the_worst_finding_decides_the_level() -> None:
    gold, silver, bronze = (Finding(rule, "", "") for rule in ("no-options", "stop-signal", "user-root"))
    refused = Finding("label", "", "")
    assert [level_of(found) for found in ([gold], [gold, silver], [silver, bronze], [refused, bronze])] == [
        Level.GOLD,
        Level.SILVER,
        Level.BRONZE,
        Level.REFUSED,
    ]
    assert [finding.severity for finding in (gold, silver, bronze, refused)] == ["info", "warning", "warning", "error"]


def test_a_script_that_would_do_harm_is_only_parsed(subject: Callable[..., Subject], tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    made = subject(owner=os.getuid(), files={f"{BINDINGS}/create_user": f"#!/bin/sh\n$(touch {mark})\ntouch {mark}\n"})
    lint(made, now=NOW)
    assert not mark.exists()


# ---- the tree --------------------------------------------------------------------------------------------------------


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    lower = write(tmp_path / "1", {"etc/a": "lower a", "etc/b": "lower b", "opt/x/y": "y", "usr/bin/tool": "tool"})
    upper = write(tmp_path / "2", {"etc/b": "upper b", "etc/c": "c"})
    (upper / "bin").symlink_to("usr/bin")
    (upper / "etc/out").symlink_to("../../../../../../etc/passwd")
    (upper / "etc/abs").symlink_to("/opt/x/y")
    (upper / "etc/loop").symlink_to("loop")
    return [lower, upper]


def test_layers_are_read_as_one(layers: list[Path]) -> None:
    tree = ImageTree(layers)
    assert tree.names("/etc") == ["a", "abs", "b", "c", "loop", "out"]
    assert [tree.read(f"/etc/{name}") for name in ("a", "b", "c", "none")] == [b"lower a", b"upper b", b"c", None]
    assert tree.read("/bin/tool") == b"tool"
    assert tree.read("/etc/abs") == b"y"


def test_no_link_leads_out_of_the_image(layers: list[Path]) -> None:
    tree = ImageTree(layers)
    assert tree.find("/etc/out") is None  # the image has no /etc/passwd; this machine has
    assert tree.find("/../../../../etc/passwd") is None
    assert tree.find("/etc/loop") is None
    assert tree.find("/etc/a/b") is None


@needs_root
def test_what_an_upper_layer_took_away_is_gone(layers: list[Path]) -> None:
    os.mknod(layers[1] / "etc/a", 0o020000, os.makedev(0, 0))
    (layers[1] / "opt").mkdir()
    (layers[1] / "opt/x").mkdir()
    os.setxattr(layers[1] / "opt/x", "trusted.overlay.opaque", b"y")
    tree = ImageTree(layers)
    assert tree.find("/etc/a") is None
    assert "a" not in tree.names("/etc")
    assert tree.names("/opt/x") == []


def test_a_fifo_does_not_hold_a_check_up(layers: list[Path]) -> None:
    os.mkfifo(layers[1] / "etc/fifo")
    assert ImageTree(layers).read("/etc/fifo") is None


# ---- trials ----------------------------------------------------------------------------------------------------------


def tried(options: Mapping[str, Any], **given: str) -> list[str]:
    contract = image_contract({"io.nanocloud.options": json.dumps(options)})
    return [shown(each) for each in variations(contract, given)]


CHOICES: dict[str, Any] = {
    "database=&mariadb": ["*database_host"],
    "database=file": [],
    "?transport=plain": [],
    "?transport=tls": ["*database=mariadb"],
    "free": ["x"],
}


def test_every_choice_is_tried_once() -> None:
    assert tried(CHOICES) == [
        "defaults",
        "database=file",
        "transport=plain",
        "database=mariadb transport=tls",
    ]


def test_a_given_option_is_not_varied() -> None:
    assert tried(CHOICES, database="file", transport="plain") == ["database=file transport=plain"]
    assert tried({"free": ["x"]}) == ["defaults"]


@pytest.mark.parametrize(
    ("usage", "cache"), [("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")]
)
def test_memory_is_what_the_kernel_cannot_take_back(tmp_path: Path, usage: str, cache: str) -> None:
    group = tmp_path / "memory" / "nanocloud" / "c0ffee"
    group.mkdir(parents=True)
    (group / usage).write_text("1000\n")
    (group / "memory.stat").write_text(f"anon 600\n{cache} 400\n")
    assert memory_of("c0ffee", tmp_path) == 600
    assert memory_of("decaf", tmp_path) is None


def test_traces_are_those_that_bear_the_name(tmp_path: Path) -> None:
    from nanocloud.config import NodeConfig

    config = NodeConfig(state_dir=tmp_path / "s", run_dir=tmp_path / "r")
    write(tmp_path, {"s/volumes/check-1.data/mount/x": "", "s/keyspace/check-1": "", "r/other": ""})
    found = traces_left(config, ["check-1"])
    assert str(tmp_path / "s/volumes/check-1.data") in found
    assert not any("keyspace" in trace or "other" in trace for trace in found)
    shutil.rmtree(tmp_path / "s")
    assert traces_left(config, ["check-1"]) == []
