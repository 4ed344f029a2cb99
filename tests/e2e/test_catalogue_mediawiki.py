"""MediaWiki as its readers and writers have it, on both of its databases, over verified TLS."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_fixture
from inside import inside
from mediawiki import Session
from nodes import TestNode

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb", "postgresql", "mediawiki")

DATABASES = ("mariadb", "postgresql")
OTHER_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
WWW_DATA = 33
SQL = ("php8.2", "/usr/share/mediawiki/maintenance/sql.php", "--json", "--query")


@pytest.fixture(scope="module", params=DATABASES)
def wiki(request: pytest.FixtureRequest, node: TestNode) -> str:
    """The database of a wiki that stands on it alone; the one before is taken off with its database."""
    database: str = request.param
    if database != DATABASES[0] and node.get("bundles", "mediawiki"):
        node.cli("uninstall", "mediawiki", seconds=MINUTES)
    words = ("--option", f"database={database}", "--option", "database_transport=tls", "--timeout", "5m")
    node.cli("install", "mediawiki", *words, seconds=MINUTES)
    return database


def page(node: TestNode, title: str, *options: str) -> str:
    words = ("curl", "-sSfL", "--max-time", "30", *options)
    return node.run(*words, f"http://127.0.0.1:8081/wiki/{title}").stdout


def sql(node: TestNode, statement: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """By MediaWiki's own settings and classes, in its container; some of its environment may be another."""
    variables = node.env_of("mediawiki") | environment
    return inside(node, "mediawiki", *SQL, statement, user=WWW_DATA, environment=variables, code=None)


def test_a_wiki_is_written_by_its_administrator_and_outlives_its_processes(
    node: TestNode, wiki: str, tmp_path: Path
) -> None:
    assert "<title>A MediaWiki on Nanocloud</title>" in page(node, "Main_Page")
    session = Session(node, tmp_path / "cookies", "http://127.0.0.1:8081")
    secrets = node.env_of("mediawiki")
    assert session.log_in("Admin", "wrong") == "Failed"
    assert session.log_in("Admin", secrets["MEDIAWIKI_ADMIN_PASSWORD"]) == "Success"
    name, groups = session.who()
    assert name == "Admin"
    assert groups >= {"sysop", "bureaucrat", "interface-admin"}
    text = "Größe: '''viel''' \\ \"x\" \U0001f680"
    written = session.ask(action="edit", title="Züri", text=text, token=session.token("csrf"))
    assert written["edit"]["result"] == "Success"
    assert 'Größe: <b>viel</b> \\ "x" \U0001f680' in page(node, "Z%C3%BCri")

    for service in (wiki, "mediawiki"):
        node.cli("restart", service, seconds=MINUTES)
    assert "Größe: <b>viel</b>" in page(node, "Z%C3%BCri")
    assert session.who()[0] == "Admin", "sessions are kept in the database"
    # The second start found the wiki whole: nothing was installed and nothing brought up to date.
    assert "install" not in node.cli("logs", "mediawiki").stdout

    log = node.cli("logs", "mediawiki").stdout + node.cli("logs", "mediawiki", "--previous", code=None).stdout
    for option in ("DB_PASSWORD", "ADMIN_PASSWORD", "SECRET_KEY", "UPGRADE_KEY"):
        assert secrets[f"MEDIAWIKI_{option}"] not in log


def test_links_lead_to_the_address_by_which_the_wiki_was_called(node: TestNode, wiki: str) -> None:
    def server(base: str, *options: str) -> str:
        url = f"{base}/api.php?action=query&meta=siteinfo&format=json"
        done = node.run("curl", "-sSf", "--max-time", "30", *options, url)
        return str(json.loads(done.stdout)["query"]["general"]["server"])

    assert server("http://127.0.0.1:8081") == "http://127.0.0.1:8081"
    authority = node.folder / "ca.crt"
    authority.write_text(node.cli("exec", "mediawiki", "--", "cat", "/run/nanocloud/tls/ca.crt").stdout)
    address = node.pod("mediawiki")["status"]["podIP"]
    secure = "https://mediawiki.default.svc:8443"
    words = ("--cacert", str(authority), "--resolve", f"mediawiki.default.svc:8443:{address}")
    assert server(secure, *words) == secure
    # A header that is no name of a host does not get into pages.
    assert server("http://127.0.0.1:8081", "-H", "Host: no_name") == "http://localhost:8080"


def test_only_entry_points_can_be_called(node: TestNode, wiki: str) -> None:
    def status(path: str) -> str:
        url = f"http://127.0.0.1:8081{path}"
        return node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--path-as-is", url).stdout

    for path in ("/maintenance/update.php", "/mw-config/index.php", "/LocalSettings.php", "/ready.php"):
        assert status(path) == "404"
    assert status("/resources/assets/poweredby_mediawiki_88x31.png") == "200"
    assert status("/rest.php/v1/page/Main_Page") == "200"
    node.cli("exec", "mediawiki", "--", "sh", "-c", "echo '<?php echo 6 * 7;' > /var/lib/mediawiki/images/a.php")
    assert "6 * 7" in node.run("curl", "-sSf", "http://127.0.0.1:8081/images/a.php").stdout


def test_the_session_to_the_database_is_encrypted_and_only_the_nodes_authority_will_do(
    node: TestNode, wiki: str
) -> None:
    if wiki == "mariadb":
        about = (
            "SELECT variable_value AS secure FROM information_schema.session_status WHERE variable_name = 'Ssl_version'"
        )
        account = "SELECT ssl_type FROM mysql.user WHERE user = 'mediawiki'"
        assert node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", account).stdout.strip() == "ANY"
    else:
        about = "SELECT version AS secure FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    done = sql(node, about)
    assert '"secure": "TLSv1.3"' in done.stdout, done
    # The very same settings, but for the authority, and then but for the name.
    refused = sql(node, about, MEDIAWIKI_TLS_CA=OTHER_AUTHORITIES)
    assert refused.returncode != 0
    assert "secure" not in refused.stdout
    address = node.pod(wiki)["status"]["podIP"]
    refused = sql(node, about, MEDIAWIKI_DB_HOST=address)
    assert refused.returncode != 0
    assert "secure" not in refused.stdout
    assert sql(node, about, MEDIAWIKI_DB_HOST=address, MEDIAWIKI_DB_TRANSPORT="plain").returncode != 0


def test_an_installation_that_was_broken_off_begins_again_and_a_whole_one_is_kept(node: TestNode, wiki: str) -> None:
    def begin() -> str:
        variables = node.env_of("mediawiki")
        script = ("php8.2", "/usr/share/nanocloud/database.php", "begin")
        return inside(node, "mediawiki", *script, user=WWW_DATA, environment=variables).stdout.strip()

    assert begin() == "update"
    assert "Main_Page" in sql(node, "SELECT page_title FROM page").stdout
    # As if it had been killed before the end.
    mark = "CREATE TABLE nanocloud_installing (i INT)"
    if wiki == "mariadb":
        node.cli("exec", "mariadb", "--", "mariadb", "mediawiki", "-e", mark)
    else:
        mark = mark.replace("TABLE ", "TABLE mediawiki.")
        node.cli("exec", "postgresql", "--", "psql", "-d", "mediawiki", "-c", f"SET ROLE mediawiki; {mark}")
    node.cli("restart", "mediawiki", seconds=MINUTES)
    assert "<title>A MediaWiki on Nanocloud</title>" in page(node, "Main_Page")
    assert (
        node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:8081/wiki/Z%C3%BCri").stdout
        == "404"
    )
    assert begin() == "update"
