"""The runtime contract: containers, as the kubelet asks for them.

A container's life is ``created -> running -> exited``, then it is removed. Containers outlive the server: after a
crash a new provider over the same folders lists them with the same pids, and knows the exit code of those that ended
meanwhile. The container's standard output and error are appended to ``ContainerSpec.log_path`` in the CRI log format
(``<RFC 3339 nanoseconds> stdout|stderr F|P <text>``) without the server's help.

Source: OCI runtime specification 1.0.2; Kubernetes CRI, ``runtime/v1/api.proto``, for the vocabulary.
"""

from __future__ import annotations

import abc
import enum
from typing import TYPE_CHECKING, NewType

import attrs

from nanocloud.providers.base import Provider

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import trio

ContainerId = NewType("ContainerId", str)
"""``[a-z0-9][a-z0-9.-]{0,62}``; chosen by the caller, unique on the node."""


@attrs.frozen(kw_only=True)
class Mount:
    """A host folder or file that the container sees at ``target`` (absolute)."""

    source: Path
    target: str
    read_only: bool = False


@attrs.frozen(kw_only=True)
class ProjectedFile:
    """A small file that exists only on tmpfs and appears in the container at ``path`` (absolute), read-only.

    For what must never reach a disk in plaintext (keys, secrets) and for ``/etc/hosts`` and ``/etc/resolv.conf``.
    """

    path: str
    content: bytes = attrs.field(repr=False)
    mode: int = 0o444
    uid: int = 0
    gid: int = 0


@attrs.frozen(kw_only=True)
class Resources:
    """Limits of one container; ``None`` is unlimited."""

    memory_bytes: int | None = None
    cpu_millicores: int | None = None
    pids: int | None = 1024


class SeccompProfile(enum.Enum):
    """Which system calls are let through; the values are those of a Bundle's ``spec.security.seccompProfile``."""

    BASELINE = "Baseline"
    """What ordinary services need; the default."""
    RUNTIME_DEFAULT = "RuntimeDefault"
    """The wider set that container engines allow by default."""
    LOCALHOST = "Localhost"
    """The JSON file at ``Security.seccomp_path``."""


DEFAULT_CAPABILITIES: frozenset[str] = frozenset()
"""No capability unless asked for."""


@attrs.frozen(kw_only=True)
class Security:
    """What the container may do beyond the baseline. No-new-privileges, masked paths and namespaces always hold."""

    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    """Names as in capabilities(7): ``CAP_CHOWN``."""
    seccomp: SeccompProfile = SeccompProfile.BASELINE
    seccomp_path: Path | None = None
    read_only_root: bool = False
    privileged: bool = False
    """Every capability and device, and no seccomp filter."""


@attrs.frozen(kw_only=True)
class ContainerSpec:
    """Everything a runtime needs to make one container."""

    id: ContainerId
    labels: Mapping[str, str] = attrs.field(factory=dict)
    """Kept by the runtime and given back by ``list``; the kubelet finds its pods again by them."""
    layers: tuple[Path, ...]
    """Unpacked image layers, lowest first, shared and read-only, with overlayfs whiteouts. The runtime puts a
    writable layer of this container on top and removes it with the container."""
    argv: tuple[str, ...]
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """What the first process finds in its environment."""
    working_directory: str = "/"
    """Where the first process starts."""
    user: str = ""
    """As in an OCI image configuration: ``user``, ``uid``, ``user:group`` or ``uid:gid``; empty is root. Names are
    looked up in the image's ``/etc/passwd`` and ``/etc/group``."""
    hostname: str = ""
    """What the container calls itself."""
    network_namespace: Path | None = None
    """A network namespace made by the network provider; ``None`` gives the container an empty one of its own."""
    mounts: tuple[Mount, ...] = ()
    files: tuple[ProjectedFile, ...] = ()
    tmpfs: tuple[str, ...] = ()
    """Paths at which the container gets an empty tmpfs, besides ``/dev``, ``/dev/shm`` and ``/run``."""
    resources: Resources = Resources()
    security: Security = Security()
    terminal: bool = False
    log_path: Path
    """On the host; its folder is made by the runtime, mode 0700. The file is kept when the container is removed."""
    log_limit_bytes: int = 16 * 1024 * 1024
    stop_signal: str = "SIGTERM"
    """What ``stop`` sends to the first process."""


class ContainerState(enum.Enum):
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@attrs.frozen(kw_only=True)
class ExitStatus:
    """How a container ended. ``code`` is 128 + signal after a signal, and 255 when the monitor was lost."""

    code: int
    finished_at: float
    """Seconds since the epoch."""
    out_of_memory: bool = False


@attrs.frozen(kw_only=True)
class ContainerStatus:
    id: ContainerId
    labels: Mapping[str, str]
    state: ContainerState
    pid: int | None
    """Of the container's first process, as the host sees it; None when it ended."""
    created_at: float
    started_at: float | None
    exit: ExitStatus | None
    log_path: Path


@attrs.frozen(kw_only=True)
class ExecSpec:
    """One more process in a running container."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    """None: the container's own environment. A mapping replaces it whole."""
    working_directory: str | None = None
    user: str | None = None
    """None: the container's own user."""
    capabilities: frozenset[str] | None = None
    """None: the container's own set."""
    stdin: bool = False
    """False: standard input is closed (``/dev/null``)."""
    terminal: bool = False
    """A pseudo terminal: standard error is joined to output and ``resize`` works."""
    secrets: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    """Given as memory files at descriptors 3, 4, ...: ``/dev/fd/3`` is ``secrets[0]``; readable by ``user`` only."""


class ExecSession(abc.ABC):
    """A process started by ``RuntimeProvider.exec``. Leaving the context kills its process group if it still runs."""

    stdin: trio.abc.SendStream | None
    """Closing it is end of file for the process."""
    stdout: trio.abc.ReceiveStream
    stderr: trio.abc.ReceiveStream | None
    """None with a terminal."""

    @abc.abstractmethod
    async def resize(self, *, rows: int, columns: int) -> None:
        """Set the terminal's size; nothing without a terminal."""

    @abc.abstractmethod
    async def wait(self) -> int:
        """Wait for the end and return the exit code (128 + signal after a signal); may be called again.

        A program that cannot be started ends with 127 (not found) or 126 (not executable), with the reason on
        standard error, as a shell would say it.
        """


class RuntimeProvider(Provider):
    """Runs containers. Unknown ids raise NotFoundError unless a method says otherwise."""

    @abc.abstractmethod
    async def create(self, spec: ContainerSpec) -> None:
        """Make the container ready to start; nothing of the image runs yet. Undoes itself on failure or cancellation.

        Raises:
            AlreadyExistsError: the id is taken.
            InvalidError: a field that cannot be used: a user the image does not have, an empty argv, a relative path.
            ProviderError: the host refused; the message names the step.
        """

    @abc.abstractmethod
    async def start(self, container: ContainerId) -> ContainerStatus:
        """Run the container's process. When this returns its ``execve`` has succeeded. Repeats safely while it runs.

        Raises:
            ProviderError: the program does not exist or cannot be executed; the container is then ``exited``
                with 127 or 126.
            ProviderError: it has ended; a container runs once.
        """

    @abc.abstractmethod
    async def wait(self, container: ContainerId) -> ExitStatus:
        """Wait until the container ends; at once if it has. Costs nothing while it waits."""

    @abc.abstractmethod
    async def stop(self, container: ContainerId, *, grace_seconds: float) -> ExitStatus:
        """Send the stop signal; after the grace kill every process of the container. It has ended when this returns.
        Repeats safely.
        """

    @abc.abstractmethod
    async def remove(self, container: ContainerId) -> None:
        """Remove the container and all it holds but its log; kills it first if it runs. Unknown ids are no error."""

    @abc.abstractmethod
    async def list(self) -> Sequence[ContainerStatus]:
        """Every container of this runtime, whoever made it; the kernel's word, not a record's, on what runs."""

    @abc.abstractmethod
    def exec(self, container: ContainerId, spec: ExecSpec) -> AbstractAsyncContextManager[ExecSession]:
        """Run one more process in the container, with its seccomp filter, cgroup and namespaces. Sessions of one
        container may overlap.

        Raises (on entering):
            UnavailableError: the container is not running.
        """
