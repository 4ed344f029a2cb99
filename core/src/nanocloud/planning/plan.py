"""``plan``: a bundle's decided profile and its image become the workload plan. Pure, and the last gate before the node.

Everything that an untrusted label could ask for and must not get is refused here at the latest: bindings that the
target does not export, Secrets of others, capabilities beyond the harmless ones that the user did not grant, two
volumes on one path, two owners of one host port.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nanocloud.errors import FieldError, InvalidError, LabelError
from nanocloud.planning import manifests
from nanocloud.planning.bindings import binding_steps
from nanocloud.planning.contract import CAPABILITIES_LABEL
from nanocloud.planning.profile import GIVEN, PROFILE
from nanocloud.planning.quantity import parse_bytes
from nanocloud.planning.reserved import (
    DEFAULT_VOLUME_SIZE,
    Encryption,
    Port,
    Reserved,
    SecretReference,
    parse_encryption,
    parse_port,
    parse_secret_reference,
    parse_words,
    reserved,
)
from nanocloud.planning.workload import (
    TLS_DIRECTORY,
    BindingStep,
    Claim,
    DesiredBundle,
    Inventory,
    SecretPlan,
    SelectedService,
    WorkloadPlan,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from nanocloud.planning.contract import ImageContract
    from nanocloud.planning.profile import Profile, ResolvedOption
    from nanocloud.providers.image import Image

LABEL_CAPABILITIES = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"}
)
"""What an image may ask for in its label. They act on the container's own files and processes; everything else needs
the user's word in ``spec.security.extraCapabilities``."""

_CAPABILITY = re.compile(r"(?:CAP_)?(?P<name>(?!CAP_)[A-Z][A-Z_]{1,40})")


def plan(
    desired: DesiredBundle, profile: Profile, contract: ImageContract, image: Image, inventory: Inventory
) -> WorkloadPlan:
    """What satisfies the bundle. The same input gives an equal plan.

    Raises:
        InvalidError: lists what is refused, by field.
        LabelError: ``io.nanocloud.capabilities`` cannot be read.
    """
    problems: list[FieldError] = []
    options = dict(sorted(profile.options.items()))
    steps = binding_steps(contract, profile, inventory.targets, force=desired.force_bindings, problems=problems)
    ports = _ports(options, problems)
    claims = _claims(desired, options, problems)
    tls = f"{desired.name}-tls" if any(f"{TLS_DIRECTORY}/" in option.value for option in options.values()) else None
    pinned = pin(image.reference, image.digest)
    parts = manifests.PodParts(
        image=pinned,
        command=_words(options, "runtime_command"),
        arguments=_words(options, "runtime_args"),
        environment=_environment(desired, options, inventory, problems),
        ports=ports,
        claims=claims,
        tls_secret=tls,
        capabilities=_capabilities(desired, image.config.labels, problems),
    )
    if problems:
        shown = "; ".join(f"{p.field}: {p.message}" for p in problems)
        raise InvalidError(f'bundle "{desired.name}" cannot be planned: {shown}', problems)
    return WorkloadPlan(
        namespace=desired.namespace,
        bundle=desired.name,
        service=desired.service,
        image=pinned,
        digest=image.digest,
        options=options,
        services=tuple(
            SelectedService(option=option, bundle=bundle, installed=bundle in inventory.installed)
            for option, bundle in sorted(profile.services.items())
        ),
        bindings=steps,
        ports=ports,
        claims=claims,
        secrets=_secrets(desired, options, steps),
        tls_secret=tls,
        pod=manifests.pod(desired, parts),
        claim_objects=tuple(manifests.claim(desired, claim) for claim in claims),
    )


def pin(reference: str, digest: str) -> str:
    """``registry:5000/mariadb:11`` becomes ``registry:5000/mariadb@sha256:...``; only the digest says what runs."""
    name = reference.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{digest}"


def _of_kind(options: Mapping[str, ResolvedOption], kind: Reserved) -> Iterator[tuple[str, str, ResolvedOption]]:
    """(option's name, ``<n>`` or ``<VAR>``, option), numbers in their order."""
    found = [(name, r[1], option) for name, option in options.items() if (r := reserved(name)) and r[0] is kind]
    return iter(sorted(found, key=lambda item: (len(item[1]) if item[1].isdigit() else 0, item[1])))


def _words(options: Mapping[str, ResolvedOption], name: str) -> tuple[str, ...]:
    return parse_words(options[name].value) if name in options else ()


def _ports(options: Mapping[str, ResolvedOption], problems: list[FieldError]) -> tuple[Port, ...]:
    found: list[Port] = []
    for name, _, option in _of_kind(options, Reserved.PORT):
        port = parse_port(option.value)
        if other := next((p for p in found if _clash(p, port)), None):
            problems.append(_refused(name, f"{port} takes the host port of {other}"))
        found.append(port)
    return tuple(found)


def _clash(one: Port, other: Port) -> bool:
    if one.host_port is None or (one.host_port, one.protocol) != (other.host_port, other.protocol):
        return False
    return one.host_ip is None or other.host_ip is None or one.host_ip == other.host_ip


def _claims(
    desired: DesiredBundle, options: Mapping[str, ResolvedOption], problems: list[FieldError]
) -> tuple[Claim, ...]:
    found: list[Claim] = []
    for name, index, option in _of_kind(options, Reserved.VOLUME):
        size = options.get(f"volume_size_{index}")
        encrypted = options.get(f"volume_encrypted_{index}")
        encryption: Encryption | None = parse_encryption(encrypted.value) if encrypted else None
        text = size.value if size else DEFAULT_VOLUME_SIZE
        claim = Claim(
            name=f"volume-{index}-{desired.name}-0",
            volume=f"volume-{index}",
            size=text,
            size_bytes=parse_bytes(text),
            mount_path=option.value,
            encryption_key=encryption.key if encryption else None,
            fs_type=encryption.fs_type if encryption else "ext4",
        )
        if any(claim.mount_path == other.mount_path for other in found):
            problems.append(_refused(name, f"another volume is mounted at {claim.mount_path!r}"))
        found.append(claim)
    return tuple(found)


def _environment(
    desired: DesiredBundle, options: Mapping[str, ResolvedOption], inventory: Inventory, problems: list[FieldError]
) -> dict[str, str | SecretReference]:
    found: dict[str, str | SecretReference] = {}
    for name, variable, option in _of_kind(options, Reserved.ENV):
        kept = SecretReference(secret=f"{desired.name}-options", key=name)
        found[variable] = kept if option.secret else option.value
    for name, variable, option in _of_kind(options, Reserved.SECRET_ENV):
        reference = parse_secret_reference(option.value)
        if variable in found:
            problems.append(_refused(name, f"env_{variable} sets {variable} too"))
        elif why := _foreign(desired, option, reference, inventory):
            problems.append(_refused(name, why))
        found[variable] = reference
    return found


def _foreign(
    desired: DesiredBundle, option: ResolvedOption, reference: SecretReference, inventory: Inventory
) -> str | None:
    """Why the Secret is not to be read: a label may name only the bundle's own, a user any but other bundles'."""
    own = {desired.name, *_names(desired.name)} | inventory.own_secrets
    if reference.secret in own:
        return None
    others = {name for bundle in inventory.installed - {desired.name} for name in _names(bundle)}
    if reference.secret in others or any(reference.secret in _names(bundle) for bundle in inventory.targets):
        return f"Secret {reference.secret} belongs to another bundle"
    if option.source in (GIVEN, PROFILE):
        return None
    return f"Secret {reference.secret} is outside the bundle, and an image's label may not name it; give it yourself"


def _names(bundle: str) -> tuple[str, str]:
    return f"{bundle}-options", f"{bundle}-tls"


def _capabilities(desired: DesiredBundle, labels: Mapping[str, str], problems: list[FieldError]) -> frozenset[str]:
    granted = frozenset(name.removeprefix("CAP_") for name in desired.security.extra_capabilities)
    asked = capability_label(labels.get(CAPABILITIES_LABEL, ""))
    for name in sorted(asked - LABEL_CAPABILITIES - granted):
        why = f"the image asks for CAP_{name}, which no image gets by itself; add it here to grant it"
        problems.append(FieldError("spec.security.extraCapabilities", why, "FieldValueForbidden"))
    return asked | granted


def capability_label(text: str) -> frozenset[str]:
    """The capabilities that a label asks for, without ``CAP_``. Raises LabelError."""
    if len(text) > 4096:
        raise LabelError(f"{CAPABILITIES_LABEL}: is {len(text)} characters long; the limit is 4096")
    try:
        words = parse_words(text)
    except ValueError as exc:
        raise LabelError(f"{CAPABILITIES_LABEL}: {exc}") from exc
    found = set()
    for word in words:
        match = _CAPABILITY.fullmatch(word)
        if not match:
            raise LabelError(f"{CAPABILITIES_LABEL}: {word[:60]!a} is not a capability such as CAP_CHOWN")
        found.add(match["name"])
    return frozenset(found)


def _secrets(
    desired: DesiredBundle, options: Mapping[str, ResolvedOption], steps: tuple[BindingStep, ...]
) -> tuple[SecretPlan, ...]:
    values = {name: option.value for name, option in options.items() if option.secret}
    for step in steps:
        for key, argument in zip(step.secret_keys, step.arguments, strict=True):
            if key is not None:
                values[key] = argument.value
    return (SecretPlan(name=f"{desired.name}-options", values=values),) if values else ()


def _refused(option: str, why: str) -> FieldError:
    return FieldError(f"spec.options.{option}", why)
