"""How this host reaches Debian packages, so that builds reach them the same way and images do not remember it.

The host's sources for the suite, its proxies, certificates and passwords are written to files that are mounted while a
recipe is built. Nothing here names a mirror: a host of another suite or distribution leaves the choice to mmdebstrap.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import attrs

from nanocloud.errors import CommandError
from nanocloud.files import private_folder, write_durably

_KEEP = re.compile(
    r"Acquire::(?:(?:http|https)::(?!Proxy-?Auto-?Detect)[^ ]+|Check-Valid-Until|Check-Date|Retries|ForceIPv[46]|"
    r"Max-FutureTime|Min-ValidTime|Max-ValidTime|AllowInsecureRepositories|AllowWeakRepositories) .*",
    re.IGNORECASE,
)
"""What a build needs. Hooks, index targets and scripts that find a proxy name programs that only the host has."""
_FILE_SETTING = re.compile(
    r'(Acquire::https(?:::[^ ]+)?::(?:CAInfo|SslCert|SslKey|CRLFile)) "(/[^"]+)";', re.IGNORECASE
)
_SUITES = ("{}", "{}-updates", "{}-security", "{}/updates")
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_IN_BUILD = "/usr/lib/nanocloud/host-apt"
"""An empty folder of the base image."""


@attrs.frozen(kw_only=True)
class HostApt:
    """Files on the host, mode 0600, made anew for each build."""

    sources: Path | None
    """One-line-style sources; None: the host has none for the suite."""
    settings: Path
    """An apt.conf whose paths are the host's."""
    folder: Path

    def mounts(self, sources: Path) -> list[tuple[Path, str]]:
        """What to mount read-only while a recipe is built: host path, path in the build."""
        mounts = [
            (sources, "/etc/apt/sources.list"),
            (self.folder / "build.conf", "/etc/apt/apt.conf.d/99nanocloud-host"),
            (self.folder / "files", _IN_BUILD),
        ]
        auth = Path("/etc/apt/auth.conf.d")
        if auth.is_dir() and any(auth.iterdir()):
            mounts.append((auth, str(auth)))
        return mounts


def capture(folder: Path, suite: str) -> HostApt:
    """Ask the host's apt and write the files below ``folder``.

    Raises:
        CommandError: apt cannot read its own configuration.
    """
    shutil.rmtree(folder, ignore_errors=True)
    private_folder(folder)
    files = private_folder(folder / "files")
    lines = _lines("apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages")
    sources = sorted({source for line in lines if (source := _source(line, suite))})
    host, build = _settings(_lines("apt-config", "dump"), files, https=any("https:" in line for line in sources))
    write_durably(folder / "host.conf", host.encode())
    write_durably(folder / "build.conf", build.encode())
    if sources:
        write_durably(folder / "sources.list", "".join(sources).encode())
    return HostApt(sources=folder / "sources.list" if sources else None, settings=folder / "host.conf", folder=folder)


_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN) $(SIGNED_BY) $(TRUSTED)"


def _source(line: str, suite: str) -> str | None:
    """A sources.list line for an index of Debian's own archive; apt writes fields it does not know as they stand."""
    fields = line.split(" ")
    if len(fields) != 6:
        return None  # an origin of several words, which is not Debian's
    uri, release, component, origin, signed_by, trusted = fields
    if release not in {form.format(suite) for form in _SUITES}:
        return None
    # Before the first `apt-get update` the origin is unknown; the key then tells.
    if origin != "Debian" and not (origin.startswith("$") and (signed_by.startswith("$") or "debian" in signed_by)):
        return None
    option = "[trusted=yes] " if trusted == "yes" else ""
    return f"deb {option}{uri} {release} {component}\n"


def _settings(dump: list[str], files: Path, *, https: bool) -> tuple[str, str]:
    """The settings with the host's paths, and with those of the build, for which the files are copied."""
    host, build, authority = [], [], False
    for line in dump:
        if not _KEEP.fullmatch(line):
            continue
        host.append(line)
        if match := _FILE_SETTING.fullmatch(line):
            name = f"{len(host)}.pem"
            shutil.copyfile(match[2], files / name)
            build.append(f'{match[1]} "{_IN_BUILD}/{name}";')
            authority |= match[1].lower() == "acquire::https::cainfo"
        else:
            build.append(line)
    if https and not authority and _BUNDLE.exists():  # the base image has no certificate authorities
        shutil.copyfile(_BUNDLE, files / "ca.pem")
        build.append(f'Acquire::https::CAInfo "{_IN_BUILD}/ca.pem";')
    netrc = Path("/etc/apt/auth.conf")
    if netrc.exists():
        shutil.copyfile(netrc, files / "auth.conf")
        host.append(f'Dir::Etc::netrc "{netrc}";')
        build.append(f'Dir::Etc::netrc "{_IN_BUILD}/auth.conf";')
    return "".join(f"{line}\n" for line in host), "".join(f"{line}\n" for line in build)


def _lines(*argv: str) -> list[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise CommandError(argv, done.returncode, done.stderr)
    return done.stdout.splitlines()
