"""What a build learns of the host's way to PyPI, npm, Maven Central and Go modules, and that it forgets it again."""

from __future__ import annotations

import configparser
import io
import json
import os
import re
import shutil
import ssl
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import pkcs12

from nanocloud.errors import InvalidError
from nanocloud_dockyard.builder import Builder
from nanocloud_dockyard.decompress import DigestedInput, LayerStream
from nanocloud_dockyard.host_registries import capture
from nanocloud_dockyard.recipes import CATALOG

IN_BUILD = "/usr/lib/nanocloud/host-registries"
EPOCH = 1735689600
WITH_REGISTRIES = CATALOG / "_base" / "with-registries"


class Host:
    """A host's home and ``/etc``; ``capture`` reads them."""

    def __init__(self, folder: Path) -> None:
        self.home, self.etc, self.taken = folder / "home", folder / "etc", folder / "taken"
        self.environment: dict[str, str] = {}

    def write(self, path: str, text: str | bytes) -> Path:
        """``path`` begins with ``home/`` or ``etc/``."""
        file = self.home.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def exports(self) -> dict[str, str]:
        """The environment that a shell has after reading what was captured."""
        capture(self.taken, environment=self.environment, home=self.home, etc=self.etc, epoch=EPOCH)
        script = f". {self.taken / 'environment'}; exec env -0"
        done = subprocess.run(("env", "-i", "sh", "-ec", script), capture_output=True, text=True, check=True)
        pairs = (line.partition("=") for line in done.stdout.split("\0") if line)
        return {name: value for name, _, value in pairs if name != "PWD"}

    def text(self, name: str) -> str:
        return (self.taken / name).read_text()

    def pip(self) -> dict[str, dict[str, str]]:
        parser = configparser.RawConfigParser()
        parser.read(self.taken / "pip.conf")
        return {name: dict(parser.items(name)) for name in parser.sections()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def pem() -> bytes:
    return trustme.CA().cert_pem.bytes()


def test_a_host_without_settings_leaves_the_clients_their_defaults(host: Host) -> None:
    exports = host.exports()
    assert exports["SOURCE_DATE_EPOCH"] == str(EPOCH)
    assert exports["PIP_CACHE_DIR"] == "/var/cache/nanocloud/pip"
    for name in ("GOPROXY", "GOSUMDB", "NETRC", "https_proxy", "PIP_CERT", "SSL_CERT_FILE", "JAVA_TOOL_OPTIONS"):
        assert name not in exports
    assert host.pip() == {}
    assert host.text("npmrc") == ""
    assert sorted(path.name for path in host.taken.iterdir()) == ["environment", "npmrc", "pip.conf"]


def test_what_was_captured_is_readable_by_root_only_and_the_last_one_is_gone(host: Host) -> None:
    host.write("home/.netrc", "machine pypi.example login a password b")
    host.exports()
    for path in (host.taken, *host.taken.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0
    (host.home / ".netrc").unlink()
    host.exports()
    assert not (host.taken / "netrc").exists()


def test_pip_reads_the_users_file_before_the_systems_and_the_environment_before_both(host: Host) -> None:
    host.write("etc/pip.conf", "[global]\nindex-url = https://system.example/\nproxy = http://proxy.example:3128\n")
    host.write("home/.config/pip/pip.conf", "[global]\nindex_url = https://user:pass@user.example/\n")
    host.exports()
    assert host.pip()["global"] == {
        "index-url": "https://user:pass@user.example/",
        "proxy": "http://proxy.example:3128",
    }
    host.write("home/.config/pip/pip.conf", "[install]\nindex-url = https://section.example/\n")
    host.environment["PIP_INDEX_URL"] = "https://environment.example/"
    host.exports()
    assert host.pip() == {"global": {"index-url": "https://environment.example/", "proxy": "http://proxy.example:3128"}}


def test_pip_keeps_several_indexes_and_drops_what_only_the_host_has(host: Host) -> None:
    host.write(
        "etc/pip.conf",
        "[global]\nextra-index-url =\n  https://a.example/%41\n  https://b.example/\nfind-links = /opt/wheels\n"
        "no-index = true\ncache-dir = /var/cache/pip\ntarget = /opt\n[install]\nuser = true\n",
    )
    host.environment |= {"PIP_FIND_LINKS": "/opt/wheels", "PIP_DEFAULT_TIMEOUT": "180"}
    exports = host.exports()
    assert {name: value.split() for name, value in host.pip()["global"].items()} == {
        "extra-index-url": ["https://a.example/%41", "https://b.example/"],
        "timeout": ["180"],
    }
    assert list(host.pip()) == ["global"]
    assert "PIP_FIND_LINKS" not in exports


def test_pip_can_be_told_by_the_host_to_read_no_file(host: Host) -> None:
    host.write("etc/pip.conf", "[global]\nindex-url = https://system.example/\n")
    host.environment["PIP_CONFIG_FILE"] = os.devnull
    host.exports()
    assert host.pip() == {}


def test_every_authority_that_a_client_of_the_host_trusts_is_trusted_in_the_build(host: Host) -> None:
    system, proxy, pip, npm = pem(), pem(), pem(), pem()
    host.write("etc/ssl/certs/ca-certificates.crt", system + proxy)
    host.write("etc/pip.conf", f"[global]\ncert = {host.write('etc/pip.pem', pip)}\n")
    host.write("home/.npmrc", "cafile=~/npm.pem\n")
    host.write("home/npm.pem", npm.replace(b"\n", b"\r\n"))
    host.environment |= {"SSL_CERT_FILE": str(host.write("etc/proxy.pem", proxy)), "CURL_CA_BUNDLE": "/nonexistent"}
    exports = host.exports()
    for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "NPM_CONFIG_CAFILE"):
        assert exports[name] == f"{IN_BUILD}/ca.pem"
    blocks = re.findall(r"-----BEGIN.+?-----END CERTIFICATE-----\n", host.text("ca.pem"), re.DOTALL)
    assert sorted(blocks) == sorted(one.decode() for one in (system, proxy, pip, npm))
    ssl.create_default_context(cafile=str(host.taken / "ca.pem"))
    store = pkcs12.load_pkcs12((host.taken / "trust.p12").read_bytes(), b"changeit")
    assert len(store.additional_certs) == 4
    assert f"trustStore={IN_BUILD}/trust.p12" in exports["JAVA_TOOL_OPTIONS"]
    assert "cert" not in host.pip().get("global", {})


def test_client_certificates_are_copied_to_where_the_build_finds_them(host: Host) -> None:
    host.write("etc/pip.conf", f"[global]\nclient-cert = {host.write('home/client.pem', 'key and certificate')}\n")
    host.write("home/.npmrc", "//npm.example/:certfile=~/npm.pem\n//npm.example/:keyfile=/nonexistent\n")
    host.write("home/npm.pem", "certificate")
    host.exports()
    copied = host.pip()["global"]["client-cert"]
    assert host.text(copied.removeprefix(f"{IN_BUILD}/")) == "key and certificate"
    (line,) = host.text("npmrc").splitlines()
    key, _, copied = line.partition("=")
    assert key == "//npm.example/:certfile"
    assert host.text(copied.removeprefix(f"{IN_BUILD}/")) == "certificate"


def test_npm_keeps_registries_scopes_and_tokens_and_nothing_else(host: Host) -> None:
    host.write("etc/npmrc", "registry=https://system.example/\nfund=false\nnodedir=/usr\nprefix=/opt/npm\n")
    host.write(
        "home/.npmrc",
        "; a remark\n@team:registry = 'https://team.example/'\n//team.example/:_authToken=${TOKEN}\n"
        "ca[]=one\nca[]=two\nscript-shell=/bin/zsh\n",
    )
    host.environment |= {"TOKEN": "t0ken", "NPM_CONFIG_REGISTRY": "https://environment.example/"}
    host.environment["npm_config_strict_ssl"] = "false"
    exports = host.exports()
    assert sorted(host.text("npmrc").splitlines()) == [
        "//team.example/:_authToken=t0ken",
        "@team:registry=https://team.example/",
        "ca[]=one",
        "ca[]=two",
        "registry=https://environment.example/",
        "strict-ssl=false",
    ]
    assert exports["NPM_CONFIG_USERCONFIG"] == f"{IN_BUILD}/npmrc"


def test_go_takes_the_environment_before_what_go_env_wrote(host: Host) -> None:
    host.write("home/.config/go/env", "GOPROXY=https://written.example\nGOSUMDB=off\nGOFLAGS=-mod=mod\nGOBIN=/opt\n")
    host.environment["GOPROXY"] = "https://user:pass@environment.example,direct"
    exports = host.exports()
    assert exports["GOPROXY"] == "https://user:pass@environment.example,direct"
    assert exports["GOSUMDB"] == "off"
    assert exports["GOMODCACHE"] == "/var/cache/nanocloud/go/modules"
    assert "GOFLAGS" not in exports
    assert "GOBIN" not in exports
    host.environment = {"GOENV": "off"}
    assert "GOSUMDB" not in host.exports()


def test_maven_settings_of_user_and_system_become_one(host: Host) -> None:
    names = 'xmlns="http://maven.apache.org/SETTINGS/1.0.0"'
    host.write(
        "home/.m2/settings.xml",
        f"<settings {names}><localRepository>/srv/m2</localRepository><servers><server><id>mine</id>"
        "<password>${env.PASSWORD}</password></server></servers><mirrors><mirror><id>a</id><url>https://user.example"
        "</url></mirror></mirrors></settings>",
    )
    host.write(
        "etc/maven/settings.xml",
        "<settings><mirrors><mirror><id>a</id><url>https://system.example</url></mirror><mirror><id>b</id>"
        "<url>https://b.example</url></mirror></mirrors><proxies><proxy><id>p</id></proxy></proxies></settings>",
    )
    host.write("home/.m2/settings-security.xml", "<settingsSecurity/>")
    host.environment["PASSWORD"] = "a<b&c"
    exports = host.exports()
    settings = ElementTree.fromstring(host.text("maven/.m2/settings.xml"))
    space = {"": "http://maven.apache.org/SETTINGS/1.0.0"}
    assert [url.text for url in settings.findall("mirrors/mirror/url", space)] == [
        "https://user.example",
        "https://b.example",
    ]
    assert settings.findtext("servers/server/password", namespaces=space) == "a<b&c"
    assert settings.find("localRepository", space) is None
    assert settings.find("proxies/proxy", space) is not None
    assert f"-Duser.home={IN_BUILD}/maven" in exports["MAVEN_OPTS"]
    assert "-Dmaven.repo.local=/var/cache/nanocloud/maven" in exports["MAVEN_OPTS"]
    assert f"-Dsettings.security={IN_BUILD}/maven/.m2/settings-security.xml" in exports["MAVEN_OPTS"]


def test_proxies_hold_in_both_cases_and_quotes_do_no_harm(host: Host) -> None:
    host.environment |= {"https_proxy": "http://u:p'$(x)@proxy.example:3128", "NO_PROXY": "localhost,.example"}
    exports = host.exports()
    assert exports["HTTPS_PROXY"] == exports["https_proxy"] == "http://u:p'$(x)@proxy.example:3128"
    assert exports["NO_PROXY"] == exports["no_proxy"] == "localhost,.example"
    assert "http_proxy" not in exports


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("etc/pip.conf", "index-url = x\n", "pip.conf is not in pip's format: File contains no section headers"),
        ("home/.m2/settings.xml", "<settings>", "settings.xml is not XML: no element found"),
    ],
)
def test_settings_that_cannot_be_understood_are_an_error_that_names_the_file(
    host: Host, path: str, text: str, message: str
) -> None:
    file = host.write(path, text)
    with pytest.raises(InvalidError, match=re.escape(message)) as caught:
        host.exports()
    assert str(file) in str(caught.value)


def test_with_registries_runs_its_command_as_it_is_where_nothing_is_mounted() -> None:
    assert not Path(IN_BUILD).exists()
    done = subprocess.run(
        ("sh", WITH_REGISTRIES, "sh", "-c", 'echo "$#:$1:${PIP_CONFIG_FILE-none}"; exit 7', "x", "a  b"),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("1:a  b:none\n", 7)


STATE = os.environ.get("NANOCLOUD_TEST_STATE")
SECRET = "s3cret-of-the-index"
SEEN = f"""#!/bin/sh
set -eu
grep -q {SECRET} "$PIP_CONFIG_FILE"
env > /var/cache/nanocloud/seen
"""
RECIPE = """FROM nanocloud/debian:12
COPY seen /tmp/seen
RUN /usr/lib/nanocloud/with-registries sh /tmp/seen && rm /tmp/seen && echo done > /etc/probe
"""


@pytest.mark.root
@pytest.mark.images
def test_a_password_of_the_host_is_there_in_the_build_and_nowhere_in_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"https://user:{SECRET}@pypi.example/simple")
    monkeypatch.setenv("GOPROXY", f"https://user:{SECRET}@go.example")
    recipe = tmp_path / "catalog" / "probe"
    shutil.copytree(CATALOG / "nginx", recipe)
    (recipe / "Containerfile").write_text(RECIPE)
    (recipe / "seen").write_text(SEEN.replace(SECRET, "'s3cret-of-the-'index"))
    state = tmp_path / "state"
    (state / "images").mkdir(parents=True)
    shared = Path(str(STATE)).resolve() / "images/builder"
    shared.mkdir(parents=True, exist_ok=True)
    (state / "images/builder").symlink_to(shared)  # shares the base
    builder = Builder(state, catalog=tmp_path / "catalog", progress=lambda who, what: None)
    builder.build("probe")
    seen = state / "images/builder/cache/registries/seen"
    assert SECRET in seen.read_text()
    seen.unlink()

    def blob(digest: str) -> Path:
        return builder.layout / "blobs" / "sha256" / digest.removeprefix("sha256:")

    (descriptor,) = json.loads((builder.layout / "index.json").read_bytes())["manifests"]
    manifest = json.loads(blob(descriptor["digest"]).read_bytes())
    texts = [blob(descriptor["digest"]).read_bytes(), blob(manifest["config"]["digest"]).read_bytes()]
    for layer in manifest["layers"]:
        with blob(layer["digest"]).open("rb") as source:
            content = io.BytesIO()
            shutil.copyfileobj(LayerStream(DigestedInput(source.read, layer["size"])), content)
            texts.append(content.getvalue())
    assert b"etc/probe" in texts[-1]
    assert b"nanocloud/" not in texts[-1]  # neither the settings nor the downloads, nor where they were mounted
    for text in texts:
        assert SECRET.encode() not in text
        assert b"pypi.example" not in text
    assert SECRET not in (state / "logs/dockyard/probe.log").read_text()
