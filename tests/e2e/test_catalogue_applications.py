"""Two real applications in one real database: WordPress and MediaWiki, each with an account for its own alone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_fixture
from inside import SECRET, inside
from mediawiki import Session
from nodes import TestNode

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb", "wordpress", "mediawiki")

APPLICATIONS = {"wordpress": "http://127.0.0.1:8080/", "mediawiki": "http://127.0.0.1:8081/wiki/Main_Page"}
WWW_DATA = 33
NODES_AUTHORITY, OTHER_AUTHORITIES = "/tmp/wordpress/ca.pem", "/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module", autouse=True)
def installed(node: TestNode) -> None:
    for application in APPLICATIONS:
        install(node, application)


def install(node: TestNode, application: str) -> None:
    words = ("--option", "database=mariadb", "--option", "database_transport=tls", "--timeout", "5m")
    node.cli("install", application, *words, seconds=MINUTES)


def title(node: TestNode, application: str) -> str:
    found = node.run("curl", "-sSf", "--max-time", "30", APPLICATIONS[application]).stdout
    return found.partition("<title>")[2].partition("</title>")[0]


def administrator(node: TestNode, statement: str) -> list[str]:
    return node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", statement).stdout.split()


def as_account(node: TestNode, application: str, statement: str, code: int) -> subprocess.CompletedProcess[str]:
    """From the network of the application, with its password."""
    login = f'MYSQL_PWD=$(cat {SECRET}) exec mariadb -h mariadb.default.svc --ssl -u "$0" -N -e "$1"'
    password = node.env_of(application)[f"{application.upper()}_DB_PASSWORD"].encode()
    words = ("sh", "-c", login, application, statement)
    return inside(node, "mariadb", *words, network_of=application, secret=password, code=code)


def wordpress_sees(node: TestNode, *, authorities: str, **environment: str) -> str:
    """What WordPress, started with these authorities, says of the session to its database."""
    script = (
        "define('WP_INSTALLING', true); require '/usr/share/wordpress/wp-load.php';"
        "echo $wpdb->get_var(\"SHOW SESSION STATUS LIKE 'Ssl_version'\", 1);"
    )
    words = ("php8.2", "-d", f"openssl.cafile={authorities}", "-r", script)
    variables = node.env_of("wordpress") | environment
    return inside(node, "wordpress", *words, user=WWW_DATA, environment=variables, code=None).stdout


def test_wordpress_knows_its_database_by_the_nodes_authority_alone(node: TestNode) -> None:
    assert wordpress_sees(node, authorities=NODES_AUTHORITY) == "TLSv1.3"
    refused = "Error establishing a database connection"
    assert refused in wordpress_sees(node, authorities=OTHER_AUTHORITIES)
    address = node.pod("mariadb")["status"]["podIP"]
    assert refused in wordpress_sees(node, authorities=NODES_AUTHORITY, WORDPRESS_DB_HOST=address)


def test_each_application_reaches_its_own_database_only(node: TestNode) -> None:
    for own, other in (("wordpress", "mediawiki"), ("mediawiki", "wordpress")):
        shown = as_account(node, own, "SHOW DATABASES", 0).stdout.split()
        assert shown == ["information_schema", own]
        assert "Access denied" in as_account(node, own, f"USE {other}", 1).stderr
        table = {"wordpress": "wp_users", "mediawiki": "user"}[other]
        assert "denied" in as_account(node, own, f"SELECT * FROM {other}.{table}", 1).stderr


def test_removing_one_leaves_the_other_at_work_and_no_trace_of_its_account(node: TestNode) -> None:
    assert title(node, "mediawiki") == "A MediaWiki on Nanocloud"
    before = node.process_of("wordpress")
    node.cli("uninstall", "mediawiki", seconds=MINUTES)
    for table in ("user", "db", "global_priv", "tables_priv"):
        assert administrator(node, f"SELECT COUNT(*) FROM mysql.{table} WHERE user = 'mediawiki'") == ["0"]
    assert administrator(node, "SELECT COUNT(*) FROM mysql.user WHERE user = 'wordpress'") == ["1"]
    assert title(node, "wordpress") == "A WordPress on Nanocloud"
    assert node.process_of("wordpress") == before
    assert as_account(node, "wordpress", "SELECT 1", 0).stdout.split() == ["1"]


def test_a_wiki_that_comes_back_finds_its_pages_and_lets_its_new_administrator_in(
    node: TestNode, tmp_path: Path
) -> None:
    first = "SELECT rev_timestamp FROM mediawiki.revision WHERE rev_id = 1"
    before = administrator(node, first)
    assert before
    install(node, "mediawiki")
    assert administrator(node, first) == before
    assert title(node, "mediawiki") == "A MediaWiki on Nanocloud"
    session = Session(node, tmp_path / "cookies", "http://127.0.0.1:8081")
    assert session.log_in("Admin", node.env_of("mediawiki")["MEDIAWIKI_ADMIN_PASSWORD"]) == "Success"
    assert "sysop" in session.who()[1]
