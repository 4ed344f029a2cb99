"""What a build learns from the host's apt: Debian's own sources, proxies and certificates, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanocloud.errors import CommandError
from nanocloud_dockyard.host_apt import HostApt, capture

DEBIAN = "http://deb.example/debian/ {} main Debian $(SIGNED_BY) $(TRUSTED)"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files ``sources`` and ``settings`` the host's apt prints."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for program, file in (("apt-get", "sources"), ("apt-config", "settings")):
        (programs / program).write_text(f"#!/bin/sh\nexec /bin/cat {tmp_path / file}\n")
        (programs / program).chmod(0o700)
        (tmp_path / file).write_text("")
    monkeypatch.setenv("PATH", str(programs))
    return tmp_path


def captured(host: Path, sources: list[str], settings: list[str] | None = None) -> HostApt:
    (host / "sources").write_text("".join(f"{line}\n" for line in sources))
    (host / "settings").write_text("".join(f"{line}\n" for line in settings or []))
    return capture(host / "apt", "bookworm")


def text(apt: HostApt, name: str) -> str:
    return (apt.folder / name).read_text()


def test_sources_of_the_suite_and_its_updates_are_taken(host: Path) -> None:
    suites = ("bookworm", "bookworm-security", "bookworm-updates", "bookworm-backports", "trixie")
    apt = captured(host, [DEBIAN.format(suite) for suite in suites])
    assert text(apt, "sources.list").splitlines() == [
        f"deb http://deb.example/debian/ {suite} main" for suite in suites[:3]
    ]


def test_sources_of_others_are_not_taken(host: Path) -> None:
    apt = captured(
        host,
        [
            "https://other.example/debian/ bookworm stable Other /etc/apt/keyrings/other.asc $(TRUSTED)",
            "https://words.example/debian/ bookworm main Some Company Ltd $(SIGNED_BY) $(TRUSTED)",
            "https://new.example/debian/ bookworm main $(ORIGIN) /etc/apt/keyrings/new.asc $(TRUSTED)",
        ],
    )
    assert apt.sources is None


def test_before_the_first_update_the_key_tells(host: Path) -> None:
    apt = captured(
        host,
        [
            "http://deb.example/debian/ bookworm main $(ORIGIN) /usr/share/keyrings/debian-archive.gpg $(TRUSTED)",
            "http://local.example/debian/ bookworm main $(ORIGIN) $(SIGNED_BY) yes",
        ],
    )
    assert text(apt, "sources.list").splitlines() == [
        "deb [trusted=yes] http://local.example/debian/ bookworm main",
        "deb http://deb.example/debian/ bookworm main",
    ]


def test_settings_that_reach_packages_are_kept_and_programs_of_the_host_are_not(host: Path) -> None:
    kept = [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::http::Proxy::deb.example "DIRECT";',
        'Acquire::Check-Valid-Until "false";',
        'Acquire::Retries "3";',
    ]
    dropped = [
        'Acquire::http::Proxy-Auto-Detect "/usr/bin/auto-apt-proxy";',
        'Acquire::http::ProxyAutoDetect "/usr/bin/auto-apt-proxy";',
        'APT::Update::Post-Invoke:: "rm -rf /";',
        'Acquire::IndexTargets::deb::DEP-11::MetaKey "x";',
        'Dir::Cache "var/cache/apt";',
    ]
    apt = captured(host, [DEBIAN.format("bookworm")], kept + dropped)
    assert text(apt, "host.conf").splitlines()[: len(kept)] == kept
    assert text(apt, "build.conf").splitlines()[: len(kept)] == kept
    assert not any(line in text(apt, "build.conf") for line in dropped)


def test_certificates_are_copied_to_where_the_build_finds_them(host: Path) -> None:
    authority = host / "authority.pem"
    authority.write_text("certificate")
    apt = captured(host, [DEBIAN.format("bookworm")], [f'Acquire::https::CAInfo "{authority}";'])
    assert str(authority) in text(apt, "host.conf")
    assert 'Acquire::https::CAInfo "/usr/lib/nanocloud/host-apt/1.pem";' in text(apt, "build.conf")
    assert text(apt, "files/1.pem") == "certificate"
    assert str(authority) not in text(apt, "build.conf")


def test_what_was_captured_is_readable_by_root_only_and_mounted(host: Path) -> None:
    apt = captured(host, [DEBIAN.format("bookworm")])
    assert apt.folder.stat().st_mode & 0o777 == 0o700
    assert (apt.folder / "build.conf").stat().st_mode & 0o777 == 0o600
    targets = [target for _, target in apt.mounts(apt.folder / "sources.list")]
    assert targets[:2] == ["/etc/apt/sources.list", "/etc/apt/apt.conf.d/99nanocloud-host"]


def test_apt_that_cannot_read_itself_is_an_error(host: Path) -> None:
    (host / "bin" / "apt-get").write_text("#!/bin/sh\necho 'E: Type x is not known' >&2\nexit 100\n")
    with pytest.raises(CommandError, match="apt-get exited with 100: E: Type x is not known"):
        capture(host / "apt", "bookworm")
