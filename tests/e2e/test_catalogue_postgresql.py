"""PostgreSQL as its dependants have it: a database and a role each, over TLS if they want, and nobody else's."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from catalogue import MINUTES, catalogue_fixture
from inside import AUTHORITY, SECRET, environment_of, eventually, foreign_authority, inside, running
from nodes import TestNode, is_ready, phase
from tinyimages import Layout

pytestmark = pytest.mark.images
node = catalogue_fixture("postgresql")

PSQL = "/usr/lib/postgresql/15/bin/psql"
CLIENT_OPTIONS = {
    "database=&postgresql": [
        "*database_host",
        "*database_port",
        "&create_user $database_name $database_user $database_password $transport",
    ],
    "database_name": ["!bundle"],
    "database_user": ["!bundle"],
    "database_password": ["!rand 32 alnum"],
    "transport=plain": [],
    "transport=tls": [],
    "env_PASSWORD": ["*database_password", "$database_password"],
}


@pytest.fixture(scope="module", autouse=True)
def clients(node: TestNode) -> None:
    """Two dependants: ``shop`` has to use TLS, ``blog`` need not."""
    image = Layout(node.folder / "clients").add(
        "client", command=["sleep", "1000000"], labels={"io.nanocloud.options": CLIENT_OPTIONS}, user="1000:1000"
    )
    node.cli("install", "shop", "--image", image, "-o", "transport=tls", seconds=MINUTES)
    node.cli("install", "blog", "--image", image, seconds=MINUTES)


def admin(node: TestNode, statement: str, database: str = "postgres") -> str:
    words = (PSQL, "-XAt", "-U", "postgres", "-d", database, "-c", statement)
    return inside(node, "postgresql", *words, user=973, environment={"PGHOST": "/tmp/postgresql"}).stdout.strip()


def client(
    node: TestNode,
    bundle: str,
    statement: str,
    *,
    database: str = "",
    user: str = "",
    password: str = "",
    security: str = f"sslmode=verify-full sslrootcert={AUTHORITY}",
    code: int = 0,
) -> str:
    """psql in the network of the dependant, with what it knows; answers, or the error."""
    target = f"host=postgresql.default.svc dbname={database or bundle} user={user or bundle} {security}"
    done = inside(
        node,
        "postgresql",
        *(PSQL, "-XAt", target, "-c", statement),
        network_of=bundle,
        environment={"PGPASSWORD": password or environment_of(node, bundle)["PASSWORD"]},
        code=code,
    )
    return (done.stdout or done.stderr).strip()


def test_an_administrator_needs_no_more_than_exec(node: TestNode) -> None:
    assert node.cli("exec", "postgresql", "--", "psql", "-At", "-c", "SELECT current_user").stdout == "postgres\n"


def test_a_dependant_owns_a_database_and_is_nothing_else(node: TestNode) -> None:
    assert client(node, "shop", "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'shop'") == "shop"
    client(node, "shop", "CREATE TABLE things (name text); CREATE SCHEMA own; CREATE EXTENSION pg_trgm")
    rights = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
    assert client(node, "shop", f"SELECT {rights} FROM pg_roles WHERE rolname = current_user") == "f|f|f|f|f"
    for statement in ("CREATE DATABASE more", "CREATE ROLE more", "COPY (SELECT 1) TO PROGRAM 'id'", "CHECKPOINT"):
        assert "ERROR" in client(node, "shop", statement, code=1)


def test_a_session_over_tls_is_encrypted_and_its_server_is_known(node: TestNode) -> None:
    about = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert client(node, "shop", about) == "t|TLSv1.3"
    foreign = f"sslmode=verify-full sslrootcert={foreign_authority(node, 'postgresql')}"
    assert "certificate verify failed" in client(node, "shop", about, security=foreign, code=2)
    # Another name of the same server, which is not in its certificate.
    address = node.pod("postgresql")["status"]["podIP"]
    named = f"sslmode=verify-full sslrootcert={AUTHORITY} host=elsewhere.example hostaddr={address}"
    assert "does not match host name" in client(node, "shop", about, security=named, code=2)


def test_only_who_was_allowed_to_connects_in_the_clear(node: TestNode) -> None:
    refused = client(node, "shop", "SELECT 1", security="sslmode=disable", code=2)
    assert "no pg_hba.conf entry for host" in refused
    assert "no encryption" in refused
    about = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert client(node, "blog", about, security="sslmode=disable") == "f"
    assert client(node, "blog", about) == "t"


def test_dependants_do_not_reach_each_other_nor_the_servers_own(node: TestNode) -> None:
    for database in ("blog", "postgres", "template1"):
        assert "permission denied for database" in client(node, "shop", "SELECT 1", database=database, code=2)
    assert "password authentication failed" in client(node, "shop", "SELECT 1", user="blog", code=2)
    for user in ("postgres", "nobody"):
        assert "pg_hba.conf rejects" in client(node, "shop", "SELECT 1", user=user, password="x", code=2)
    assert "permission denied" in client(node, "shop", "SELECT * FROM pg_authid", code=1)
    # Who else is connected is no secret, but what they ask is.
    others = "SELECT DISTINCT query FROM pg_stat_activity WHERE usename <> user"
    assert set(client(node, "shop", others).split("\n")) <= {"", "<insufficient privilege>"}


def test_what_binding_commands_are_run_as_cannot_become_the_administrator(node: TestNode) -> None:
    def nobody(statement: str) -> str:
        socket = {"PGHOST": "/tmp/postgresql"}
        words = (PSQL, "-XAt", "-U", "nobody", "postgres", "-c", statement)
        return inside(node, "postgresql", *words, environment=socket, code=1).stderr

    for statement in (
        "CREATE ROLE more",
        "ALTER ROLE nobody SUPERUSER",
        "GRANT pg_read_server_files TO nobody",
        "GRANT shop TO nobody",
        "SET ROLE shop",
        "ALTER ROLE postgres PASSWORD 'x'",
        "CREATE OR REPLACE FUNCTION nanocloud.check_account(account text) RETURNS boolean RETURN true",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY (SELECT 1) TO PROGRAM 'id'",
        "SELECT rolpassword FROM pg_authid",
        "SELECT nanocloud.make_account('postgres', 'x', true, 'x')",
        "SELECT nanocloud.make_account('nanocloud_plain', 'x', true, 'x')",
        "SELECT nanocloud.make_account('pg_monitor', 'x', true, 'x')",
        "SELECT nanocloud.revoke_account('postgres')",
        "SELECT nanocloud.end_sessions('postgres', false)",
        "SELECT nanocloud.give_database('template1', 'shop', 'C.UTF-8')",
        "SELECT nanocloud.give_database('blog', 'shop', 'C.UTF-8')",
    ):
        assert "ERROR" in nobody(statement), statement


def test_any_password_works_and_is_written_nowhere(node: TestNode) -> None:
    words = ("till", "till", SECRET, "tls")
    for password in (b"simple", b"a'b\"c\\d`e$f;g\nh -- i $$ :x", "schl\u00fcssel \u20ac".encode(), b"x" * 256):
        for _ in range(2):
            assert inside(node, "postgresql", "create_user", *words, secret=password).stdout == ""
        inside(node, "postgresql", "verify_user", *words, secret=password)
        inside(node, "postgresql", "verify_user", *words, secret=password + b"!", code=2)
    stored = admin(node, "SELECT rolpassword FROM pg_authid WHERE rolname = 'till'")
    assert stored.startswith("SCRAM-SHA-256$4096:")
    # The server takes no password from the statement that fails, whatever an administrator makes it log.
    for setting in ("log_statement = 'all'", "log_min_duration_statement = 0", "log_min_error_statement = 'error'"):
        admin(node, f"ALTER SYSTEM SET {setting}")
    admin(node, "SELECT pg_reload_conf()")
    inside(node, "postgresql", "create_user", "till", "till", SECRET, "tls", "C", secret=b"SECRETWORD", code=3)
    inside(node, "postgresql", "create_user", *words, secret=b"SECRETWORD")
    admin(node, "ALTER SYSTEM RESET ALL")
    admin(node, "SELECT pg_reload_conf()")
    log = node.cli("logs", "postgresql").stdout
    assert "ALTER SYSTEM RESET ALL" in log
    assert "SECRETWORD" not in log
    assert b"SECRETWORD".hex() not in log


def test_verification_finds_what_is_not_as_it_was_made(node: TestNode) -> None:
    inside(node, "postgresql", "create_user", "books", "books", SECRET, "tls", secret=b"x")
    for words, code in (
        (("books", "books", SECRET, "tls"), 0),
        (("books", "books", SECRET, "plain"), 2),
        (("books", "books", SECRET), 2),
        (("books", "books", SECRET, "tls", "C"), 1),
        (("blog", "books", SECRET, "tls"), 2),
        (("nothing", "books", SECRET, "tls"), 2),
        (("books", "nobody2", SECRET, "tls"), 2),
    ):
        assert inside(node, "postgresql", "verify_user", *words, secret=b"x", code=None).returncode == code, words
    admin(node, "GRANT nanocloud_plain TO books")
    inside(node, "postgresql", "verify_user", "books", "books", SECRET, "tls", secret=b"x", code=1)


def test_an_application_can_have_the_locale_it_demands(node: TestNode) -> None:
    for name, locale, upper in (("chat", "C", "\u00e4"), ("wiki", "C.UTF-8", "\u00c4")):
        inside(node, "postgresql", "create_user", name, name, SECRET, "tls", locale, secret=b"x")
        inside(node, "postgresql", "verify_user", name, name, SECRET, "tls", locale, secret=b"x")
        about = "SELECT datcollate, datctype, pg_encoding_to_char(encoding), upper('\u00e4') FROM pg_database"
        found = admin(node, f"{about} WHERE datname = current_database()", name)
        assert found == f"{locale}|{locale}|UTF8|{upper}"


def test_revoking_ends_the_access_and_making_it_again_gives_the_data_back(node: TestNode) -> None:
    def command(name: str, *more: str, secret: bytes | None = None) -> None:
        inside(node, "postgresql", name, "notes", "notes", *more, secret=secret)

    command("revoke_user", "/dev/null")  # nothing is there
    command("create_user", SECRET, secret=b"one")
    client(node, "blog", "CREATE TABLE t AS SELECT 5 AS five", database="notes", user="notes", password="one")
    words = (PSQL, "-X", "host=postgresql.default.svc dbname=notes user=notes", "-c", "SELECT pg_sleep(1000)")
    with running(node, "postgresql", *words, network_of="blog", environment={"PGPASSWORD": "one"}) as session:
        count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'notes' AND query LIKE '%pg_sleep%'"
        eventually(lambda: admin(node, count) == "1")
        for _ in range(2):
            command("revoke_user", "/dev/null")
        assert "terminating connection" in session.communicate(timeout=30)[0]
        assert session.returncode == 2
    assert "authentication failed" in client(
        node, "blog", "SELECT 1", database="notes", user="notes", password="one", code=2
    )
    assert admin(node, "SELECT five FROM t", "notes") == "5"
    command("create_user", SECRET, "tls", secret=b"two")
    assert client(node, "blog", "UPDATE t SET five = 6 RETURNING five", database="notes", user="notes", password="two")
    # Another account does not take it over.
    done = inside(node, "postgresql", "create_user", "notes", "thief", SECRET, secret=b"x", code=3)
    assert 'database "notes" belongs to the user "notes"' in done.stderr
    # The other dependants never noticed.
    assert client(node, "blog", "SELECT 1") == "1"


def test_a_dependant_can_have_its_account_by_another_name(node: TestNode) -> None:
    """Then the old name is revoked before the new one is made; what is in the database belongs to the new one."""
    for former, name in (("", "anna"), ("anna", "berta"), ("berta", "anna")):
        if former:
            inside(node, "postgresql", "revoke_user", "diary", former, "/dev/null")
        inside(node, "postgresql", "create_user", "diary", name, SECRET, secret=b"x")
        inside(node, "postgresql", "verify_user", "diary", name, SECRET, secret=b"x")
        statement = "ALTER TABLE t ADD COLUMN IF NOT EXISTS more text" if former else "CREATE TABLE t (one text)"
        client(node, "blog", statement, database="diary", user=name, password="x")
    assert admin(node, "SELECT tableowner FROM pg_tables WHERE tablename = 't'", "diary") == "anna"


def test_a_change_to_tls_ends_sessions_in_the_clear(node: TestNode) -> None:
    inside(node, "postgresql", "create_user", "mail", "mail", SECRET, "plain", secret=b"x")
    with ExitStack() as stack:
        sessions = {}
        for mode in ("disable", "require"):
            target = f"host=postgresql.default.svc dbname=mail user=mail sslmode={mode} application_name={mode}"
            words = (PSQL, "-X", target, "-c", "SELECT pg_sleep(1000)")
            session = running(node, "postgresql", *words, network_of="blog", environment={"PGPASSWORD": "x"})
            sessions[mode] = stack.enter_context(session)
        names = "SELECT string_agg(application_name, ' ' ORDER BY application_name) FROM pg_stat_activity"
        names += " WHERE usename = 'mail'"
        eventually(lambda: admin(node, names) == "disable require")
        inside(node, "postgresql", "create_user", "mail", "mail", SECRET, "tls", secret=b"x")
        assert sessions["disable"].wait(30) == 2
        assert admin(node, names) == "require"
        inside(node, "postgresql", "revoke_user", "mail", "mail", "/dev/null", "tls")
        assert sessions["require"].wait(30) == 2


@pytest.mark.parametrize(
    ("words", "secret", "message"),
    [
        (("a`b", "u", SECRET), b"x", "database 'a`b' must be made of"),
        (("postgres", "u", SECRET), b"x", "database 'postgres' belongs to the server"),
        (("a", "nobody", SECRET), b"x", "user 'nobody' belongs to the server"),
        (("a", "pg_monitor", SECRET), b"x", "user 'pg_monitor' belongs to the server"),
        (("a", "u'; DROP", SECRET), b"x", "must be made of"),
        (("a" * 64, "u", SECRET), b"x", "longer than 63"),
        (("a", "u", "/nonexistent"), b"x", "cannot be read"),
        (("a", "u", SECRET), b"", "empty"),
        (("a", "u", SECRET), b"a\0b", "NUL"),
        (("a", "u", SECRET), b"\xff\xfe", "UTF-8"),
        (("a", "u", SECRET), b"x" * 257, "longer than 256"),
        (("a", "u", SECRET, "ssh"), b"x", "must be plain or tls"),
        (("a", "u", SECRET, "tls", "de_CH"), b"x", "must be C or C.UTF-8"),
        (("a", "u"), b"x", "usage: create_user"),
    ],
)
def test_bad_words_are_refused_by_name(node: TestNode, words: tuple[str, ...], secret: bytes, message: str) -> None:
    assert message in inside(node, "postgresql", "create_user", *words, secret=secret, code=64).stderr


def test_an_account_that_the_administrator_made_is_left_alone(node: TestNode) -> None:
    admin(node, "CREATE ROLE chief LOGIN SUPERUSER")
    for words in (("create_user", "a", "chief", SECRET), ("revoke_user", "a", "chief", "/dev/null")):
        done = inside(node, "postgresql", *words, secret=b"x", code=3)
        assert 'user "chief" exists, and create_user did not make it' in done.stderr


def test_uninstalling_a_dependant_takes_its_account_and_keeps_its_data(node: TestNode) -> None:
    client(node, "blog", "CREATE TABLE posts AS SELECT 'first' AS title")
    image = f"oci:{node.folder / 'clients'}:client"
    node.cli("uninstall", "blog", seconds=MINUTES)
    roles = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname IN ('blog', 'shop')"
    assert admin(node, f"{roles} AND rolcanlogin") == "shop"
    assert client(node, "shop", "SELECT 1") == "1"
    node.cli("install", "blog", "--image", image, seconds=MINUTES)
    assert client(node, "blog", "SELECT title FROM posts") == "first"


def test_a_first_start_that_is_cut_short_leaves_no_half_a_server(node: TestNode) -> None:
    node.create("second", {"service": "postgresql"})
    found = node.until("pods", "second-0", lambda pod: bool(pod) and phase(pod) == "Running")
    assert not is_ready(found)
    volume = Path(f"/proc/{node.process_of('second')}/root/var/lib/postgresql")
    eventually(lambda: (volume / "15.new" / "global").exists())
    assert not (volume / "15").exists()
    os.kill(node.process_of("second"), signal.SIGKILL)
    node.until("pods", "second-0", lambda pod: is_ready(pod) and restarts(pod) == 1)
    inside(node, "second", "create_user", "a", "a", SECRET, "tls", secret=b"x")
    inside(node, "second", "verify_user", "a", "a", SECRET, "tls", secret=b"x")


def test_data_outlives_the_container_and_a_power_cut(node: TestNode) -> None:
    client(node, "shop", "CREATE TABLE kept AS SELECT 1 AS one")
    words = (PSQL, "-X", "host=postgresql.default.svc dbname=shop user=shop", "-c", "SELECT pg_sleep(1000)")
    password = {"PGPASSWORD": environment_of(node, "shop")["PASSWORD"]}
    with running(node, "postgresql", *words, network_of="shop", environment=password) as session:
        eventually(lambda: "pg_sleep" in admin(node, "SELECT query FROM pg_stat_activity WHERE usename = 'shop'"))
        # A client that stays does not hold it up: 30 seconds after the signal it would be killed.
        node.cli("restart", "postgresql", seconds=25)
        assert session.wait(30) == 2
    assert client(node, "shop", "SELECT one FROM kept") == "1"
    assert "was not properly shut down" not in node.cli("logs", "postgresql").stdout

    os.kill(node.process_of("postgresql"), signal.SIGKILL)
    node.until("pods", "postgresql-0", lambda pod: is_ready(pod) and restarts(pod) == 1)
    assert client(node, "shop", "SELECT one FROM kept") == "1"
    assert "was not properly shut down" in node.cli("logs", "postgresql").stdout


def restarts(pod: dict[str, Any] | None) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"]) if pod else -1
