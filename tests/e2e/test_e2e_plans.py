"""Plans on a real node: what would happen is shown, then happens, then nothing is left to do; and what is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import NANOCLOUD, TestNode, is_ready, making_node
from terminals import END_OF_INPUT, terminal
from tinyimages import APP_FILES, APP_OPTIONS, DATABASE_EXPORTS, DATABASE_FILES, DATABASE_OPTIONS

from nanocloud.client.api import ApiError, bundles_path, core_path

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
            # What nothing needs any more goes by itself, perhaps before this command comes to it.
            done = node.cli("uninstall", name, "--force", code=None)
            assert done.returncode == 0 or node.get("bundles", name) is None, done.stderr


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


def test_whoever_does_not_answer_installs_nothing(node: TestNode) -> None:
    with terminal(node.inside(NANOCLOUD, "install", "needy"), node.environment) as typing:
        typing.wait_for(r"domain \(any text\): ")
        typing.press(END_OF_INPUT)
        assert typing.end() == 1
    assert "aborted" in typing.text
    assert node.get("bundles", "needy") is None


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


# ---- plans -----------------------------------------------------------------------------------------------------------

DATABASE = {"apiVersion": "nanocloud.io/v1", "kind": "Bundle", "metadata": {"name": "tinydb"}}
SERVICES = """
apiVersion: nanocloud.io/v1
kind: Bundle
metadata: {name: tinydb, labels: {team: green}}
spec:
  service: tinydb
---
apiVersion: nanocloud.io/v1
kind: Bundle
metadata: {name: tinyapp}
spec:
  service: tinyapp
  options: {user: app}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "services.yaml"
    found.write_text(SERVICES)
    return found


def test_after_an_installation_its_plan_is_empty(node: TestNode) -> None:
    shown = node.cli("install", "tinyapp", "--dry-run", code=2).stdout
    assert "install tinydb (tinydb)" in shown
    node.cli("install", "tinyapp")
    assert node.cli("install", "tinyapp", "--dry-run", code=0).stdout == "change tinyapp (tinyapp)\n  no changes\n"
    assert node.cli("install", "tinydb", "--dry-run", code=0).stdout == "change tinydb (tinydb)\n  no changes\n"
    changed = node.cli("install", "tinyapp", "-o", "port_1=8081", "--dry-run", code=2).stdout.splitlines()
    assert "  ~ option port_1: 8080 (default) -> 8081 (given)" in changed
    assert changed[-1] == "  ~ pod tinyapp-0: as it is -> replaced (the service is away for a moment)"
    # Bindings that were made run once more only where that is asked for.
    forced = node.cli("install", "tinyapp", "--force-bindings", "--dry-run", "--output", "json", code=2).stdout
    (planned,) = json.loads(forced)
    (again,) = planned["changes"]
    assert (again["section"], again["before"], planned["action"]) == ("binding", "done", "change")
    assert node.bundle("tinyapp")["spec"]["options"] == {}


@pytest.mark.parametrize(
    "words", ["install nosuch --dry-run", "uninstall nosuch --dry-run", "bundle diff -f /nonexistent", "bundle diff"]
)
def test_an_error_of_a_plan_is_no_change(node: TestNode, words: str) -> None:
    assert node.cli(*words.split(), code=1).stderr


def test_without_a_server_a_plan_is_an_error_and_no_change(node: TestNode, file: Path) -> None:
    elsewhere = {"NANOCLOUD_LISTEN": "127.0.0.1:1"}
    for words in (["install", "tinydb", "--dry-run"], ["bundle", "diff", "-f", str(file)]):
        assert "nothing listens" in node.cli(*words, code=1, environment=elsewhere).stderr


def test_a_file_is_applied_and_then_nothing_is_left_to_do(node: TestNode, file: Path) -> None:
    shown = node.cli("bundle", "diff", "-f", str(file), code=2).stdout
    assert [line for line in shown.splitlines() if not line.startswith(" ")] == [
        "install tinydb (tinydb)",
        "install tinyapp (tinyapp)",
    ]
    assert node.request("GET", bundles_path(None))["items"] == []
    said = node.cli("bundle", "apply", "-f", str(file)).stdout.splitlines()
    assert said[:2] == ["tinydb: created", "tinyapp: created"]
    assert {"tinydb is ready", "tinyapp is ready"} <= set(said)
    assert node.bundle("tinydb")["metadata"]["labels"] == {"team": "green"}
    assert "nanocloud.io/installed-for" not in node.bundle("tinydb")["metadata"].get("annotations", {})
    assert "no changes" in node.cli("bundle", "diff", "-f", str(file), code=0).stdout
    planned = json.loads(node.cli("bundle", "diff", "-f", str(file), "--output", "json", code=0).stdout)
    assert [(p["name"], p["installed"], p["changes"]) for p in planned] == [("tinydb", True, []), ("tinyapp", True, [])]
    assert node.cli("bundle", "apply", "-f", str(file)).stdout.splitlines()[:2] == [
        "tinydb: unchanged",
        "tinyapp: unchanged",
    ]

    stopped = SERVICES.replace("options: {user: app}", "options: {user: app, port_1: '8081'}\n  start: false")
    shown = node.cli("bundle", "diff", "-f", "-", stdin=stopped, code=2).stdout
    assert "  ~ state service: running -> stopped" in shown.splitlines()
    assert "8081" in shown
    said = node.cli("bundle", "apply", "-f", "-", stdin=stopped).stdout
    assert "tinyapp: changed" in said
    assert "tinyapp is stopped" in said
    assert node.cli("bundle", "diff", "-f", "-", stdin=stopped, code=0).stdout.count("no changes") == 2


def test_what_is_there_can_be_written_to_a_file_and_applied(node: TestNode, tmp_path: Path) -> None:
    node.cli("install", "tinyapp")
    bundles = node.request("GET", bundles_path("default"))
    listed = tmp_path / "all.json"
    listed.write_text(json.dumps(bundles))
    assert node.cli("bundle", "diff", "-f", str(listed), code=0).stdout.count("no changes") == 2
    before = node.pod("tinyapp")["metadata"]["uid"]
    node.cli("bundle", "apply", "-f", str(listed))
    assert node.pod("tinyapp")["metadata"]["uid"] == before


def test_a_file_with_a_mistake_changes_nothing(node: TestNode, file: Path) -> None:
    for text, said in (
        (SERVICES.replace("spec:", "specs:"), "document 1: unknown field 'specs'"),
        (SERVICES.replace("{user: app}", "{usr: app}"), "usr: is not an option of this service; did you mean user?"),
        (SERVICES.replace("  options:", "  optoins:"), 'unknown field "spec.optoins"'),
    ):
        file.write_text(text)
        assert said in node.cli("bundle", "diff", "-f", str(file), code=1).stderr
    file.write_text(SERVICES.replace("service: tinydb", "service: tinydb\n  starts: no"))
    assert 'unknown field "spec.starts"' in node.cli("bundle", "apply", "-f", str(file), code=1).stderr
    assert node.request("GET", bundles_path(None))["items"] == []


def test_services_of_one_file_are_planned_together_and_the_selected_ones_come_first(node: TestNode, file: Path) -> None:
    node.layout.add(
        "leaner",
        command=["/serve.sh"],
        files=DATABASE_FILES,
        labels={
            "io.nanocloud.options": {"helper=&needy": ["*helper_host"], "env_HELPER": ["*helper_host", "$helper_host"]}
        },
    )
    node.layout.add(
        "needy",
        command=["/serve.sh"],
        files=DATABASE_FILES,
        labels={"io.nanocloud.options": NEEDY, "io.nanocloud.exports": {"options": ["host"]}},
    )
    options = "{domain: example.org, admin_token: hunter2, port_1: '80'}"
    head = "apiVersion: nanocloud.io/v1\nkind: Bundle\n"
    leaner = f"{head}metadata: {{name: leaner}}\nspec: {{service: leaner}}\n"
    # Without what the other document says, leaner could not be: needy cannot do without its options.
    file.write_text(f"{leaner}---\n{head}metadata: {{name: needy}}\nspec: {{service: needy, options: {options}}}\n")
    shown = node.cli("bundle", "diff", "-f", str(file), code=2).stdout
    assert [line for line in shown.splitlines() if line[0] != " "] == [
        "install needy (needy)",
        "install leaner (leaner)",
    ]
    assert shown.count("+ image needy") == 1
    assert "  + option domain: example.org (given)" in shown.splitlines()
    assert "hunter2" not in shown
    said = node.cli("bundle", "apply", "-f", str(file)).stdout.splitlines()
    assert said[:2] == ["needy: created", "leaner: created"]
    assert node.cli("bundle", "diff", "-f", str(file), code=0).stdout.count("no changes") == 2
    # A mistake in the last document is found before the first is stored.
    file.write_text(file.read_text().replace("domain: example.org", "domain: example.com, mode: quick"))
    assert "'quick' is not a choice" in node.cli("bundle", "apply", "-f", str(file), code=1).stderr
    assert node.bundle("needy")["spec"]["options"]["domain"] == "example.org"


# ---- uninstalling ----------------------------------------------------------------------------------------------------


def objects(node: TestNode) -> set[tuple[str, str]]:
    paths = {
        "bundle": bundles_path("default"),
        "pod": core_path("default", "pods"),
        "volume": core_path("default", "persistentvolumeclaims"),
        "secret": core_path("default", "secrets"),
    }
    return {
        (section, item["metadata"]["name"])
        for section, path in paths.items()
        for item in node.request("GET", path)["items"]
    }


def test_what_uninstalling_would_take_is_what_it_takes(node: TestNode) -> None:
    node.cli("install", "tinyapp")
    before = objects(node)
    text = node.cli("uninstall", "tinyapp", "--dry-run", code=2).stdout.splitlines()
    assert text[0] == "uninstall tinyapp (tinyapp)"
    assert "uninstall tinydb (tinydb): installed for tinyapp, and nothing else uses it" in text
    assert "  - volume volume-1-tinydb-0: 32Mi at /data (its data is lost)" in text
    assert "  - pod tinyapp-0: stops" in text
    assert any(": create_user app ******** in tinydb (goes with tinydb)" in line for line in text)
    planned = json.loads(node.cli("uninstall", "tinyapp", "--dry-run", "--output", "json", code=2).stdout)
    gone = {(c["section"], c["name"]) for p in planned for c in p["changes"] if c["section"] != "binding"}
    assert objects(node) == before
    kept = json.loads(
        node.cli("uninstall", "tinyapp", "--keep-services", "--dry-run", "--output", "json", code=2).stdout
    )
    assert [p["name"] for p in kept] == ["tinyapp"]
    node.cli("uninstall", "tinyapp")
    assert before - objects(node) == gone


def test_a_service_in_use_is_refused_in_the_plan_too(node: TestNode) -> None:
    node.cli("install", "tinyapp")
    said = node.cli("uninstall", "tinydb", "--dry-run", code=1).stderr
    assert said == node.cli("uninstall", "tinydb", code=1).stderr
    assert said == "error: tinydb is used by tinyapp\n  uninstall tinyapp first, or add --force\n"
    forced = node.cli("uninstall", "tinydb", "--force", "--dry-run", code=2).stdout
    assert "  ~ dependant tinyapp: uses tinydb -> is without tinydb" in forced.splitlines()


# ---- what cannot change ----------------------------------------------------------------------------------------------


def test_a_volume_keeps_its_size_whoever_asks_and_however(node: TestNode, file: Path) -> None:
    node.cli("install", "tinydb")
    before = node.bundle("tinydb")
    why = "volume_size_1: '64Mi' is asked for, but the volume is there with 32Mi: a volume keeps its size"
    said = node.cli("install", "tinydb", "-o", "volume_size_1=64Mi", code=1).stderr
    assert why in said
    assert "leave the option out" in said
    assert why in node.cli("install", "tinydb", "-o", "volume_size_1=64Mi", "--dry-run", code=1).stderr
    file.write_text(json.dumps({**DATABASE, "spec": {"service": "tinydb", "options": {"volume_size_1": "64Mi"}}}))
    assert why in node.cli("bundle", "apply", "-f", str(file), code=1).stderr
    path = bundles_path("default", "tinydb")
    patch = {"spec": {"options": {"volume_size_1": "64Mi"}}}
    with pytest.raises(ApiError) as caught:
        node.request("PATCH", path, body=patch, content_type="application/merge-patch+json")
    assert caught.value.code == 422
    assert caught.value.cause["details"]["causes"][0]["field"] == "spec.options.volume_size_1"
    assert node.bundle("tinydb")["spec"] == before["spec"]
    # The same size in other words is no change.
    node.cli("install", "tinydb", "-o", "volume_size_1=32768Ki")
    assert is_ready(node.bundle("tinydb"))


def test_another_database_is_told_to_begin_empty(node: TestNode) -> None:
    labels = {"io.nanocloud.options": DATABASE_OPTIONS, "io.nanocloud.exports": DATABASE_EXPORTS}
    node.layout.add("otherdb", command=["/serve.sh"], files=DATABASE_FILES, labels=labels)
    choices = dict.fromkeys(("database=&tinydb", "database=&otherdb"), APP_OPTIONS["database=&tinydb"])
    rest = {key: tokens for key, tokens in APP_OPTIONS.items() if key != "database=&tinydb"}
    labels = {"io.nanocloud.options": choices | rest}
    node.layout.add("picky", command=["/serve.sh"], files=APP_FILES, labels=labels)
    node.cli("install", "picky")
    shown = node.cli("install", "picky", "-o", "database=otherdb", "--dry-run", code=2).stdout
    note = "service database: tinydb -> otherdb (to be installed) (data in tinydb does not come along)"
    assert f"  ~ {note}" in shown.splitlines()
    assert "create_user $user $password in tinydb (what it made in tinydb stays there)" in shown
    done = node.cli("install", "picky", "-o", "database=otherdb")
    assert f"note: {note}" in done.stderr.splitlines()
    assert node.env_of("picky")["DB_HOST"] == "otherdb.default.svc"
    assert "no changes" in node.cli("install", "picky", "-o", "database=otherdb", "--dry-run", code=0).stdout


def test_a_stopped_service_can_be_changed_and_stays_stopped(node: TestNode) -> None:
    node.cli("install", "tinydb")
    node.cli("stop", "tinydb")
    said = node.cli("install", "tinydb", "-o", "port=5001", "--timeout", "30s").stdout
    assert "tinydb is changed; it is stopped" in said
    assert node.bundle("tinydb")["status"]["options"]["port"] == "5001"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_is_told_the_same(node: TestNode, file: Path) -> None:
    node.run("sh", "-c", f"{NANOCLOUD} config | sh")
    node.cli("install", "tinydb")
    file.write_text(json.dumps({**DATABASE, "spec": {"service": "tinydb", "options": {"volume_size_1": "64Mi"}}}))
    said = node.kubectl("apply", "-f", str(file), code=1).stderr
    assert "'64Mi' is asked for, but the volume is there with 32Mi" in said
    assert (
        "spec.service"
        in node.kubectl(
            "patch", "bundle", "tinydb", "--type=merge", "-p", '{"spec": {"service": "tinyapp"}}', code=1
        ).stderr
    )
