"""The directory as people, administrators and dependants use it, with OpenLDAP's own client over published ports."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode

pytestmark = pytest.mark.images
node = catalogue_fixture("openldap")

BASE = "dc=example,dc=org"
LDAP, LDAPS = "ldap://127.0.0.1:10389", "ldaps://127.0.0.1:10636"
REFUSED = 49
"""ldapsearch ends with the result code of LDAP; this one is invalidCredentials."""
OPTIONS = {
    "identity=&openldap": [
        "*identity_host",
        "*identity_port",
        "*identity_base_dn",
        "&create_account $identity_account $identity_password $identity_transport",
    ],
    "identity_account": ["!bundle"],
    "identity_password": ["!rand 24 alnum"],
    "identity_transport=plain": [],
    "identity_transport=tls": [],
    "env_PASSWORD": ["*identity_password", "$identity_password"],
    "env_DN": [
        "*identity_account",
        "*identity_base_dn",
        "cn=$identity_account,ou=services,$identity_base_dn",
    ],
}


def came_back(pod: dict[str, Any] | None) -> bool:
    """Whether the container was started again and is ready."""
    status = pod["status"]["containerStatuses"][0] if pod else {}
    return bool(status.get("ready")) and status.get("restartCount", 0) > 0


class Directory:
    def __init__(self, node: TestNode, folder: Path) -> None:
        self._node, self._folder = node, folder

    def ldap(
        self, tool: str, *words: str, dn: str, password: str, url: str = LDAPS, code: int = 0, authority: str = ""
    ) -> str:
        file = self._folder / "password"
        file.write_text(password)
        file.chmod(0o600)
        environment = {"LDAPTLS_CACERT": authority or str(self.authority), "LDAPTLS_REQCERT": "demand"}
        options = ("-x", "-H", url, "-D", dn, "-y", file)
        return self._node.run(tool, *options, *words, environment=environment, code=code).stdout

    def search(self, *words: str, base: str = BASE, **options: Any) -> str:
        return self.ldap("ldapsearch", "-LLL", "-o", "ldif-wrap=no", "-b", base, *words, **options)

    def person(self, *words: str, stdin: str = "", code: int = 0) -> str:
        """The administrator's helper in the image."""
        done = self._node.cli("exec", "-i", "openldap", "--", "person", *words, stdin=stdin, code=code)
        return done.stdout if code == 0 else done.stderr

    @property
    def authority(self) -> Path:
        file = self._folder / "ca.crt"
        if not file.exists():
            file.write_text(self._node.cli("exec", "openldap", "--", "cat", "/run/nanocloud/tls/ca.crt").stdout)
        return file


@pytest.fixture(scope="module")
def directory(node: TestNode, tmp_path_factory: pytest.TempPathFactory) -> Directory:
    options = (f"base_dn={BASE}", "organization=Föö & Söns", "log=operations", "port_1=10389->389", "port_2=10636->636")
    node.cli("install", "openldap", *(word for option in options for word in ("-o", option)), seconds=MINUTES)
    return Directory(node, tmp_path_factory.mktemp("directory"))


@pytest.fixture(scope="module")
def dependants(node: TestNode, directory: Directory) -> dict[str, tuple[str, str]]:
    """Two services that are bound to the directory, one in the clear and one over TLS: their names and passwords."""
    image = node.layout.add("dependant", command=["sleep", "86400"], labels={"io.nanocloud.options": OPTIONS})
    found = {}
    for name, transport in (("desk", "plain"), ("mail", "tls")):
        node.cli("install", name, "--image", image, "-o", f"identity_transport={transport}", seconds=MINUTES)
        environment = node.env_of(name)
        found[name] = (environment["DN"], environment["PASSWORD"])
    return found


def test_a_person_is_added_logs_in_changes_the_password_and_is_removed(directory: Directory) -> None:
    ada = f"uid=ada,ou=people,{BASE}"
    directory.person("add", "ada", "Ada Lövelace", "ada@example.org", stdin="pässword one\n")
    assert "uid: ada" in directory.search(base=ada, dn=ada, password="pässword one")
    directory.search(dn=ada, password="wrong", code=REFUSED)
    # An empty password would be an anonymous login under the name of somebody.
    assert directory.search(dn=ada, password="", code=53) == ""
    directory.ldap("ldappasswd", "-s", "two", dn=ada, password="pässword one")
    directory.search(dn=ada, password="pässword one", code=REFUSED)
    # A person sees who they are, and of the others nothing.
    directory.person("add", "bob", "Bob", stdin="bob's")
    seen = directory.search(dn=ada, password="two", code=32)
    assert seen == ""
    directory.person("password", "ada", stdin="three")
    directory.search(base=ada, dn=ada, password="three")
    assert "userPassword" not in directory.search(base=ada, dn=ada, password="three")
    directory.person("remove", "ada")
    directory.search(dn=ada, password="three", code=REFUSED)
    assert "uid: ada" not in directory.person("list")
    directory.person("remove", "bob")


def test_a_person_that_cannot_be_added_is_refused_with_the_reason(directory: Directory) -> None:
    assert "uid 'a,b' must be made of" in directory.person("add", "a,b", "A B", stdin="x", code=1)
    assert "the password is empty" in directory.person("add", "cy", "Cy", stdin="\n", code=1)
    assert "no password was given" in directory.person("add", "cy", "Cy", stdin="", code=1)
    assert "usage: person add" in directory.person("add", "cy", stdin="x", code=64)
    assert "No such object" in directory.person("remove", "nobody", code=32)
    directory.person("add", "dee", "Dee", stdin="x")
    assert "Already exists" in directory.person("add", "dee", "Dee", stdin="x", code=68)
    directory.person("remove", "dee")


def test_the_administrator_can_do_everything_from_outside(node: TestNode, directory: Directory) -> None:
    admin = {"dn": f"cn=admin,{BASE}", "password": node.env_of("openldap")["OPENLDAP_ADMIN_PASSWORD"]}
    assert "o:: RsO2w7YgJiBTw7Zucw==" in directory.search("-s", "base", **admin)
    entry = directory._folder / "eve.ldif"
    entry.write_text(
        f"dn: uid=eve,ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: eve\ncn: Eve\nsn: Eve\nuserPassword: clear\n\n"
        f"dn: cn=staff,ou=groups,{BASE}\nobjectClass: groupOfNames\ncn: staff\nmember: uid=eve,ou=people,{BASE}\n"
    )
    directory.ldap("ldapadd", "-f", str(entry), **admin)
    eve = f"uid=eve,ou=people,{BASE}"
    # The password came in the clear and is kept as a hash; the person knows her groups.
    (stored,) = [line for line in directory.search(base=eve, **admin).splitlines() if line.startswith("userPassword")]
    assert stored.startswith("userPassword:: e0FSR09OMn0k")  # {ARGON2}$
    assert f"memberOf: cn=staff,ou=groups,{BASE}" in directory.search("memberOf", base=eve, dn=eve, password="clear")
    twin = directory._folder / "twin.ldif"
    twin.write_text(f"dn: cn=twin,ou=people,{BASE}\nobjectClass: inetOrgPerson\nuid: eve\ncn: twin\nsn: twin\n")
    directory.ldap("ldapadd", "-f", str(twin), code=19, **admin)  # constraintViolation: no two people of one uid
    directory.ldap("ldapdelete", f"cn=staff,ou=groups,{BASE}", eve, **admin)
    directory.search("-s", "base", dn=admin["dn"], password="wrong", code=REFUSED)


def test_nothing_is_shown_without_a_login(node: TestNode, directory: Directory) -> None:
    environment = {"LDAPTLS_CACERT": str(directory.authority)}
    done = node.run("ldapsearch", "-x", "-LLL", "-H", LDAPS, "-b", BASE, environment=environment, code=32)
    assert done.stdout == ""


def test_each_dependant_reads_people_with_an_account_of_its_own(
    directory: Directory, dependants: dict[str, tuple[str, str]]
) -> None:
    directory.person("add", "fay", "Fay", stdin="fay's")
    assert {dn for dn, _ in dependants.values()} == {f"cn={n},ou=services,{BASE}" for n in ("desk", "mail")}
    for dn, password in dependants.values():
        seen = directory.search(dn=dn, password=password)
        assert f"dn: uid=fay,ou=people,{BASE}" in seen
        assert "userPassword" not in seen
        others = {other for other, _ in dependants.values()} - {dn}
        assert not [other for other in others if other in seen]
        directory.ldap("ldapdelete", f"uid=fay,ou=people,{BASE}", dn=dn, password=password, code=50)
        directory.ldap("ldappasswd", "-s", "x", others.pop(), dn=dn, password=password, code=1)
    directory.person("remove", "fay")


def test_an_account_for_tls_is_let_in_over_tls_alone(
    node: TestNode, directory: Directory, dependants: dict[str, tuple[str, str]]
) -> None:
    dn, password = dependants["mail"]
    directory.search("-s", "base", dn=dn, password=password, url=LDAPS)
    directory.search("-s", "base", "-ZZ", dn=dn, password=password, url=LDAP)
    directory.search("-s", "base", dn=dn, password=password, url=LDAP, code=REFUSED)
    dn, password = dependants["desk"]
    directory.search("-s", "base", dn=dn, password=password, url=LDAP)
    log = node.cli("logs", "openldap").stdout
    assert "TLS established tls_ssf=256" in log
    assert f'BIND dn="{dn}" mech=SIMPLE bind_ssf=0 ssf=0' in log
    # A certificate of another authority is not taken, with StartTLS or without.
    foreign = directory._folder / "foreign.crt"
    words = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=foreign", "-days", "1")
    subprocess.run(
        ("openssl", "req", "-x509", *words, "-keyout", "/dev/null", "-out", foreign), check=True, capture_output=True
    )
    directory.search(dn=dn, password=password, authority=str(foreign), code=255)
    directory.search("-ZZ", dn=dn, password=password, url=LDAP, authority=str(foreign), code=1)


def test_people_and_accounts_outlive_the_container_and_a_power_cut(
    node: TestNode, directory: Directory, dependants: dict[str, tuple[str, str]]
) -> None:
    directory.person("add", "gus", "Gus", stdin="gus's")
    os.kill(node.process_of("openldap"), signal.SIGKILL)
    node.until("pods", "openldap-0", came_back)
    for dn, password in dependants.values():
        assert "uid: gus" in directory.search("(uid=gus)", dn=dn, password=password)
    directory.person("remove", "gus")


def test_another_base_is_refused_once_the_directory_exists(node: TestNode, directory: Directory) -> None:
    node.cli("install", "openldap", "-o", "base_dn=dc=other", "--timeout", "10s", code=None)
    node.until("pods", "openldap-0", lambda _: "the volume holds the directory" in node.cli("logs", "openldap").stdout)
    assert "option base_dn is 'dc=other'" in node.cli("logs", "openldap").stdout
    node.cli("install", "openldap", "-o", f"base_dn={BASE}", seconds=MINUTES)
    directory.person("list")


def test_names_that_belong_to_another_dependant_and_bad_words_are_refused(
    node: TestNode, directory: Directory, dependants: dict[str, tuple[str, str]]
) -> None:
    words = ("--image", node.layout.reference("dependant"), "-o", "identity_account=desk")
    assert "desk" in node.cli("install", "thief", *words, code=None).stderr
    assert node.get("bundles", "thief") is None
    node.cli("exec", "-i", "openldap", "--", "sh", "-c", "cat > /tmp/word; : > /tmp/empty", stdin="word")
    for words, why in (
        (("a,b", "/tmp/word"), "name 'a,b' must be made of"),
        (("", "/tmp/word"), "name '' must be made of"),
        (("a" * 65, "/tmp/word"), "is longer than 64 characters"),
        (("a", "/tmp/word", "ssh"), "transport 'ssh' must be plain or tls"),
        (("a", "/nonexistent"), "the password cannot be read from /nonexistent"),
        (("a", "/tmp/empty"), "the password is empty"),
        (("a",), "usage: create_account NAME PASSWORD_PATH [plain|tls]"),
    ):
        done = node.cli("exec", "openldap", "--", "/usr/lib/nanocloud/bindings/create_account", *words, code=64)
        assert why in done.stderr


def test_an_account_turns_to_tls_when_its_dependant_does(
    node: TestNode, directory: Directory, dependants: dict[str, tuple[str, str]]
) -> None:
    dn, password = dependants["desk"]
    directory.search("-s", "base", dn=dn, password=password, url=LDAP)
    image = node.layout.reference("dependant")
    node.cli("install", "desk", "--image", image, "-o", "identity_transport=tls", seconds=MINUTES)
    directory.search("-s", "base", dn=dn, password=password, url=LDAP, code=REFUSED)
    directory.search("-s", "base", "-ZZ", dn=dn, password=password, url=LDAP)


def test_who_is_uninstalled_loses_its_account_even_on_an_open_connection(
    node: TestNode, directory: Directory, dependants: dict[str, tuple[str, str]]
) -> None:
    directory.person("add", "hal", "Hal", stdin="hal's")
    dn, password = dependants["mail"]
    secret = directory._folder / "mail"
    secret.write_text(password)
    secret.chmod(0o600)
    # One search for each line of its input, all on one connection.
    words = ("-x", "-LLL", "-H", LDAPS, "-D", dn, "-y", str(secret), "-b", BASE, "-f", "/dev/stdin", "(uid=%s)")
    environment = node.environment | {"LDAPTLS_CACERT": str(directory.authority)}
    command = node.inside("stdbuf", "-oL", "ldapsearch", *words, "1.1")
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as open_one:
        assert open_one.stdin is not None
        assert open_one.stdout is not None
        open_one.stdin.write("hal\n")
        open_one.stdin.flush()
        while (line := open_one.stdout.readline()) and not line.startswith("dn: uid=hal"):
            pass
        assert line
        node.cli("uninstall", "mail", seconds=MINUTES)
        said, reason = open_one.communicate("hal\n", timeout=60)
    assert "uid=hal" not in said
    assert "No such object" in reason
    directory.search(dn=dn, password=password, code=REFUSED)
    dn, password = dependants["desk"]
    assert "uid: hal" in directory.search("(uid=hal)", dn=dn, password=password)
    directory.person("remove", "hal")
