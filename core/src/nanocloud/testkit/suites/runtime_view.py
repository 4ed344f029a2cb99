"""What every runtime provider must keep of what a container finds: files, user, rights, and where its output goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nanocloud.providers.runtime import (
    ContainerSpec,
    Mount,
    ProjectedFile,
    RuntimeProvider,
    Security,
)

if TYPE_CHECKING:
    from collections.abc import Callable

from nanocloud.testkit.suites.containers import (
    CAT_FILE,
    CAT_MOUNT,
    FILTERED,
    OVERWRITE,
    SAY,
    SHOW,
    STATUS,
    WEB,
    WRITE,
    ContainerSuite,
    fields_of,
    logged,
)


class RuntimeViewSuite(ContainerSuite):
    """A part of RuntimeProviderSuite."""

    async def test_environment(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """What the first process finds in its environment."""
        shown = await self.output(provider, spec(SHOW, environment={"A": "b  c"}))
        assert shown[0] == "b  c"

    async def test_working_directory(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """Where the first process starts."""
        assert (await self.output(provider, spec(SHOW, working_directory="/run")))[1] == "/run"

    async def test_host_name(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """What the container calls itself."""
        assert (await self.output(provider, spec(SHOW, hostname="shop-7")))[2] == "shop-7"

    async def test_mounts_show_the_hosts_files(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], tmp_path: Path
    ) -> None:
        """A host folder or file that the container sees at ``target`` (absolute)."""
        (tmp_path / "volume").mkdir()
        (tmp_path / "volume" / "data").write_text("of the host\n")
        mount = Mount(source=tmp_path / "volume", target="/mounted")
        assert await self.output(provider, spec(CAT_MOUNT, mounts=(mount,))) == ["of the host"]

    async def test_projected_files(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """A small file that exists only on tmpfs and appears in the container at ``path`` (absolute), read-only."""
        file = ProjectedFile(path="/etc/projected", content=b"s3cret\n")
        assert await self.output(provider, spec(CAT_FILE, files=(file,))) == ["s3cret"]

    async def test_what_is_read_only_cannot_be_written(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], tmp_path: Path
    ) -> None:
        """A small file that exists only on tmpfs and appears in the container at ``path`` (absolute), read-only."""
        (tmp_path / "volume").mkdir()
        (tmp_path / "volume" / "data").write_text("of the host")
        mount = Mount(source=tmp_path / "volume", target="/mounted", read_only=True)
        file = ProjectedFile(path="/etc/projected", content=b"s3cret", mode=0o666)
        assert await self.output(provider, spec(OVERWRITE, mounts=(mount,), files=(file,))) == ["no", "no"]
        assert (tmp_path / "volume" / "data").read_text() == "of the host"

    async def test_what_is_written_goes_with_the_container(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec], layers: tuple[Path, ...]
    ) -> None:
        """The runtime puts a writable layer of this container on top and removes it with the container."""
        for _ in range(2):
            assert (await self.output(provider, spec(WRITE))).count("new") == 1
            spec().log_path.unlink()
        assert not any((layer / "written").exists() for layer in layers)

    async def test_user_and_group(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """As in an OCI image configuration: ``user``, ``uid``, ``user:group`` or ``uid:gid``; empty is root."""
        for user, ids in (("", ("0", "0")), ("1234:5678", ("1234", "5678"))):
            shown = fields_of(await self.output(provider, spec(STATUS, user=user)))
            assert (shown["Uid"], shown["Gid"]) == ids
            spec().log_path.unlink()

    async def test_no_capabilities(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """No capability unless asked for."""
        for asked, bits in ((), 0), (("CAP_CHOWN", "CAP_KILL"), 0b100001):
            security = Security(capabilities=frozenset(asked))
            shown = fields_of(await self.output(provider, spec(STATUS, security=security)))
            assert {int(shown[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {bits}
            spec().log_path.unlink()

    async def test_no_new_privileges(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """No-new-privileges, masked paths and namespaces always hold."""
        shown = fields_of(await self.output(provider, spec(STATUS)))
        assert shown["NoNewPrivs"] == "1"

    async def test_namespaces_are_its_own(self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]) -> None:
        """No-new-privileges, masked paths and namespaces always hold."""
        async with self.running(provider, spec()) as started:
            for kind in ("ipc", "mnt", "net", "pid", "uts"):
                ours, its = Path(f"/proc/self/ns/{kind}"), Path(f"/proc/{started.pid}/ns/{kind}")
                assert its.readlink() != ours.readlink()

    async def test_system_calls_are_filtered(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """Which system calls are let through; the values are those of a Bundle's ``spec.security.seccompProfile``."""
        shown = fields_of(await self.output(provider, spec(STATUS)))
        assert shown["Seccomp"] == FILTERED

    async def test_output_is_logged_in_the_cri_format(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """The container's standard output and error are appended to ``ContainerSpec.log_path`` in the CRI log format
        (``<RFC 3339 nanoseconds> stdout|stderr F|P <text>``) without the server's help."""
        for times in (1, 2):
            async with self.running(provider, spec(SAY)):
                await provider.wait(WEB)
                assert sorted(logged(spec().log_path)) == [("stderr", "two")] * times + [("stdout", "one")] * times

    async def test_the_log_is_for_root_alone(
        self, provider: RuntimeProvider, spec: Callable[..., ContainerSpec]
    ) -> None:
        """On the host; its folder is made by the runtime, mode 0700."""
        await provider.create(spec())
        assert spec().log_path.parent.stat().st_mode & 0o777 == 0o700
