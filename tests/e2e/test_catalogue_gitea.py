"""Gitea's image around a stand-in for its program: what surrounds Gitea is tested, Gitea itself is not.

The release can be fetched where its authors' server is reached, which tests must not depend on. The recipe is the real
one but for the digest of its artifact; databases, bindings, TLS and the container are real.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from catalogue import MINUTES, STATE, catalogue_fixture
from nodes import TestNode

from nanocloud.config import NodeConfig
from nanocloud_dockyard import recipes
from nanocloud_dockyard.builder import Builder
from nanocloud_dockyard.check.checking import Checker

pytestmark = pytest.mark.images
node = catalogue_fixture("mariadb", "postgresql")
STAND_IN = Path(__file__).with_name("stand-in-gitea")
PASSWORD = 'slash\\quote"percent% #;'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The reference of an image that was built with ``--build-arg GITEA_BINARY=<stand-in>``."""
    folder = tmp_path_factory.mktemp("gitea")
    recipe = folder / "catalog" / "gitea"
    shutil.copytree(recipes.CATALOG / "gitea", recipe)
    real = recipes.load("gitea").artifacts[0].sha256
    text = (recipe / "recipe.toml").read_text()
    (recipe / "recipe.toml").write_text(text.replace(real, hashlib.sha256(STAND_IN.read_bytes()).hexdigest()))
    state = folder / "state"
    (state / "images").mkdir(parents=True)
    shared = Path(str(STATE)).resolve() / "images" / "builder"
    shared.mkdir(parents=True, exist_ok=True)
    (state / "images" / "builder").symlink_to(shared)  # shares the base
    builder = Builder(state, catalog=folder / "catalog", progress=lambda subject, message: print(subject, message))
    builder.build("gitea", arguments={"GITEA_BINARY": str(STAND_IN)})
    return f"oci:{builder.layout}:gitea"


def install(node: TestNode, image: str, name: str, database: str, transport: str, *more: str) -> None:
    words = [f"database={database}", f"database_transport={transport}", *more]
    options = [part for word in words for part in ("--option", word)]
    node.cli("install", name, "--image", image, *options, "--timeout", "5m", seconds=MINUTES)


def read(node: TestNode, name: str, file: str) -> str:
    return node.cli("exec", name, "--", "cat", file).stdout


def configuration(node: TestNode, name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string("[DEFAULT]\n" + read(node, name, "/tmp/gitea/app.ini"))
    return parser


def sql(node: TestNode, statement: str) -> str:
    return node.cli("exec", "mariadb", "--", "mariadb", "-N", "-e", statement).stdout.strip()


def test_the_image_keeps_every_rule(image: str, tmp_path: Path) -> None:
    checker = Checker(config=NodeConfig(state_dir=tmp_path), server=None, given={}, seconds=0.0, tell=print)
    report = checker.check(image)
    assert [finding for finding in report.findings if finding.rule != "image-age"] == [], report.text()


def test_a_plan_shows_the_database_the_binding_and_no_secret(node: TestNode, image: str) -> None:
    words = ("--option", "database=mariadb", "--option", "database_transport=tls", "--dry-run")
    plan = node.cli("install", "gitea", "--image", image, *words, code=2).stdout
    assert "+ service database: mariadb (to be installed)" in plan
    words_of_binding = "create_user $database_name $database_user $database_password $database_transport in mariadb"
    assert re.search(r"\+ binding \S+: " + re.escape(words_of_binding), plan)
    assert "+ option env_GITEA_DB_TYPE: mysql (macro !if)" in plan
    assert "+ option database_name: gitea (macro !bundle)" in plan
    for secret in ("admin_password", "database_password", "secret_key", "internal_token", "jwt_secret"):
        assert f"+ option {secret}: ********" in plan
    plan = node.cli("install", "gitea", "--image", image, "--option", "database=postgresql", "--dry-run", code=2).stdout
    assert "+ option env_GITEA_DB_TYPE: postgres (macro !if)" in plan
    assert "+ service database: postgresql (to be installed)" in plan


def test_with_mariadb_over_tls_the_server_is_verified_and_the_administrator_can_log_in(
    node: TestNode, image: str
) -> None:
    install(node, image, "forge", "mariadb", "tls", f"admin_password={PASSWORD}", "domain=git.example", "protocol=http")
    written = configuration(node, "forge")
    assert dict(written["database"]) | {"passwd": "", "app_name": ""} == {
        "db_type": "mysql",
        "host": "mariadb.default.svc:3306",
        "name": "`forge`",
        "user": "`forge`",
        "passwd": "",
        "ssl_mode": "true",
        "app_name": "",
        "run_user": "git",
        "run_mode": "prod",
    }
    assert written["database"]["passwd"] == f"`{node.env_of('forge')['GITEA_DB_PASSWORD']}`"
    assert written["server"]["root_url"] == "http://git.example:3000/"
    assert written["security"]["install_lock"] == "true"
    assert written["service"]["disable_registration"] == "true"
    # The stand-in compared the database's certificate with the authorities that Gitea is given.
    assert "Verify return code: 0 (ok)" in read(node, "forge", "/var/lib/gitea/stand-in/tls")
    assert sql(node, "SELECT ssl_type FROM mysql.user WHERE user = 'forge'") == "ANY"
    # The account has the wanted password, its token is gone, and no password was an argument or in the environment.
    assert read(node, "forge", "/var/lib/gitea/stand-in/user-administrator") == PASSWORD
    assert "token-" not in node.cli("exec", "forge", "--", "ls", "/var/lib/gitea/stand-in").stdout
    calls = [line.split("\0")[:3] for line in read(node, "forge", "/var/lib/gitea/stand-in/calls").splitlines()]
    assert calls[0][0] == "web"
    assert ["admin", "user", "create"] in calls
    said = read(node, "forge", "/var/lib/gitea/stand-in/calls") + read(
        node, "forge", "/var/lib/gitea/stand-in/environments"
    )
    for secret in (PASSWORD, node.env_of("forge")["GITEA_DB_PASSWORD"], node.env_of("forge")["GITEA_SECRET_KEY"]):
        assert secret not in said
    log = node.cli("logs", "forge").stdout
    assert PASSWORD not in log
    assert "made-up" not in log


def test_a_restart_ends_the_server_in_order_and_makes_no_second_account(node: TestNode) -> None:
    before = configuration(node, "forge")
    node.cli("restart", "forge", seconds=MINUTES)
    assert read(node, "forge", "/var/lib/gitea/stand-in/ends") == "TERM\n"
    calls = read(node, "forge", "/var/lib/gitea/stand-in/calls")
    assert calls.count("admin\0user\0create") == 1
    assert calls.count("web\0") == 2
    after = configuration(node, "forge")
    for section, key in (("security", "secret_key"), ("security", "internal_token"), ("oauth2", "jwt_secret")):
        assert before[section][key] == after[section][key]


def test_with_a_wrong_authority_the_database_is_refused(node: TestNode) -> None:
    """The same certificate, judged by authorities that do not include the node's."""
    command = (
        "openssl s_client -starttls mysql -connect mariadb.default.svc:3306 -verify_return_error "
        "-verify_hostname {} -CAfile {} < /dev/null"
    )
    for host, file, code in (
        ("mariadb.default.svc", "/tmp/gitea/ca.pem", 0),
        ("mariadb.default.svc", "/etc/ssl/certs/ca-certificates.crt", 1),
        ("other.default.svc", "/tmp/gitea/ca.pem", 1),
    ):
        node.cli("exec", "forge", "--", "sh", "-c", command.format(host, file), code=code)


def test_with_postgresql_over_tls_the_configuration_verifies_in_full(node: TestNode, image: str) -> None:
    node.cli("uninstall", "forge", seconds=MINUTES)
    install(node, image, "code", "postgresql", "tls", "registration=open")
    written = configuration(node, "code")
    assert written["database"]["db_type"] == "postgres"
    assert written["database"]["host"] == "postgresql.default.svc:5432"
    assert written["database"]["ssl_mode"] == "verify-full"
    assert written["service"]["disable_registration"] == "false"
    assert "Verify return code: 0 (ok)" in read(node, "code", "/var/lib/gitea/stand-in/tls")
    environment = read(node, "code", "/var/lib/gitea/stand-in/environments").splitlines()[0].split("\0")
    assert "PGSSLROOTCERT=/run/nanocloud/tls/ca.crt" in environment
    bindings = json.loads(node.cli("status", "code", "-o", "json").stdout)["status"]["bindings"]
    assert {binding["phase"] for binding in bindings} == {"Completed"}


def test_by_default_it_answers_over_https_with_the_nodes_certificate(node: TestNode) -> None:
    environment = node.env_of("code")
    assert environment["GITEA_PROTOCOL"] == "https"
    # It is ready, so these scripts verified the certificate. Others find it by the published port.
    password = environment["GITEA_ADMIN_PASSWORD"]
    assert read(node, "code", "/var/lib/gitea/stand-in/user-administrator") == password
    authority = node.folder / "authority.pem"
    authority.write_text(read(node, "code", "/run/nanocloud/tls/ca.crt"))
    url = "https://127.0.0.1:3000/api/healthz"
    retry = ("--retry", "5", "--retry-connrefused", "--retry-delay", "1")
    node.run("curl", "-sSf", *retry, "--cacert", authority, url)


def test_what_cannot_be_configured_is_refused(node: TestNode) -> None:
    def write(*changes: str, code: int = 0) -> str:
        done = node.cli("exec", "code", "--", "env", *changes, "/usr/lib/nanocloud/write-config", code=code)
        return done.stdout + done.stderr

    text = write("GITEA_PROTOCOL=https", "GITEA_DOMAIN=fd00::1")
    assert "ROOT_URL = https://[fd00::1]:3000/\n" in text
    assert "CERT_FILE = /run/nanocloud/tls/tls.crt\n" in text
    assert "LOCAL_ROOT_URL = https://localhost:3000/\n" in text
    for change, message in (
        ("GITEA_DB_PASSWORD=a`b", "GITEA_DB_PASSWORD must hold no backquote"),
        ("GITEA_TITLE=a\nb", "GITEA_TITLE must hold no backquote, no line break"),
        ("GITEA_ADMIN_PASSWORD=short", "admin_password must have 8 characters or more"),
        ("GITEA_DOMAIN=a b", "domain 'a b' is no host name or address"),
        ("GITEA_PROTOCOL=gopher", "protocol gopher must be http or https"),
        ("GITEA_TLS_KEY=/nonexistent", "there is no key and certificate for https"),
    ):
        extra = ["GITEA_PROTOCOL=https"] if "TLS" in change else []
        assert f"gitea: {message}" in write(change, *extra, code=64)
