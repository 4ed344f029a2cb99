"""Services that share one database: each has an account of its own, and what one loses the other keeps."""

from __future__ import annotations

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode, is_gone, is_ready

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb")
SITE = {
    "database=&mariadb": [
        "*database_host",
        "&create_user $database_name $database_user $database_password $database_transport",
    ],
    "database_name": ["!bundle"],
    "database_user": ["!bundle"],
    "database_password": ["!rand 32 alnum"],
    "database_transport=plain": [],
    "database_transport=tls": [],
    "env_DB_PASSWORD": ["*database_password", "$database_password"],
    "volume_1": ["/data"],
    "volume_size_1": ["32Mi"],
}


def sql(node: TestNode, statement: str) -> list[str]:
    return node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", statement).stdout.split()


def users(node: TestNode) -> set[str]:
    return set(sql(node, "SELECT user FROM mysql.user")) - {"mariadb.sys", "mysql", "root", "nobody"}


@pytest.fixture(scope="module")
def sites(node: TestNode) -> TestNode:
    """``blog`` and ``shop``, both of the same image, with accounts in one mariadb."""
    node.layout.add("site", command=["/bin/sleep", "100000"], labels={"io.nanocloud.options": SITE})
    node.cli("install", "mariadb", seconds=MINUTES)
    for name in ("blog", "shop"):
        words = ("--name", name, "--option", "database_transport=tls")
        assert f"{name} is ready" in node.cli("install", "site", *words, seconds=MINUTES).stdout
    return node


def test_each_has_an_account_that_was_tried_before_it_counted(sites: TestNode) -> None:
    assert users(sites) == {"blog", "shop"}
    (binding,) = sites.bundle("blog")["status"]["bindings"]
    assert (binding["phase"], binding["attempts"], binding["exitCode"]) == ("Completed", 1, 0)
    shown = sites.cli("status", "blog").stdout
    assert "macro !bundle" in shown
    assert "import of mariadb" in shown


def test_the_account_of_another_cannot_be_asked_for(sites: TestNode) -> None:
    said = sites.cli("install", "site", "--name", "thief", "--option", "database_user=shop", code=1).stderr
    assert "spec.options.database_user" in said
    assert "'shop' in mariadb belongs to shop already" in said
    assert sites.get("bundles", "thief") is None
    # The API takes the object; its controller refuses.
    sites.create("thief", {"service": "site", "options": {"database_user": "shop"}})
    found = sites.until_settled("thief")
    assert found["status"]["reason"] == "OptionsInvalid"
    assert "'shop' in mariadb belongs to shop already" in found["status"]["message"]
    sites.cli("uninstall", "thief")
    assert users(sites) == {"blog", "shop"}


def test_removing_one_leaves_no_trace_of_its_account_and_the_other_as_it_was(sites: TestNode) -> None:
    password = sites.env_of("shop")["DB_PASSWORD"]
    before = sites.process_of("shop")
    sites.cli("uninstall", "blog", seconds=MINUTES)
    assert users(sites) == {"shop"}
    assert sql(sites, "SELECT COUNT(*) FROM mysql.db WHERE user = 'blog'") == ["0"]
    assert sites.process_of("shop") == before
    script = 'MYSQL_PWD="$1" exec mariadb -h 127.0.0.1 -u shop -N -e "SELECT CURRENT_USER()" shop'
    assert "shop@%" in sites.cli("exec", "mariadb", "--", "sh", "-c", script, "sh", password).stdout


def test_a_stopped_database_takes_the_account_away_once_it_runs(sites: TestNode) -> None:
    sites.create("late", {"service": "site"})
    sites.until("bundles", "late", is_ready, MINUTES)
    sites.cli("stop", "mariadb", seconds=MINUTES)
    sites.cli("uninstall", "late", seconds=MINUTES)
    items = sites.request("GET", "/apis/nanocloud.io/v1/namespaces/default/bindings")["items"]
    (revocation,) = [b["metadata"]["name"] for b in items if b["spec"]["bundle"] == "late"]
    sites.cli("start", "mariadb", seconds=MINUTES)
    sites.until("bindings", revocation, is_gone)
    assert users(sites) == {"shop"}
