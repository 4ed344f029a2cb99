"""What a pod needs before its containers: network, image layers, volumes, files; and giving it all back.

Every step is idempotent at its provider, so preparing again after a crash finds what is there.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from nanocloud.concurrency import gather, in_thread
from nanocloud.errors import (
    FieldError,
    ImageError,
    InvalidError,
    NanocloudError,
    NotFoundError,
    PortInUseError,
    VolumeFullError,
)
from nanocloud.kubelet.translate import network_spec, owner_of, sandbox_id, selected_services
from nanocloud.kubelet.users import image_has, numeric_user, own_fresh_volume
from nanocloud.models.core import CONFIG_MAP, PERSISTENT_VOLUME_CLAIM, SECRET
from nanocloud.models.meta import annotations_of, name_of, namespace_of, uid_of
from nanocloud.models.pod import POD
from nanocloud.planning.quantity import parse_bytes
from nanocloud.planning.workload import READY_COMMAND
from nanocloud.providers.runtime import Mount, ProjectedFile
from nanocloud.providers.volume import VolumeId, VolumeSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.providers.image import UnpackedImage
    from nanocloud.providers.network import SandboxNetwork


class PodSetupError(NanocloudError):
    """A pod cannot start yet; ``word`` is the reason that its status shows."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


@attrs.frozen(kw_only=True)
class PreparedContainer:
    image: UnpackedImage
    mounts: tuple[Mount, ...]
    files: tuple[ProjectedFile, ...]
    tmpfs: tuple[str, ...]
    environment: dict[str, str] = attrs.field(repr=False)
    probe: dict[str, Any] | None = None
    """How readiness is asked; None where a running container is ready."""


@attrs.frozen(kw_only=True)
class PreparedPod:
    network: SandboxNetwork
    peers: dict[str, tuple[str, ...]]
    """Selected service to the addresses of its pod."""
    containers: tuple[PreparedContainer, ...]


VOLUME_KEY = "nanocloud.io/volume-key"
"""Annotation of a claim: the key that its volume is encrypted with."""


def volume_id(namespace: str, claim: str) -> VolumeId:
    return VolumeId(f"{namespace}.{claim}")


def volume_spec(claim: Object) -> VolumeSpec:
    """What a claim asks the volume provider for.

    Raises:
        InvalidError: it asks for encryption, which no provider here gives; plaintext would be worse than none.
    """
    if VOLUME_KEY in annotations_of(claim):
        raise InvalidError(f"claim {name_of(claim)!r} asks for an encrypted volume; volumes are not encrypted here yet")
    size = claim["spec"]["resources"]["requests"]["storage"]
    return VolumeSpec(id=volume_id(namespace_of(claim), name_of(claim)), size_bytes=parse_bytes(size))


async def prepare_pod(pod: Object, parts: KubeletParts) -> PreparedPod:
    """Attach the network, find the images and publish the volumes, side by side.

    Raises:
        PodSetupError: which part failed, and why.
    """
    containers = pod["spec"]["containers"]
    network, images, volumes = await gather(
        partial(_step, "NetworkNotReady", partial(parts.network.attach, network_spec(pod))),
        partial(gather, *(partial(_step, "ErrImagePull", partial(_image, c["image"], parts)) for c in containers)),
        partial(_step, "FailedMount", partial(_publish, pod, parts)),
    )
    ready = []
    for container, image in zip(containers, images, strict=True):
        ready.append(
            await _step(
                "CreateContainerConfigError", partial(_container, pod, container, image, volumes, network, parts)
            )
        )
    return PreparedPod(network=network, peers=await _peers(pod, parts), containers=tuple(ready))


async def _peers(pod: Object, parts: KubeletParts) -> dict[str, tuple[str, ...]]:
    found = {}
    for service in selected_services(pod):
        peer = await parts.store.find(POD, namespace_of(pod), f"{service}-0")
        addresses = ((peer or {}).get("status") or {}).get("podIPs") or []
        found[service] = tuple(entry["ip"] for entry in addresses)
    return found


async def release_pod(pod: Object, parts: KubeletParts, *, for_good: bool) -> None:
    """Give back network and volumes; ``for_good`` also the address. Repeats safely."""
    sandbox = sandbox_id(uid_of(pod))
    await parts.network.detach(sandbox)
    if for_good:
        await parts.network.release(owner_of(pod))
    for volume in pod["spec"].get("volumes") or []:
        if claim := volume.get("persistentVolumeClaim"):
            with suppress(NotFoundError):  # it went with its claim
                await parts.volume.unpublish(volume_id(namespace_of(pod), claim["claimName"]), consumer=sandbox)


async def _step(word: str, action: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await action()
    except PodSetupError:
        raise
    except PortInUseError as exc:
        raise PodSetupError("PortInUse", str(exc)) from exc
    except VolumeFullError as exc:
        raise PodSetupError("VolumeFull", str(exc)) from exc
    except NanocloudError as exc:
        raise PodSetupError(word, str(exc)) from exc


async def _image(reference: str, parts: KubeletParts) -> UnpackedImage:
    try:
        return await parts.images.ensure(reference)
    except NotFoundError as exc:
        raise ImageError(str(exc)) from exc


async def _publish(pod: Object, parts: KubeletParts) -> dict[str, Any]:
    """Pod volume name to its host path (claims), or to its source object (everything else)."""
    found: dict[str, Any] = {}
    for volume in pod["spec"].get("volumes") or []:
        claim = volume.get("persistentVolumeClaim")
        found[volume["name"]] = await _publish_claim(pod, claim["claimName"], parts) if claim else volume
    return found


async def _publish_claim(pod: Object, claim: str, parts: KubeletParts) -> Any:
    namespace = namespace_of(pod)
    stored = await parts.store.get(PERSISTENT_VOLUME_CLAIM, namespace, claim)
    wanted = volume_spec(stored)
    # The claims worker makes it too, and may not have come to it yet; creating twice gives the same volume.
    await parts.volume.create(wanted)
    return await parts.volume.publish(wanted.id, consumer=sandbox_id(uid_of(pod)))


async def _container(
    pod: Object,
    container: dict[str, Any],
    image: UnpackedImage,
    volumes: dict[str, Any],
    network: SandboxNetwork,
    parts: KubeletParts,
) -> PreparedContainer:
    uid, gid, probe = await in_thread(_look_up, container, image)
    mounts: list[Mount] = []
    files: list[ProjectedFile] = []
    tmpfs: list[str] = []
    for mount in container.get("volumeMounts") or []:
        source = volumes.get(mount["name"])
        if source is None:
            message = f"volume {mount['name']!r} is not declared under spec.volumes"
            raise InvalidError(message, [FieldError("spec.containers.volumeMounts", message)])
        if not isinstance(source, dict):
            await in_thread(own_fresh_volume, source, uid, gid)
            mounts.append(Mount(source=source, target=mount["mountPath"], read_only=bool(mount.get("readOnly"))))
        elif "emptyDir" in source:
            tmpfs.append(mount["mountPath"])
        else:
            files += await _projected(namespace_of(pod), source, mount["mountPath"], parts)
    return PreparedContainer(
        image=image,
        mounts=tuple(mounts),
        files=tuple(files),
        tmpfs=tuple(tmpfs),
        environment=await _environment(pod, container, network, parts),
        probe=probe,
    )


def _look_up(container: dict[str, Any], image: UnpackedImage) -> tuple[int, int, dict[str, Any] | None]:
    """What only the image's files tell: uid and gid of its user, and how readiness is asked."""
    return *numeric_user(image.image.config.user, image.layers), _probe(container, image)


def _probe(container: dict[str, Any], image: UnpackedImage) -> dict[str, Any] | None:
    """The container's readiness probe; an image without ``ready.sh`` says nothing about readiness."""
    probe: dict[str, Any] | None = container.get("readinessProbe")
    command = ((probe or {}).get("exec") or {}).get("command")
    return None if command == [READY_COMMAND] and not image_has(READY_COMMAND, image.layers) else probe


async def _projected(namespace: str, source: dict[str, Any], folder: str, parts: KubeletParts) -> list[ProjectedFile]:
    """A Secret or ConfigMap as files, which exist on tmpfs only."""
    if secret := source.get("secret"):
        data = await _data(SECRET, namespace, secret["secretName"], parts)
        mode = secret.get("defaultMode", 0o444)
    elif config := source.get("configMap"):
        data, mode = await _data(CONFIG_MAP, namespace, config["name"], parts), config.get("defaultMode", 0o444)
    else:
        raise InvalidError(
            f"volume {source['name']!r} is of no known kind: persistentVolumeClaim, secret, configMap, emptyDir"
        )
    return [ProjectedFile(path=f"{folder.rstrip('/')}/{key}", content=value, mode=mode) for key, value in data.items()]


async def _environment(
    pod: Object, container: dict[str, Any], network: SandboxNetwork, parts: KubeletParts
) -> dict[str, str]:
    environment: dict[str, str] = {}
    for entry in container.get("env") or []:
        source = entry.get("valueFrom") or {}
        if "secretKeyRef" in source:
            value = await _entry(SECRET, namespace_of(pod), source["secretKeyRef"], parts)
        elif "configMapKeyRef" in source:
            value = await _entry(CONFIG_MAP, namespace_of(pod), source["configMapKeyRef"], parts)
        elif source.get("fieldRef", {}).get("fieldPath") == "status.podIP":
            value = str(network.addresses[0])
        else:
            value = entry.get("value", "")
        if value is not None:
            environment[entry["name"]] = value
    return environment


async def _entry(kind: Any, namespace: str, reference: dict[str, Any], parts: KubeletParts) -> str | None:
    try:
        data = await _data(kind, namespace, reference["name"], parts)
        return data[reference["key"]].decode()
    except (NotFoundError, KeyError):
        if reference.get("optional"):
            return None
        raise InvalidError(f"{kind.kind} {reference['name']!r} has no key {reference['key']!r}") from None


async def _data(kind: Any, namespace: str, name: str, parts: KubeletParts) -> dict[str, bytes]:
    stored = await parts.store.get(kind, namespace, name)
    if kind is SECRET:
        return {key: base64.b64decode(value) for key, value in (stored.get("data") or {}).items()}
    return {key: value.encode() for key, value in (stored.get("data") or {}).items()}
