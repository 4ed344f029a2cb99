"""What providers are asked for, with defaults that any provider takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nanocloud.providers.binding import BindingArgument, BindingCall
from nanocloud.providers.image import Digest, Image, ImageConfig
from nanocloud.providers.macro import MacroContext
from nanocloud.providers.network import SandboxId, SandboxNetworkSpec
from nanocloud.providers.runtime import ContainerId, ContainerSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from nanocloud.providers.network import PortMapping
    from nanocloud.providers.runtime import RuntimeProvider

DIGEST = Digest("sha256:" + "ab" * 32)


def container_spec(
    id: str, logs: Path, *, argv: Sequence[str] = ("run",), layers: Sequence[Path] = (), **fields: Any
) -> ContainerSpec:
    """A container that logs to ``<logs>/<id>.log``; ``fields`` are those of ContainerSpec."""
    given = {"log_path": logs / f"{id}.log"} | fields
    return ContainerSpec(id=ContainerId(id), argv=tuple(argv), layers=tuple(layers), **given)


def sandbox_spec(name: str, *ports: PortMapping, owner: str = "") -> SandboxNetworkSpec:
    """A sandbox of the pod ``default/<name>``, or of ``owner``."""
    return SandboxNetworkSpec(sandbox=SandboxId(name), owner=owner or f"default/{name}", ports=ports)


def labelled_image(reference: str, labels: Mapping[str, str] | None = None, **config: Any) -> Image:
    """An image of one byte; ``config`` are fields of ImageConfig."""
    made = ImageConfig(labels=labels or {}, **config)
    return Image(reference=reference, digest=DIGEST, config=made, size_bytes=1)


def binding_call(
    command: str, *arguments: str | bytes, container: ContainerId, runtime: RuntimeProvider
) -> BindingCall:
    """The first attempt of a binding command; arguments of bytes are secret."""
    return BindingCall(
        id="default/web/one",
        command=command,
        arguments=tuple(map(_argument, arguments)),
        container=container,
        runtime=runtime,
        attempt=1,
    )


def macro_context(bundle: str = "web", *, option: str = "a", **options: str) -> MacroContext:
    """An option of ``default/<bundle>`` is being resolved; ``options`` are those that came before."""
    return MacroContext(namespace="default", bundle=bundle, option=option, options=options)


def _argument(value: str | bytes) -> BindingArgument:
    if isinstance(value, bytes):
        return BindingArgument(value=value.decode(), secret=True)
    return BindingArgument(value=value)
