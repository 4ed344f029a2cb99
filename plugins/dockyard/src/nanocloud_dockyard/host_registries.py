"""How this host reaches package registries (PyPI, npm, Maven Central, Go modules), so that builds reach them likewise.

The folder made here is mounted read-only while a recipe is built; the base's ``with-registries`` reads its file
``environment``, a shell script of exports. Downloads go to a second folder, mounted writable. Both are mounted on empty
folders of the base, so no layer holds anything of them. Only settings that find, reach, trust or log in to a registry
are taken: folders and programs that the host's settings name do not exist in a build.

Every authority that one of the host's clients trusts is trusted by all clients of a build.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nanocloud.files import private_folder, write_durably
from nanocloud_dockyard import registry_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_IN_BUILD, _CACHE_IN_BUILD = "/usr/lib/nanocloud/host-registries", "/var/cache/nanocloud"
"""Empty folders of the base image."""
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
_GO = ("GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB", "GOPRIVATE", "GOINSECURE")
_AUTHORITIES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")
_BUNDLE = "ssl/certs/ca-certificates.crt"
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)
_TRUST_STORE_PASSWORD = "changeit"  # noqa: S105 - Java's own default; the content is public


@attrs.frozen(kw_only=True)
class HostRegistries:
    """The folder, made anew for each build; readable by root alone."""

    folder: Path

    def mounts(self, cache: Path) -> list[tuple[Path, str, str]]:
        """What to mount while a recipe is built: host path, path in the build, mode."""
        return [(self.folder, _IN_BUILD, "ro"), (private_folder(cache), _CACHE_IN_BUILD, "rw")]


def capture(
    folder: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    home: Path | None = None,
    etc: Path = Path("/etc"),
    epoch: int,
) -> HostRegistries:
    """Read the host's settings and write them below ``folder``.

    Args:
        epoch: the time, in seconds, that builds give to what they make (``SOURCE_DATE_EPOCH``).

    Raises:
        InvalidError: a file of settings cannot be understood; names it.
    """
    host = registry_settings.Host(environment=environment, home=home or Path.home(), etc=etc)
    shutil.rmtree(folder, ignore_errors=True)
    private_folder(folder)
    files = _Files(folder)
    pip, npm = registry_settings.pip(host), registry_settings.npm(host)
    files.write("pip.conf", registry_settings.pip_text(pip, files.copy))
    files.write("npmrc", registry_settings.npm_text(npm, files.copy))
    exports = {
        "SOURCE_DATE_EPOCH": str(epoch),  # Python then checks compiled modules by hash, not by time
        "PIP_CONFIG_FILE": f"{_IN_BUILD}/pip.conf",
        "PIP_CACHE_DIR": f"{_CACHE_IN_BUILD}/pip",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "NPM_CONFIG_USERCONFIG": f"{_IN_BUILD}/npmrc",
        "NPM_CONFIG_CACHE": f"{_CACHE_IN_BUILD}/npm",
        "NPM_CONFIG_UPDATE_NOTIFIER": "false",
        "GOMODCACHE": f"{_CACHE_IN_BUILD}/go/modules",
        "GOCACHE": f"{_CACHE_IN_BUILD}/go/build",
        **registry_settings.go(host, _GO),
        **_proxies(environment),
    }
    java = [f"-Dmaven.repo.local={_CACHE_IN_BUILD}/maven", f"-Duser.home={_IN_BUILD}/maven"]
    if settings := registry_settings.maven(host):
        files.write("maven/.m2/settings.xml", settings)
    if files.take(host.home / ".m2" / "settings-security.xml", "maven/.m2/settings-security.xml"):
        java.append(f"-Dsettings.security={_IN_BUILD}/maven/.m2/settings-security.xml")
    exports["MAVEN_OPTS"] = " ".join(java)
    if files.take(Path(environment.get("NETRC", host.home / ".netrc")), "netrc"):
        exports["NETRC"] = f"{_IN_BUILD}/netrc"
    bundles = [environment.get(name, "") for name in _AUTHORITIES]
    if certificates := _certificates([*bundles, *pip.authorities, *npm.authorities, etc / _BUNDLE]):
        files.write("ca.pem", b"".join(certificates))
        files.write("trust.p12", _trust_store(certificates))
        exports |= dict.fromkeys((*_AUTHORITIES, "PIP_CERT", "NPM_CONFIG_CAFILE"), f"{_IN_BUILD}/ca.pem")
        exports["JAVA_TOOL_OPTIONS"] = (
            f"-Djavax.net.ssl.trustStore={_IN_BUILD}/trust.p12 -Djavax.net.ssl.trustStoreType=PKCS12 "
            f"-Djavax.net.ssl.trustStorePassword={_TRUST_STORE_PASSWORD}"
        )
    lines = (f"export {name}={shlex.quote(value)}\n" for name, value in sorted(exports.items()))
    files.write("environment", "".join(lines).encode())
    return HostRegistries(folder=folder)


class _Files:
    """Writes below the folder; a file of the host gets another path in the build."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._copied = folder, 0

    def write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        private_folder(path.parent)
        write_durably(path, content)

    def take(self, source: Path, name: str) -> bool:
        """Copy a file of the host, if it is there."""
        if not source.is_file():
            return False
        self.write(name, source.read_bytes())
        return True

    def copy(self, source: Path) -> str | None:
        """Copy a file that a setting names; the path in the build, or None where there is no such file."""
        self._copied += 1
        name = f"copied/{self._copied}.pem"
        return f"{_IN_BUILD}/{name}" if self.take(source, name) else None


def _proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """In both cases: some programs read only one."""
    found: dict[str, str] = {}
    for name in _PROXIES:
        value = environment.get(name) or environment.get(name.upper())
        if value:
            found |= {name: value, name.upper(): value}
    return found


def _certificates(bundles: Iterable[str | Path]) -> list[bytes]:
    """Each certificate of the PEM files once; a file that is not there holds none."""
    found: dict[bytes, None] = {}
    for bundle in dict.fromkeys(str(bundle) for bundle in bundles if bundle):
        path = Path(bundle).expanduser()
        if path.is_file():
            blocks = _CERTIFICATE.findall(path.read_bytes())
            found |= dict.fromkeys(block.replace(b"\r\n", b"\n").rstrip() + b"\n" for block in blocks)
    return list(found)


def _trust_store(certificates: list[bytes]) -> bytes:
    """The same for Java, which reads no PEM. What cannot be parsed is left out, as Java itself would."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12
    from cryptography.utils import CryptographyDeprecationWarning

    entries = []
    for number, pem in enumerate(certificates):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CryptographyDeprecationWarning)  # old authorities bend the rules
                certificate = x509.load_pem_x509_certificate(pem)
        except ValueError:
            continue
        entries.append(pkcs12.PKCS12Certificate(certificate, f"authority-{number}".encode()))
    return pkcs12.serialize_java_truststore(entries, BestAvailableEncryption(_TRUST_STORE_PASSWORD.encode()))
