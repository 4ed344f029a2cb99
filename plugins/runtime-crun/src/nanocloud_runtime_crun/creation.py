"""Make one container: its folder, its view, its root file system, its configuration, its monitor.

Everything happens in one short-lived thread (``build``): what is copied from the host's namespace first, then the
container's own view is entered, and conmon is started in it. A crash anywhere leaves a folder whose record says
``creating``, which the next start takes down again; the mounts go with the thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import ProviderError
from nanocloud_runtime_crun import seccomp, users
from nanocloud_runtime_crun import spec as oci
from nanocloud_runtime_crun.cgroups import oci_resources
from nanocloud_runtime_crun.host import can_filter_devices
from nanocloud_runtime_crun.monitor import Starting, command, launch
from nanocloud_runtime_crun.record import Phase, Record, replace_file
from nanocloud_runtime_crun.view import Borrowed, borrow, enter_own, mount_overlay

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanocloud.providers.runtime import ContainerSpec
    from nanocloud_runtime_crun.host import Host
    from nanocloud_runtime_crun.record import Folder


def make_folder(host: Host, spec: ContainerSpec) -> Record:
    """Claim the id: make the container's folder with its first record.

    Raises:
        FileExistsError: the id is taken.
    """
    folder = host.folder(spec.id)
    folder.path.mkdir(mode=0o700)
    record = Record(
        id=spec.id,
        labels=dict(spec.labels),
        phase=Phase.CREATING,
        created_at=time.time(),
        log_path=str(spec.log_path),
        stop_signal=spec.stop_signal,
    )
    folder.write(record)
    return record


def build(host: Host, spec: ContainerSpec) -> Starting:
    """Everything up to a conmon that waits for its first byte. Changes the calling thread's namespace for good.

    Raises:
        InvalidError: what only the image can tell: it has no such user or group.
        ProviderError: the host refused; names the step.
    """
    folder = host.folder(spec.id)
    with _step(spec.id, "prepare its folders"):
        _make_folders(host, folder, spec)
        prepared = _prepare(host, folder, spec)
    with _step(spec.id, "copy its mounts"), contextlib.ExitStack() as stack:
        borrowed = _Borrower(stack)
        borrowed.take(host.store(spec.id), folder.store)
        borrowed.take(spec.log_path.parent, folder.log)
        for source, target in zip(spec.layers, folder.layers(len(spec.layers)), strict=True):
            borrowed.take(source, target)
        for mount, target in zip(spec.mounts, prepared.volumes, strict=True):
            borrowed.take(mount.source, target)
        if spec.network_namespace and prepared.network_namespace:
            borrowed.take(spec.network_namespace, prepared.network_namespace)
        enter_own(host.view.namespace, borrowed.mounts)
    # From here on the host is out of sight: only what was borrowed and the base view are there.
    with _step(spec.id, "mount its root"):
        mount_overlay(folder.layers(len(spec.layers)), folder.store, folder.rootfs)
    with _step(spec.id, "write its configuration"):
        prepared = attrs.evolve(prepared, user=_look_up(folder, spec.user))
        replace_file(folder.config, json.dumps(oci.build(spec, prepared)).encode())
    with _step(spec.id, "start its monitor"), host.cgroups.as_monitor(spec.id):
        argv = command(
            host, folder, log_name=spec.log_path.name, log_limit=spec.log_limit_bytes, terminal=spec.terminal
        )
        return launch(argv, folder)


def _prepare(host: Host, folder: Folder, spec: ContainerSpec) -> oci.Prepared:
    """Everything that is looked up on the host; the user is the image's affair."""
    capabilities = host.capabilities if spec.security.privileged else spec.security.capabilities
    layout = host.cgroups.layout
    return oci.Prepared(
        rootfs=folder.rootfs,
        volumes=tuple(folder.path / "volumes" / str(number) for number, _ in enumerate(spec.mounts)),
        files=_write_files(folder, spec),
        network_namespace=folder.path / "netns" if spec.network_namespace else None,
        user=users.User(),
        seccomp=seccomp.for_container(spec.security, capabilities),
        capabilities=tuple(capabilities),
        resources=oci_resources(
            layout,
            spec.resources,
            all_devices=spec.security.privileged,
            can_filter_devices=can_filter_devices(layout.version),
        ),
        cgroup_path=host.cgroups.path(spec.id),
        hard_open_files=oci.hard_open_files(),
        oom_score=max(0, int(Path("/proc/self/oom_score_adj").read_text())),
    )


def _look_up(folder: Folder, user: str) -> users.User:
    root = os.open(folder.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return users.resolve(root, user)
    finally:
        os.close(root)


@attrs.define
class _Borrower:
    """Copies mounts one after the other and closes their descriptors at the end."""

    stack: contextlib.ExitStack
    mounts: list[Borrowed] = attrs.field(factory=list)

    def take(self, source: Path, target: Path) -> Path:
        copy = borrow(source, target)
        self.stack.callback(os.close, copy.fd)
        self.mounts.append(copy)
        return target


@contextlib.contextmanager
def _step(container: str, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ProviderError(f"container {container}: could not {what}: {exc}") from exc


def _make_folders(host: Host, folder: Folder, spec: ContainerSpec) -> None:
    _make_store(host.store(spec.id))
    for path in (folder.rootfs, folder.exit_dir, folder.exec_dir, folder.path / "layers", folder.path / "volumes"):
        path.mkdir(mode=0o700)
    spec.log_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def _make_store(store: Path) -> None:
    store.mkdir(mode=0o700, parents=True)
    (store / "work").mkdir(mode=0o700)
    # The upper folder is the root folder that the container's users see.
    (store / "upper").mkdir()
    (store / "upper").chmod(0o755)


def _write_files(folder: Folder, spec: ContainerSpec) -> tuple[Path, ...]:
    (folder.path / "files").mkdir(mode=0o700)
    written = []
    for number, file in enumerate(spec.files):
        path = folder.path / "files" / str(number)
        replace_file(path, file.content)
        os.chown(path, file.uid, file.gid)
        path.chmod(file.mode)
        written.append(path)
    return tuple(written)
