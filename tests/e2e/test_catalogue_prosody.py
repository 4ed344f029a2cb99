"""Chat with the people of the directory: who is in it logs in, who is not stays out, and they talk to each other."""

from __future__ import annotations

import json
import ssl
import subprocess
from pathlib import Path
from xml.etree.ElementTree import tostring

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode
from xmpp import Client, LoginError

pytestmark = pytest.mark.images
node = catalogue_fixture("openldap", "prosody")

DOMAIN = "prosody.nanocloud.local"


def add_person(node: TestNode, name: str, password: str) -> None:
    node.cli("exec", "-i", "openldap", "--", "person", "add", name, name.title(), stdin=password)


@pytest.fixture(scope="module")
def authority(node: TestNode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat server over TLS, with Ada and Bob in its directory; the node's authority, as clients have it."""
    options = ("-o", "identity_transport=tls", "--timeout", "5m")
    node.cli("install", "openldap", "-o", "log=operations", seconds=MINUTES)
    node.cli("install", "prosody", *options, seconds=MINUTES)
    add_person(node, "ada", "pässword & <one>")
    add_person(node, "bob", "bob's")
    file = tmp_path_factory.mktemp("chat") / "ca.crt"
    file.write_text(node.cli("exec", "prosody", "--", "cat", "/run/nanocloud/tls/ca.crt").stdout)
    return file


def client(node: TestNode, authority: Path, *, port: int = 5222) -> Client:
    with node.entered():
        return Client(("127.0.0.1", port), DOMAIN, authority, direct=port == 5223)


def refusal(node: TestNode, authority: Path, name: str, password: str) -> str:
    with client(node, authority) as stranger, pytest.raises(LoginError) as caught:
        stranger.log_in(name, password)
    return str(caught.value)


def test_people_of_the_directory_talk_to_each_other(node: TestNode, authority: Path) -> None:
    with client(node, authority) as ada, client(node, authority, port=5223) as bob:
        # Nothing but TLS is offered to who comes in the clear, least of all a login.
        offered = tostring(ada.clear_features, encoding="unicode")
        assert "starttls" in offered
        assert "PLAIN" not in offered
        ada.log_in("ada", "pässword & <one>")
        bob.log_in("bob", "bob's")
        ada.say("bob", "Is 1 < 2 & 3?")
        assert bob.heard() == ("ada", "Is 1 < 2 & 3?")
        bob.say("ada", "yes")
        assert ada.heard() == ("bob", "yes")


@pytest.mark.parametrize(
    ("name", "password"),
    [("ada", "wrong"), ("ada", ""), ("nobody", "x"), ("*", "bob's"), ("ada)(uid=*", "pässword & <one>")],
)
def test_a_wrong_password_and_an_unknown_name_are_refused(
    node: TestNode, authority: Path, name: str, password: str
) -> None:
    assert refusal(node, authority, name, password) in ("not-authorized", "malformed-request")


def test_who_left_the_directory_cannot_log_in_any_more(node: TestNode, authority: Path) -> None:
    add_person(node, "cy", "cy's")
    with client(node, authority) as cy:
        cy.log_in("cy", "cy's")
    node.cli("exec", "openldap", "--", "person", "remove", "cy")
    assert refusal(node, authority, "cy", "cy's") == "not-authorized"


def test_messages_wait_for_people_and_outlive_both_servers(node: TestNode, authority: Path) -> None:
    with client(node, authority) as ada:
        ada.log_in("ada", "pässword & <one>")
        ada.say("bob", "until tomorrow")
        ada.say("ada", "done")
        assert ada.heard() == ("ada", "done")  # in order, so the other one was taken too
    node.cli("restart", "openldap", seconds=MINUTES)
    node.cli("restart", "prosody", seconds=MINUTES)
    with client(node, authority) as bob:
        bob.log_in("bob", "bob's")
        assert bob.heard() == ("ada", "until tomorrow")


def test_the_directory_may_restart_under_a_running_chat_server(node: TestNode, authority: Path) -> None:
    before = node.process_of("prosody")
    with client(node, authority) as ada:
        ada.log_in("ada", "pässword & <one>")
    node.cli("restart", "openldap", seconds=MINUTES)
    with client(node, authority) as ada:
        ada.log_in("ada", "pässword & <one>")
    assert node.process_of("prosody") == before


def test_passwords_reach_the_directory_over_tls_alone(node: TestNode, authority: Path) -> None:
    with client(node, authority) as ada:
        ada.log_in("ada", "pässword & <one>")
    log = node.cli("logs", "openldap").stdout
    account, ada_dn = (f"{name},dc=nanocloud,dc=local" for name in ("cn=prosody,ou=services", "uid=ada,ou=people"))
    assert "TLS established tls_ssf=256" in log
    for dn in (account, ada_dn):
        binds = [line for line in log.splitlines() if f'BIND dn="{dn}" mech=SIMPLE' in line]
        assert binds
        assert {line.rpartition(" ")[2] for line in binds} == {"ssf=256"}
    # With its own password the account is refused without TLS: the directory holds it to that, not its good will.
    login = (
        "local l, why = require 'lualdap'.open_simple('openldap.default.svc:389', 'cn=prosody,ou=services,"
        "dc=nanocloud,dc=local', os.getenv('PROSODY_LDAP_PASSWORD'), arg[1] == 'tls'); print(l and 'in' or why)"
    )
    script = f'LDAPCONF=/usr/share/nanocloud/ldap.conf exec lua5.4 - "$0" << LUA\n{login}\nLUA'
    said = {how: node.cli("exec", "prosody", "--", "sh", "-c", script, how).stdout.strip() for how in ("tls", "plain")}
    assert said == {"tls": "in", "plain": "Invalid credentials"}


def test_a_directory_of_another_authority_is_refused(node: TestNode, authority: Path) -> None:
    foreign = authority.with_name("foreign.crt")
    words = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=foreign", "-days", "1")
    subprocess.run(
        ("openssl", "req", "-x509", *words, "-keyout", "/dev/null", "-out", foreign), check=True, capture_output=True
    )
    # What start.sh asks before the server runs, with the node's authority and with another.
    script = "cat > /tmp/other.crt; for ca in /run/nanocloud/tls/ca.crt /tmp/other.crt; do LDAPTLS_CACERT=$ca"
    script += " LDAPCONF=/usr/share/nanocloud/ldap.conf lua5.4 /usr/share/nanocloud/identity.lua 0 2>&1; echo $?; done"
    done = node.cli("exec", "-i", "prosody", "--", "sh", "-c", script, stdin=foreign.read_text())
    taken, said, refused = done.stdout.strip().splitlines()
    assert (taken, refused) == ("0", "1")
    assert "no login to the directory openldap.default.svc:389 as cn=prosody" in said
    # People's clients look as closely.
    with pytest.raises(ssl.SSLCertVerificationError):
        client(node, foreign)


def test_a_second_chat_server_has_its_own_account_and_can_do_without_a_directory(
    node: TestNode, authority: Path
) -> None:
    ports = ("-o", "port_1=5322->5222", "-o", "port_2=5323->5223")
    image = f"oci:{node.layout.folder}:prosody"
    node.cli("install", "team", "--image", image, "-o", "identity=local", *ports, seconds=MINUTES)
    assert not json.loads(node.cli("status", "team", "-o", "json").stdout)["status"].get("bindings")
    adding = ("prosodyctl", "register", "eve", "team.nanocloud.local", "eve's")
    node.cli("exec", "team", "--", *adding)
    with node.entered():
        stream = Client(("127.0.0.1", 5322), "team.nanocloud.local", authority)
    with stream as eve:
        eve.log_in("eve", "eve's")
    node.cli("install", "team", "--image", image, "-o", "identity=openldap", *ports, seconds=MINUTES)
    with node.entered():
        stream = Client(("127.0.0.1", 5322), "team.nanocloud.local", authority)
    with stream as bob:
        bob.log_in("bob", "bob's")
    assert node.env_of("team")["PROSODY_LDAP_PASSWORD"] != node.env_of("prosody")["PROSODY_LDAP_PASSWORD"]
    with client(node, authority) as bob:
        bob.log_in("bob", "bob's")
