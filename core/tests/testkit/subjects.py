"""The fakes as subjects of the suites: how each is built, and what stands for programs, commands and registries.

Imported as a module of this folder, by the tests that the fakes pass and by those that mutants of them fail.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from nanocloud.errors import ImageError, UnavailableError
from nanocloud.testkit import (
    FakeBinding,
    FakeDisk,
    FakeExec,
    FakeImages,
    FakeNetwork,
    FakeProgram,
    FakeRuntime,
    FakeStorage,
    FakeVolume,
)
from nanocloud.testkit.images import layer_digest
from nanocloud.testkit.suites import (
    BindingProviderSuite,
    ImageProviderSuite,
    NetworkProviderSuite,
    RuntimeProviderSuite,
    StorageProviderSuite,
    VolumeProviderSuite,
    binding,
    image,
    inside,
)
from nanocloud.testkit.suites import containers as words
from nanocloud.testkit.suites.layout import ImageSource, Published

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from nanocloud.providers.binding import BindingCall, BindingProvider
    from nanocloud.providers.image import Digest
    from nanocloud.providers.network import IPAddress, NetworkProvider, SandboxNetwork
    from nanocloud.providers.runtime import ContainerSpec, ContainerStatus, RuntimeProvider
    from nanocloud.providers.storage import StorageProvider
    from nanocloud.testkit.suites.binding import Target

CAPABILITIES = {"CAP_CHOWN": 0, "CAP_KILL": 5}
STOP_CODES = {"SIGTERM": 3, "SIGUSR1": 4}


CANCELLED = (
    "A cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put right; "
    "the provider stays usable."
)
"""A sentence of several contracts."""


def program(spec: ContainerSpec) -> FakeProgram:
    """The programs of the suite, as a container with a shell would run them."""
    match spec.argv:
        case words.RUN_ON:
            return FakeProgram(stop_exit_code=None)
        case words.ON_SIGNAL:
            return FakeProgram(output=(("stdout", "ready"),), stop_exit_code=STOP_CODES[spec.stop_signal])
        case words.EXIT_7:
            return FakeProgram(exit_after_seconds=0, exit_code=7)
        case words.LATE:
            return FakeProgram(output=(("stdout", "late"),), exit_after_seconds=1, exit_code=7)
        case words.MISSING:
            return FakeProgram(start_error=127)
        case words.OVERWRITE:
            return saying("no\nno")
        case words.SAY:
            return saying("one", error="two")
        case words.SHOW:
            return saying(f"{spec.environment.get('A', '')}\n{spec.working_directory}\n{spec.hostname}")
        case words.CAT_FILE:
            return saying(spec.files[0].content.decode())
        case words.CAT_MOUNT:
            return saying((spec.mounts[0].source / "data").read_text())
        case words.WRITE:
            return saying("new")
        case words.STATUS:
            return saying(status(spec.user, spec.security.capabilities))
    raise AssertionError(spec.argv)


def status(user: str, capabilities: frozenset[str]) -> str:
    """Lines of ``/proc/self/status`` of a process that is confined as the contract says."""
    uid, _, gid = user.partition(":")
    bits = sum(1 << CAPABILITIES[name] for name in capabilities)
    lines = {"Uid": uid or 0, "Gid": gid or 0, "NoNewPrivs": 1, "Seccomp": words.FILTERED}
    lines |= dict.fromkeys(("CapPrm", "CapEff", "CapBnd"), f"{bits:016x}")
    return "\n".join(f"{name}:\t{value}" for name, value in lines.items())


def saying(output: str, *, error: str = "") -> FakeProgram:
    lines = (("stdout", output), ("stderr", error)) if error else (("stdout", output),)
    return FakeProgram(output=lines, exit_after_seconds=0)


async def run_command(call: FakeExec) -> int:
    """The commands of the suite, as a container with a shell would run them."""
    error = call.stderr or call.stdout  # of a terminal they are one
    match call.spec.argv:
        case words.SAY:
            await call.stdout.send_all(b"one\n")
            await error.send_all(b"two\n")
        case words.EXIT_7:
            return 7
        case words.MISSING:
            await error.send_all(b"not found\n")
            return 127
        case words.CAT_SECRETS:
            await call.stdout.send_all(call.spec.secrets[1] + call.spec.secrets[0])
        case words.SHOW_A:
            own = call.spec.environment
            environment = call.container.spec.environment if own is None else own
            await call.stdout.send_all(environment.get("A", "").encode() + b"\n")
        case words.CAT if call.stdin is not None:
            async for piece in call.stdin:
                await call.stdout.send_all(piece)
        case words.STATUS:
            user = call.container.spec.user if call.spec.user is None else call.spec.user
            await call.stdout.send_all(status(user, call.container.spec.security.capabilities).encode())
        case words.RUN_ON:
            await call.container.ended.wait()
    return 0


def answer(call: BindingCall) -> int | None:
    """How the commands of the suite end; those of a container that does not run, not at all."""
    assert isinstance(call.runtime, FakeRuntime)
    if call.container not in call.runtime.running:
        raise UnavailableError(f"container {call.container} is not running")
    return {binding.FAIL: 4, binding.HANG: None}.get(call.command, 0)


class FakeSource(ImageSource):
    """Publishes images by adding them to FakeImages; equal layers are one folder."""

    def __init__(self, images: FakeImages, folder: Path) -> None:
        self._images, self._folder = images, folder

    def publish(self, tag: str, *layers: Mapping[str, bytes], config: Mapping[str, Any]) -> Published:
        folders = tuple(map(self._write, layers))
        added = self._images.add(f"fake/image:{tag}", image.READ if config else None, layers=folders)
        return Published(
            reference=added.reference,
            digest=added.digest,
            configuration=added.digest,
            layers=tuple(map(layer_digest, folders)),
            size_bytes=added.size_bytes,
        )

    def damage(self, blob: Digest) -> None:
        self._images.spoil(blob)

    def withdraw(self) -> None:
        for method in ("resolve", "ensure"):
            self._images.calls.fail(method, ImageError("the registry does not answer"))

    def _write(self, files: Mapping[str, bytes]) -> Path:
        folder = self._folder / hashlib.sha256(repr(files).encode()).hexdigest()
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        return folder


class StorageSubject(StorageProviderSuite):
    in_memory = True
    virtual_time = 0
    fake: ClassVar[type[FakeStorage]] = FakeStorage
    fake_disk: ClassVar[type[FakeDisk]] = FakeDisk

    @pytest.fixture
    def make_provider(self) -> Callable[[], FakeStorage]:
        disk = self.fake_disk()
        return lambda: self.fake(disk, sync_seconds=0.005)

    def crash(self, provider: StorageProvider) -> None:
        assert isinstance(provider, FakeStorage)
        provider.disk.crash()


class RuntimeSubject(RuntimeProviderSuite):
    in_memory = True
    virtual_time = 0
    fake: ClassVar[type[FakeRuntime]] = FakeRuntime

    @pytest.fixture
    def make_provider(self) -> Callable[[], FakeRuntime]:
        runtime = self.fake(program=program, exec_handler=run_command)
        return lambda: runtime

    @pytest.fixture
    def layers(self, tmp_path: Path) -> tuple[Path, ...]:
        return (tmp_path,)

    def kill_behind_its_back(self, provider: RuntimeProvider, status: ContainerStatus) -> None:
        assert isinstance(provider, FakeRuntime)
        provider.exit(status.id, 137)

    # Nothing of an image is looked at and no process has a pid, as FakeRuntime says.
    test_a_user_the_image_does_not_have_is_refused = None  # type: ignore[assignment]
    test_a_failed_create_leaves_no_container = None  # type: ignore[assignment]
    test_namespaces_are_its_own = None  # type: ignore[assignment]


class NetworkSubject(NetworkProviderSuite):
    in_memory = True
    virtual_time = 0
    fake: ClassVar[type[FakeNetwork]] = FakeNetwork

    @pytest.fixture
    def make_provider(self) -> Callable[[], FakeNetwork]:
        network = self.fake()
        return lambda: network

    async def resolve(
        self, provider: NetworkProvider, network: SandboxNetwork, name: str
    ) -> tuple[int, set[IPAddress]]:
        assert isinstance(provider, FakeNetwork)
        return inside.NOERROR if name in provider.names else inside.NXDOMAIN, set(provider.names.get(name, ()))

    @contextmanager
    def program_at(self, provider: NetworkProvider, port: int) -> Iterator[None]:
        assert isinstance(provider, FakeNetwork)
        provider.host_programs[port, "tcp"] = "apache2"
        yield
        del provider.host_programs[port, "tcp"]

    # Nothing is made on the host, as FakeNetwork says: no namespace can be entered, no port answers.
    test_a_namespace_has_the_address = None  # type: ignore[assignment]
    test_a_published_port_leads_to_the_sandbox = None  # type: ignore[assignment]


class VolumeSubject(VolumeProviderSuite):
    in_memory = True
    virtual_time = 0
    fake: ClassVar[type[FakeVolume]] = FakeVolume

    @pytest.fixture
    def make_provider(self, tmp_path: Path) -> Callable[[], FakeVolume]:
        volume = self.fake(tmp_path / "volumes")
        return lambda: volume

    # A folder is no file system: nothing stops who writes past the limit, as FakeVolume says.
    test_limit_holds_for_what_is_written = None  # type: ignore[assignment]
    test_a_volume_is_a_file_system_of_its_own = None  # type: ignore[assignment]


class ImageSubject(ImageProviderSuite):
    in_memory = True
    virtual_time = 0
    fake: ClassVar[type[FakeImages]] = FakeImages

    @pytest.fixture
    def images(self) -> FakeImages:
        return self.fake()

    @pytest.fixture
    def make_provider(self, images: FakeImages) -> Callable[[], FakeImages]:
        return lambda: images

    @pytest.fixture
    def source(self, images: FakeImages, tmp_path: Path) -> FakeSource:
        return FakeSource(images, tmp_path / "layers")

    # The folders of layers are the test's, as FakeImages says: nothing is unpacked, and nothing removed.
    test_what_a_layer_removes_is_whited_out = None  # type: ignore[assignment]
    test_layers_that_nobody_needs_are_removed = None  # type: ignore[assignment]


class BindingSubject(BindingProviderSuite):
    in_memory = True
    virtual_time = 0
    fake: ClassVar[type[FakeBinding]] = FakeBinding

    @pytest.fixture
    def make_provider(self) -> Callable[[], FakeBinding]:
        provider = self.fake(answer)
        return lambda: provider

    def runs(self, provider: BindingProvider, target: Target) -> list[str]:
        assert isinstance(provider, FakeBinding)
        return [call.command for call in provider.runs]
