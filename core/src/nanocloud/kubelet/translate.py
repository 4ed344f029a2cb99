"""From a Pod object to what providers are asked for; pure.

What is decided here and nowhere else: ids, labels that find a pod's containers again, host names, ``/etc/hosts`` and
``/etc/resolv.conf``, and how a container's ``securityContext`` maps to the runtime's confinement.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from nanocloud.errors import FieldError, InvalidError
from nanocloud.models.meta import annotations_of, name_of, namespace_of, uid_of
from nanocloud.planning.quantity import parse_bytes
from nanocloud.providers.network import PortMapping, SandboxId, SandboxNetwork, SandboxNetworkSpec
from nanocloud.providers.runtime import (
    ContainerId,
    ContainerSpec,
    Mount,
    ProjectedFile,
    Resources,
    SeccompProfile,
    Security,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nanocloud.models.meta import Object
    from nanocloud.providers.image import UnpackedImage

POD_UID, POD_NAMESPACE, POD_NAME = "nanocloud.io/pod-uid", "nanocloud.io/pod-namespace", "nanocloud.io/pod-name"
CONTAINER_NAME, RESTART_COUNT, IMAGE = "nanocloud.io/container", "nanocloud.io/restart-count", "nanocloud.io/image"
CLUSTER_DOMAIN = "nanocloud.local"
SERVICES = "nanocloud.io/services"
"""Annotation of a pod: the services that its bundle selected, joined by commas."""

_VARIABLE = re.compile(r"\$(?:\$|\(([A-Za-z_][A-Za-z0-9_.-]*)\))")


def sandbox_id(pod_uid: str) -> SandboxId:
    return SandboxId(pod_uid.replace("-", ""))


def container_id(pod_uid: str, index: int, restart_count: int) -> ContainerId:
    """Unique over restarts: a new attempt never meets what is left of the one before."""
    return ContainerId(f"{sandbox_id(pod_uid)}.{index}.{restart_count}")


def owner_of(pod: Object) -> str:
    """Whose address it is: the name outlives the pod, so that a service keeps its address over restarts."""
    return f"{namespace_of(pod)}/{name_of(pod)}"


def network_spec(pod: Object) -> SandboxNetworkSpec:
    ports = tuple(
        PortMapping(
            host_port=port["hostPort"],
            container_port=port["containerPort"],
            protocol="udp" if port.get("protocol", "TCP").upper() == "UDP" else "tcp",
            host_ip=ip_address(port["hostIP"]) if port.get("hostIP") else None,
        )
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or []
        if port.get("hostPort")
    )
    return SandboxNetworkSpec(sandbox=sandbox_id(uid_of(pod)), owner=owner_of(pod), ports=ports)


def pods_folder(logs: Path) -> Path:
    """Holds one folder a pod, ``<namespace>_<name>_<uid>``."""
    return logs / "pods"


def log_folder(logs: Path, pod: Object, container: str) -> Path:
    return pods_folder(logs) / f"{namespace_of(pod)}_{name_of(pod)}_{uid_of(pod)}" / container


def selected_services(pod: Object) -> tuple[str, ...]:
    """The bundles of its namespace that the pod's bundle selected."""
    return tuple(filter(None, annotations_of(pod).get(SERVICES, "").split(",")))


def name_files(pod: Object, network: SandboxNetwork, peers: Mapping[str, Sequence[str]]) -> tuple[ProjectedFile, ...]:
    """``/etc/hosts``, ``/etc/hostname`` and ``/etc/resolv.conf``; programs stall or refuse without them.

    ``peers``, service to addresses, are the services that the pod cannot do without: with them in ``/etc/hosts`` it
    finds them also while no server runs to answer for names.
    """
    hostname = pod["spec"].get("hostname") or name_of(pod)
    hosts = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    hosts += [f"{address}\t{hostname}" for address in network.addresses]
    for service, addresses in sorted(peers.items()):
        names = f"{service}.{namespace_of(pod)}.svc {service}.{CLUSTER_DOMAIN} {service}"
        hosts += [f"{address}\t{names}" for address in addresses]
    resolv = [f"nameserver {address}" for address in network.nameservers]
    resolv += [f"search {namespace_of(pod)}.svc {CLUSTER_DOMAIN}", "options ndots:2"]
    return tuple(
        ProjectedFile(path=path, content=("\n".join(lines) + "\n").encode())
        for path, lines in (("/etc/hosts", hosts), ("/etc/resolv.conf", resolv), ("/etc/hostname", [hostname]))
    )


def container_spec(
    pod: Object,
    index: int,
    *,
    restart_count: int,
    image: UnpackedImage,
    environment: Mapping[str, str],
    network: SandboxNetwork,
    peers: Mapping[str, Sequence[str]],
    mounts: Sequence[Mount],
    files: Sequence[ProjectedFile],
    tmpfs: Sequence[str],
    logs: Path,
) -> ContainerSpec:
    """What the runtime is asked for. ``environment`` is the pod's own, with secrets resolved; the image's comes first.

    Raises:
        InvalidError: nothing to run: neither the pod nor the image names a program.
    """
    container = pod["spec"]["containers"][index]
    config = image.image.config
    merged = {"HOSTNAME": pod["spec"].get("hostname") or name_of(pod), **config.environment, **environment}
    entrypoint = container.get("command") or config.entrypoint
    # As in Kubernetes: a command of the pod's own also drops the image's arguments.
    arguments = container.get("args") or (() if container.get("command") else config.command)
    argv = tuple(expand(word, merged) for word in (*entrypoint, *arguments))
    if not argv:
        path = f"spec.containers[{index}].command"
        message = f"image {image.image.reference} names no program to run"
        raise InvalidError(message, [FieldError(path, message, "FieldValueRequired")])
    name = container["name"]
    return ContainerSpec(
        id=container_id(uid_of(pod), index, restart_count),
        labels={
            POD_UID: uid_of(pod),
            POD_NAMESPACE: namespace_of(pod),
            POD_NAME: name_of(pod),
            CONTAINER_NAME: name,
            RESTART_COUNT: str(restart_count),
            IMAGE: str(image.image.digest),
        },
        layers=image.layers,
        argv=argv,
        environment=merged,
        working_directory=container.get("workingDir") or config.working_directory or "/",
        user=_user(container, config.user),
        hostname=pod["spec"].get("hostname") or name_of(pod),
        network_namespace=network.namespace_path,
        mounts=tuple(mounts),
        files=(*name_files(pod, network, peers), *files),
        tmpfs=tuple(tmpfs),
        resources=_resources(container),
        security=_security(container),
        terminal=bool(container.get("tty")),
        log_path=log_folder(logs, pod, name) / f"{restart_count}.log",
        stop_signal=config.stop_signal or "SIGTERM",
    )


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Kubernetes' ``$(VAR)`` in command and args; ``$$`` is a dollar, an unknown name stays as it is."""

    def replacement(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "$"
        return environment.get(match.group(1), match.group(0))

    return _VARIABLE.sub(replacement, text)


def _user(container: Mapping[str, Any], image_user: str) -> str:
    context = container.get("securityContext") or {}
    if context.get("runAsUser") is None:
        return image_user
    group = context.get("runAsGroup")
    return f"{context['runAsUser']}" + (f":{group}" if group is not None else "")


def _resources(container: Mapping[str, Any]) -> Resources:
    limits = (container.get("resources") or {}).get("limits") or {}
    return Resources(
        memory_bytes=parse_bytes(limits["memory"]) if "memory" in limits else None,
        cpu_millicores=_millicores(limits["cpu"]) if "cpu" in limits else None,
    )


def _millicores(quantity: str) -> int:
    """``500m`` or ``0.5`` of a core."""
    return int(quantity[:-1]) if quantity.endswith("m") else round(float(quantity) * 1000)


def _security(container: Mapping[str, Any]) -> Security:
    context = container.get("securityContext") or {}
    added = (context.get("capabilities") or {}).get("add") or ()
    profile = (context.get("seccompProfile") or {}).get("type", SeccompProfile.BASELINE.value)
    return Security(
        capabilities=frozenset(name if name.startswith("CAP_") else f"CAP_{name}" for name in added),
        seccomp=SeccompProfile(profile),
        read_only_root=bool(context.get("readOnlyRootFilesystem")),
        privileged=bool(context.get("privileged")),
    )
