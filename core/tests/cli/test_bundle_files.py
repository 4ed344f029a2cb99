"""Files of ``bundle apply`` and ``bundle diff``, and which command lines only ask for a plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanocloud.cli.bundles import read_bundles
from nanocloud.cli.words import asks_for_a_plan
from nanocloud.errors import BadRequestError, UsageError

BUNDLE = "{apiVersion: nanocloud.io/v1, kind: Bundle, metadata: {name: %s}, spec: {service: mariadb}}"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "services.yaml"


def test_several_documents_and_lists_are_read_in_order(file: Path) -> None:
    items = f"apiVersion: v1\nkind: List\nitems:\n- {BUNDLE % 'b'}\n- {BUNDLE % 'c'}\n"
    file.write_text(f"---\n{BUNDLE % 'a'}\n---\n{items}---\n# nothing here\n---\n{BUNDLE % 'd'}\n")
    assert [bundle["metadata"]["name"] for bundle in read_bundles(str(file))] == ["a", "b", "c", "d"]


def test_what_the_server_wrote_is_passed_over(file: Path) -> None:
    file.write_text(
        "apiVersion: nanocloud.io/v1\nkind: Bundle\nstatus: {phase: Running}\nspec: {service: mariadb}\n"
        "metadata: {name: a, namespace: web, uid: x, resourceVersion: '7', generation: 3, labels: {team: green}}\n"
    )
    (bundle,) = read_bundles(str(file))
    assert bundle["metadata"] == {"name": "a", "namespace": "web", "labels": {"team": "green"}}
    assert "status" not in bundle


def test_a_bundle_without_a_namespace_takes_the_given_one(file: Path) -> None:
    file.write_text(BUNDLE % "a")
    assert read_bundles(str(file))[0]["metadata"]["namespace"] == "default"
    assert read_bundles(str(file), "web")[0]["metadata"]["namespace"] == "web"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no Bundle"),
        ("[]", "document 1 is not an object"),
        ("{kind: Pod}", "document 1: apiVersion is None; it must be nanocloud.io/v1"),
        ("{apiVersion: nanocloud.io/v1, kind: Binding}", "document 1: kind is 'Binding'; it must be Bundle"),
        ("{apiVersion: nanocloud.io/v1, kind: Bundle, metadata: {}}", "document 1: metadata.name is required"),
        ("{apiVersion: nanocloud.io/v1, kind: Bundle, metadata: {name: a}}", "document 1: spec is required"),
        (BUNDLE % "a" + "\n---\n" + BUNDLE % "a, namespace: default", "bundle default/a stands there twice"),
        (BUNDLE % "a, namespace: other", "metadata.namespace is 'other', and --namespace 'web'"),
        ("{kind: List, items: {}}", "document 1: items must be an array"),
        ("{kind: List, items: [{kind: Pod}]}", "document 1, item 1: apiVersion is None"),
        ((BUNDLE % "a")[:-1] + ", specs: {}}", "document 1: unknown field 'specs'; known: apiVersion, kind, metadata"),
    ],
)
def test_what_is_no_bundle_is_refused_with_its_place(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    namespace = "web" if "other" in text else None
    with pytest.raises(UsageError) as caught:
        read_bundles(str(file), namespace)
    assert said in str(caught.value)


def test_broken_yaml_is_refused_with_line_and_column(file: Path) -> None:
    file.write_text("a: 1\na: 2\n")
    with pytest.raises(BadRequestError, match=r'at line 2, column 1: the key "a" appears twice'):
        read_bundles(str(file))


def test_a_file_that_is_not_there_is_refused(file: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_bundles(str(file))


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        ("install wordpress --dry-run", True),
        ("uninstall wordpress -n web --dry-run", True),
        ("--debug bundle diff -f x.yaml", True),
        ("bundle apply -f diff", False),
        ("install wordpress", False),
        ("exec mariadb -- echo --dry-run", False),
    ],
)
def test_which_commands_only_show_a_plan(words: str, asks: bool) -> None:
    assert asks_for_a_plan(words.split()) is asks
