"""The settings of package registries' clients, as the host has them, and what of them holds in a build.

Each client's own rules decide which file wins: environment, then the user's file, then the system's. References to
environment variables are replaced here, because a build does not have those variables.

Sources: pip documentation, "Configuration"; npm documentation, "npmrc" and "config"; Maven documentation, "Settings
Reference"; ``go help environment``.
"""

from __future__ import annotations

import configparser
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import attrs

from nanocloud.errors import InvalidError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Copy = Callable[[Path], str | None]
    """Copies a file of the host and returns its path in the build; None: there is no such file."""

_PIP_KEEP = ("index-url", "extra-index-url", "proxy", "trusted-host", "client-cert", "timeout", "retries")
_NPM_KEEP = re.compile(
    r"(//.+:(_authToken|_auth|_password|username|email|certfile|keyfile)|(@[^:]+:)?registry|proxy|https-proxy|noproxy|"
    r"strict-ssl|ca(\[\])?|cert|key|_auth|_authToken|_password|username|email|"
    r"fetch-(retries|retry-factor|retry-mintimeout|retry-maxtimeout|timeout)|maxsockets)"
)
_MAVEN_KEEP = ("servers", "mirrors", "proxies", "profiles", "activeProfiles")


@attrs.frozen(kw_only=True)
class Host:
    environment: Mapping[str, str]
    home: Path
    etc: Path

    @property
    def configuration(self) -> Path:
        return Path(self.environment.get("XDG_CONFIG_HOME") or self.home / ".config")

    def expanded(self, path: str) -> Path:
        return self.home / path[2:] if path.startswith("~/") else Path(path)


@attrs.frozen(kw_only=True)
class PipSettings:
    sections: dict[str, dict[str, str]]
    authorities: Sequence[Path]
    client: Path | None


@attrs.frozen(kw_only=True)
class NpmSettings:
    settings: dict[str, str]
    authorities: Sequence[Path]
    host: Host


def pip(host: Host) -> PipSettings:
    """Raises:
    InvalidError: a file is not in pip's format.
    """
    sections: dict[str, dict[str, str]] = {"global": {}}
    chosen = host.environment.get("PIP_CONFIG_FILE")
    files = [host.etc / "xdg/pip/pip.conf", host.etc / "pip.conf", host.home / ".pip/pip.conf"]
    files += [host.configuration / "pip/pip.conf", *([Path(chosen)] if chosen else [])]
    for file in () if chosen == "/dev/null" else files:
        for name, values in _ini(file).items():
            sections.setdefault(name, {}).update(values)
    prefix = "PIP_"
    for name, value in host.environment.items():
        if name.startswith(prefix) and value:
            key = _pip_key(name.removeprefix(prefix))
            for section in sections.values():
                section.pop(key, None)  # the environment wins over every section
            sections["global"][key] = value
    certs = [section["cert"] for section in sections.values() if section.get("cert")]
    client = next((section["client-cert"] for section in sections.values() if section.get("client-cert")), None)
    kept = {name: {k: v for k, v in values.items() if k in _PIP_KEEP} for name, values in sections.items()}
    return PipSettings(
        sections={name: values for name, values in kept.items() if values},
        authorities=[host.expanded(cert) for cert in certs],
        client=host.expanded(client) if client else None,
    )


def pip_text(settings: PipSettings, copy: Copy) -> bytes:
    written = configparser.RawConfigParser()
    written.read_dict(settings.sections)
    client = copy(settings.client) if settings.client else None
    for section in written.sections():
        if written.has_option(section, "client-cert"):
            written.remove_option(section, "client-cert")
            if client:
                written.set(section, "client-cert", client)
    text = io.StringIO()
    written.write(text)
    return text.getvalue().encode()


def _ini(file: Path) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
        return {name: {_pip_key(k): v for k, v in parser.items(name)} for name in parser.sections()}
    except (configparser.Error, UnicodeDecodeError) as exc:
        raise InvalidError(f"{file} is not in pip's format: {str(exc).splitlines()[0]}") from exc


def _pip_key(key: str) -> str:
    key = key.lower().replace("_", "-")
    return "timeout" if key == "default-timeout" else key


def npm(host: Host) -> NpmSettings:
    environment = {
        name[len("npm_config_") :]: value
        for name, value in host.environment.items()
        if name.lower().startswith("npm_config_") and value
    }
    lowered = {name.lower(): value for name, value in environment.items()}
    system = [Path("/usr/etc/npmrc"), host.etc / "npmrc"] if host.etc == Path("/etc") else [host.etc / "npmrc"]
    if chosen := lowered.get("globalconfig"):
        system = [host.expanded(chosen)]
    found: dict[str, str] = {}
    for file in (*system, host.expanded(lowered.get("userconfig", "~/.npmrc"))):
        found |= _npmrc(file, host.environment)
    for name, value in environment.items():
        # Names of one scope or server keep their case; the others are written with _ for -.
        key = name if name.startswith(("//", "@")) else name.lower()
        if not key.startswith(("//", "@", "_")):
            key = key.replace("_", "-")
        found[key] = value
    authority = found.get("cafile")
    return NpmSettings(
        settings={key: value for key, value in found.items() if _NPM_KEEP.fullmatch(key)},
        authorities=[host.expanded(authority)] if authority else [],
        host=host,
    )


def npm_text(settings: NpmSettings, copy: Copy) -> bytes:
    lines = []
    for key, value in settings.settings.items():
        kept: str | None = value
        if key.endswith((":certfile", ":keyfile")):
            kept = copy(settings.host.expanded(value))
        # npm reads repeated `ca[]` lines as a list.
        lines += [f"{key}={part}\n" for part in (kept.split("\0") if kept is not None else ())]
    return "".join(lines).encode()


def _npmrc(file: Path, environment: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if not file.is_file():
        return found
    for line in file.read_text(errors="replace").splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if not equals or line.lstrip().startswith((";", "#", "[")):
            continue
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" and not key.startswith("ca"):
            value = value[1:-1]
        value = _substituted(value, r"\$\{([^}]+)\}", environment)
        found[key] = f"{found[key]}\0{value}" if key.endswith("[]") and key in found else value
    return found


def go(host: Host, names: Iterable[str]) -> dict[str, str]:
    """The variables of ``names`` that are set in the environment or by ``go env -w``."""
    chosen = host.environment.get("GOENV", "")
    file = Path(chosen) if chosen else host.configuration / "go/env"
    written = {}
    if chosen != "off" and file.is_file():
        pairs = (line.partition("=") for line in file.read_text(errors="replace").splitlines())
        written = {key.strip(): value.strip() for key, _, value in pairs}
    values = {name: host.environment.get(name) or written.get(name) for name in names}
    return {name: value for name, value in values.items() if value}


def maven(host: Host) -> bytes | None:
    """One ``settings.xml`` of the user's and the system's, where the user's entries win; None: nothing is set."""
    installed = [host.etc / "maven/settings.xml"]
    if home := host.environment.get("MAVEN_HOME") or host.environment.get("M2_HOME"):
        installed = [Path(home) / "conf/settings.xml"]
    merged = ElementTree.Element("settings", xmlns="http://maven.apache.org/SETTINGS/1.0.0")
    for file in (host.home / ".m2/settings.xml", *installed):
        for part in _maven_parts(file):
            name = _local(part)
            target = merged.find(name)
            if target is None:
                target = ElementTree.SubElement(merged, name)
            known = {_identity(child) for child in target}
            target.extend(child for child in part if _identity(child) not in known)
    for element in merged.iter():
        element.tag = _local(element)
        if element.text:
            element.text = _substituted(element.text, r"\$\{env\.([^}]+)\}", host.environment)
    if not any(len(part) for part in merged):
        return None
    return bytes(ElementTree.tostring(merged, encoding="utf-8", xml_declaration=True))


def _maven_parts(file: Path) -> list[ElementTree.Element]:
    if not file.is_file():
        return []
    try:
        root = ElementTree.fromstring(file.read_bytes())  # noqa: S314 - the host's own file
    except ElementTree.ParseError as exc:
        raise InvalidError(f"{file} is not XML: {exc}") from exc
    return [part for part in root if _local(part) in _MAVEN_KEEP]


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _identity(element: ElementTree.Element) -> str:
    """What Maven tells entries of one kind apart by: their id, or, of an active profile, the text."""
    for child in element:
        if _local(child) == "id":
            return (child.text or "").strip()
    return (element.text or "").strip() or "default"


def _substituted(text: str, pattern: str, environment: Mapping[str, str]) -> str:
    return re.sub(pattern, lambda match: environment.get(match[1], match[0]), text)
