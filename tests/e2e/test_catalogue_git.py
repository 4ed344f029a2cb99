"""Git over HTTPS as its users have it: real git pushes and clones, accounts and rights are rows of a real database."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb", "postgresql", "git")
CA = "/run/nanocloud/tls/ca.crt"
PUBLIC = "/etc/ssl/certs/ca-certificates.crt"
PORTS = {"git": 8443, "code": 8444}


class People:
    """git on somebody's machine: trusts the node's authority, answers git's question for a password."""

    def __init__(self, node: TestNode, folder: Path) -> None:
        self._node, self._folder = node, folder
        self._ask = folder / "ask"
        self._ask.write_text('#!/bin/sh\nprintf %s "$PASSWORD"\n')
        self._ask.chmod(0o755)

    def git(self, service: str, name: str, password: str, *words: str, ok: bool = True, at: str = "") -> str:
        """``URL`` in a word stands for the address of the service; answers, or the error."""
        authority = self._folder / f"{service}.pem"
        authority.write_text(self._node.cli("exec", service, "--", "cat", CA).stdout)
        url = f"https://{name}@127.0.0.1:{PORTS[service]}"
        done = self._node.run(
            *("git", "-C", self._folder / at, "-c", "credential.helper="),
            *(word.replace("URL", url) for word in words),
            environment={
                "GIT_SSL_CAINFO": str(authority),
                "GIT_ASKPASS": str(self._ask),
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_CONFIG_GLOBAL": os.devnull,
                "PASSWORD": password,
            },
            code=None,
            seconds=MINUTES,
        )
        assert (done.returncode == 0) is ok, done
        return done.stdout + done.stderr

    def commit(self, folder: str, text: str) -> None:
        path = self._folder / folder
        if not path.exists():
            self._local("init", "-q", "-b", "main", str(path))
        (path / "file").write_text(text)
        self._local("-C", str(path), "add", "file")
        self._local(
            *("-C", str(path), "-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "change")
        )

    def read(self, folder: str) -> str:
        return (self._folder / folder / "file").read_text()

    def _local(self, *words: str) -> None:
        subprocess.run(("git", *words), check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull})


@pytest.fixture(scope="module")
def people(node: TestNode, tmp_path_factory: pytest.TempPathFactory) -> People:
    words = ("--option", "database=postgresql", "--option", "database_transport=tls", "--timeout", "5m")
    node.cli("install", "git", *words, seconds=MINUTES)
    return People(node, tmp_path_factory.mktemp("people"))


def repositories(node: TestNode, service: str, *words: str, stdin: str | None = None, code: int = 0) -> str:
    flags = ("-i",) if stdin is not None else ()
    done = node.cli("exec", *flags, service, "--", "repositories", *words, stdin=stdin, code=code)
    return done.stdout + done.stderr


def administrator(node: TestNode, service: str) -> str:
    return node.env_of(service)["GIT_ADMIN_PASSWORD"]


def sql(node: TestNode, statement: str, database: str = "git") -> list[str]:
    done = node.cli("exec", "postgresql", "--", "psql", "-XAtd", database, "-c", statement)
    return done.stdout.split("\n")[:-1]


def test_what_is_pushed_can_be_cloned(node: TestNode, people: People) -> None:
    password = administrator(node, "git")
    repositories(node, "git", "create", "demo")
    large = os.urandom(2 << 20).hex()  # so that git sends it in pieces, without saying how much there is
    people.commit("work", large)
    people.git("git", "administrator", password, "push", "-q", "URL/demo.git", "main", at="work")
    people.git("git", "administrator", password, "clone", "-q", "URL/demo.git", "copy")
    assert people.read("copy") == large
    assert repositories(node, "git", "list").splitlines() == ["demo", "administrator write *"]


def test_the_database_holds_accounts_and_rights_and_no_password(node: TestNode, people: People) -> None:
    assert sql(node, "SELECT name, left(password, 7) FROM accounts") == ["administrator|$2y$08$"]
    assert sql(node, "SELECT account, repository, level FROM rights") == ["administrator|*|write"]
    log = node.cli("logs", "git").stdout
    assert 'administrator "POST /demo.git/git-receive-pack HTTP/1.1" 200' in log
    assert administrator(node, "git") not in log


def test_rights_say_who_reads_and_who_writes(node: TestNode, people: People) -> None:
    secret = "correct horse battery"
    for name, level in (("reader", "read"), ("writer", "write"), ("stranger", "")):
        repositories(node, "git", "add-account", name, stdin=secret)
        if level:
            repositories(node, "git", "allow", name, "demo", level)
    people.commit("work", "two")
    assert "403" in people.git("git", "reader", secret, "push", "URL/demo.git", "main", at="work", ok=False)
    people.git("git", "writer", secret, "push", "-q", "URL/demo.git", "main", at="work")
    people.git("git", "reader", secret, "clone", "-q", "URL/demo.git", "read")
    assert people.read("read") == "two"
    assert "403" in people.git("git", "stranger", secret, "ls-remote", "URL/demo.git", ok=False)
    for name, password in (("reader", "wrong horse battery"), ("nobody", secret)):
        assert "Authentication failed" in people.git("git", name, password, "ls-remote", "URL/demo.git", ok=False)
    repositories(node, "git", "forbid", "reader", "demo")
    assert "403" in people.git("git", "reader", secret, "ls-remote", "URL/demo.git", ok=False)
    repositories(node, "git", "remove-account", "writer")
    assert "Authentication failed" in people.git("git", "writer", secret, "ls-remote", "URL/demo.git", ok=False)
    assert sql(node, "SELECT account FROM rights") == ["administrator"]


@contextmanager
def judged_by_others(node: TestNode, service: str, file: str) -> Iterator[None]:
    """The web server, which connects for each request, trusts public authorities alone for its database."""
    change = "sed -i 's|{}|{}|' {}"
    node.cli("exec", service, "--", "sh", "-c", change.format(CA, PUBLIC, file))
    yield
    node.cli("exec", service, "--", "sh", "-c", change.format(PUBLIC, CA, file))


def ask(node: TestNode, people: People, service: str = "git", *, ok: bool = True) -> str:
    password = administrator(node, service)
    return people.git(service, "administrator", password, "ls-remote", "URL/demo.git", ok=ok)


def test_a_certificate_of_another_authority_or_name_is_refused(node: TestNode, people: People) -> None:
    address = node.pod("postgresql")["status"]["podIP"]
    for change, message in (
        ("", ""),
        (f"sslrootcert={PUBLIC}", "certificate verify failed"),
        (f"host={address}", "does not match host name"),
    ):
        command = ("env", "PGSERVICEFILE=/tmp/git/pg_service.conf", "psql", f"service=git {change}", "-c", "SELECT 1")
        done = node.cli("exec", "git", "--", *command, code=2 if change else 0)
        assert message in done.stderr
    # And plainly the account cannot be used at all.
    command = ("env", "PGSERVICEFILE=/tmp/git/pg_service.conf", "psql", "service=git sslmode=disable", "-c", "SELECT 1")
    assert "no encryption" in node.cli("exec", "git", "--", *command, code=2).stderr
    with judged_by_others(node, "git", "/tmp/git/pg_service.conf"):
        assert "error: 500" in ask(node, people, ok=False)
    assert "main" in ask(node, people)
    # The service's own certificate, too: git verified it above, and refuses it here.
    public = {"GIT_SSL_CAINFO": PUBLIC}
    done = node.run("git", "ls-remote", "https://127.0.0.1:8443/demo.git", environment=public, code=128)
    assert "certificate verification failed" in done.stderr


def test_data_survives_restarts_of_the_service_and_of_its_database(node: TestNode, people: People) -> None:
    password = administrator(node, "git")
    node.cli("restart", "git", seconds=MINUTES)
    people.git("git", "administrator", password, "clone", "-q", "URL/demo.git", "after")
    assert people.read("after") == "two"
    assert len(sql(node, "SELECT name FROM accounts")) == 3
    node.cli("restart", "postgresql", seconds=MINUTES)
    people.git("git", "administrator", password, "ls-remote", "URL/demo.git")


def test_repositories_says_what_is_wrong(node: TestNode, people: People) -> None:
    for words, message in (
        (("create", "../x"), "repository '../x' must be made of a-z, 0-9, _ and -"),
        (("create", "demo"), "the repository demo exists"),
        (("allow", "nobody", "demo", "read"), "there is no account nobody"),
        (("allow", "administrator", "other", "read"), "there is no repository other"),
        (("allow", "administrator", "demo", "all"), "'all' must be read or write"),
        (("remove-account", "a'; DROP TABLE rights; --"), "must be made of a-z"),
    ):
        assert f"{message}" in repositories(node, "git", *words, code=1)
    assert "8 characters" in repositories(node, "git", "add-account", "short", stdin="short", code=1)
    assert "usage: repositories list" in repositories(node, "git", "nonsense", code=64)
    said = people.git("git", "administrator", administrator(node, "git"), "ls-remote", "URL/other.git", ok=False)
    assert "not found" in said


def test_with_mariadb_over_tls_it_is_the_same(node: TestNode, people: People) -> None:
    words = ("database=mariadb", "database_transport=tls", "port_1=8444->8443/tcp", "admin_password=p@ss=w0rd#%+ x")
    options = [part for word in words for part in ("--option", word)]
    image = f"oci:{node.layout.folder}:git"
    node.cli("install", "code", "--image", image, *options, "--timeout", "5m", seconds=MINUTES)
    password = "p@ss=w0rd#%+ x"
    repositories(node, "code", "create", "demo")
    people.git("code", "administrator", password, "push", "-q", "URL/demo.git", "main", at="work")
    people.git("code", "administrator", password, "clone", "-q", "URL/demo.git", "code-copy")
    assert people.read("code-copy") == people.read("work")
    repositories(node, "code", "add-account", "reader", stdin="correct horse battery")
    repositories(node, "code", "allow", "reader", "demo", "read")
    people.git("code", "reader", "correct horse battery", "ls-remote", "URL/demo.git")
    assert "403" in people.git(
        "code", "reader", "correct horse battery", "push", "URL/demo.git", "main:other", at="work", ok=False
    )

    def mariadb(service: str, *command: str, code: int = 0) -> str:
        done = node.cli("exec", service, "--", "mariadb", *command, code=code)
        return done.stdout.strip() + done.stderr

    query = "SELECT GROUP_CONCAT(name ORDER BY name) FROM code.accounts"
    assert mariadb("mariadb", "-N", "-e", query) == "administrator,reader"
    assert mariadb("mariadb", "-N", "-e", "SELECT ssl_type FROM mysql.user WHERE user = 'code'") == "ANY"
    assert int(mariadb("mariadb", "-N", "-e", "SHOW STATUS LIKE 'Ssl_accepts'").split()[1]) > 0
    known = "--defaults-file=/tmp/git/.my.cnf"
    address = node.pod("mariadb")["status"]["podIP"]
    for change in (f"--ssl-ca={PUBLIC}", f"--host={address}"):
        assert "ERROR 2026" in mariadb("code", known, change, "-e", "SELECT 1", code=1)
    with judged_by_others(node, "code", "/tmp/git/.my.cnf"):
        assert "error: 500" in ask(node, people, "code", ok=False)
    node.cli("restart", "mariadb", seconds=MINUTES)
    assert "main" in ask(node, people, "code")
