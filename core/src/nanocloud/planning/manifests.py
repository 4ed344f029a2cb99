"""The Kubernetes objects of a plan: its Pod and its PersistentVolumeClaims.

Built in code from values that were checked before; nothing here is a template that text could break out of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.models.bundle import BUNDLE_LABEL
from nanocloud.planning.volumes import FS_TYPE, VOLUME_KEY
from nanocloud.planning.workload import READY_COMMAND, TLS_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nanocloud.models.bundle import BundleSecurity
    from nanocloud.planning.reserved import Port, SecretReference
    from nanocloud.planning.workload import Claim, DesiredBundle


@attrs.frozen(kw_only=True)
class PodParts:
    """What the image's options say about the pod."""

    image: str
    command: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str | SecretReference] = attrs.field(factory=dict)
    ports: tuple[Port, ...] = ()
    claims: tuple[Claim, ...] = ()
    tls_secret: str | None = None
    capabilities: frozenset[str] = frozenset()
    """Names without ``CAP_``."""


def pod(desired: DesiredBundle, parts: PodParts) -> dict[str, Any]:
    """The pod ``<bundle>-0``; owner and status are the controller's to add."""
    volumes = [{"name": c.volume, "persistentVolumeClaim": {"claimName": c.name}} for c in parts.claims]
    if parts.tls_secret:
        volumes.append({"name": "tls", "secret": {"secretName": parts.tls_secret, "defaultMode": 0o444}})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{desired.name}-0",
            "namespace": desired.namespace,
            "labels": labels(desired),
        },
        "spec": _filled(
            {
                "hostname": desired.name,
                "restartPolicy": "Always",
                "enableServiceLinks": False,
                "automountServiceAccountToken": False,
                "containers": [_container(desired, parts)],
                "volumes": volumes,
            }
        ),
    }


def claim(desired: DesiredBundle, wanted: Claim) -> dict[str, Any]:
    """The claim outlives its pod; uninstalling the bundle decides about it."""
    annotations = {}
    if wanted.encryption_key is not None:
        annotations[VOLUME_KEY] = wanted.encryption_key
    if wanted.fs_type != "ext4":
        annotations[FS_TYPE] = wanted.fs_type
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _filled(
            {
                "name": wanted.name,
                "namespace": desired.namespace,
                "labels": labels(desired),
                "annotations": annotations,
            }
        ),
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": wanted.size}},
            "volumeMode": "Filesystem",
        },
    }


def labels(desired: DesiredBundle) -> dict[str, str]:
    return {
        BUNDLE_LABEL: desired.name,
        "app.kubernetes.io/name": desired.service,
        "app.kubernetes.io/instance": desired.name,
        "app.kubernetes.io/managed-by": "nanocloud",
    }


def _container(desired: DesiredBundle, parts: PodParts) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": c.volume, "mountPath": c.mount_path} for c in parts.claims]
    if parts.tls_secret:
        mounts.append({"name": "tls", "mountPath": TLS_DIRECTORY, "readOnly": True})
    return _filled(
        {
            "name": desired.service,
            "image": parts.image,
            "imagePullPolicy": "IfNotPresent",
            "command": list(parts.command),
            "args": list(parts.arguments),
            "env": [_variable(name, value) for name, value in sorted(parts.environment.items())],
            "ports": [_port(port) for port in parts.ports],
            "volumeMounts": mounts,
            "readinessProbe": {
                "exec": {"command": [READY_COMMAND]},
                "periodSeconds": 2,
                "timeoutSeconds": 10,
                "failureThreshold": 3,
            },
            "securityContext": _security(desired.security, parts.capabilities),
        }
    )


def _variable(name: str, value: str | SecretReference) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": name, "value": value}
    reference: dict[str, Any] = {"name": value.secret, "key": value.key}
    if value.optional:
        reference["optional"] = True
    return {"name": name, "valueFrom": {"secretKeyRef": reference}}


def _port(port: Port) -> dict[str, Any]:
    found: dict[str, Any] = {"containerPort": port.container_port, "protocol": port.protocol.upper()}
    if port.host_port is not None:
        found["hostPort"] = port.host_port
    if port.host_ip is not None:
        found["hostIP"] = port.host_ip
    return found


def _security(security: BundleSecurity, capabilities: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"capabilities": _filled({"add": sorted(capabilities), "drop": ["ALL"]})}
    if security.allow_privileged:
        found["privileged"] = True
    else:
        found["allowPrivilegeEscalation"] = False
    # The node's baseline filter has no Kubernetes name: it is what a pod gets that asks for nothing.
    if security.seccomp_profile == "RuntimeDefault":
        found["seccompProfile"] = {"type": "RuntimeDefault"}
    elif security.seccomp_profile == "Localhost":
        found["seccompProfile"] = {"type": "Localhost", "localhostProfile": security.localhost_profile}
    return found


def _filled(fields: dict[str, Any]) -> dict[str, Any]:
    """Without empty lists and objects, as Kubernetes writes its objects."""
    return {name: value for name, value in fields.items() if value not in ([], {}, ())}
