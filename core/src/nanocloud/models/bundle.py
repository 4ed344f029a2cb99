"""Bundle: the object that asks for one service of the catalogue, with options. Kind ``nanocloud.io/v1 Bundle``.

Controllers read ``spec_of(obj)``, which is typed, and write ``status``, which is plain data.
"""

from __future__ import annotations

import enum
from typing import Any

import attrs

from nanocloud.errors import FieldError
from nanocloud.models import schema as schemas
from nanocloud.models.converter import structure
from nanocloud.models.kinds import Column, ResourceKind, Subresource, value_at
from nanocloud.models.meta import DNS_LABEL, Object, condition, name_of
from nanocloud.models.schema import described

GROUP = "nanocloud.io"
BUNDLE_LABEL = "nanocloud.io/bundle"
"""On everything that was made for a bundle; the value is its name."""
UNINSTALL_FINALIZER = "nanocloud.io/uninstall"
"""Holds a deleted bundle until what was made for it is gone."""
ADDRESS_FINALIZER = "nanocloud.io/address"
"""Holds a deleted bundle until its address is given back."""
RESTARTED_AT = "nanocloud.io/restartedAt"
"""Annotation; a new value restarts the bundle's pods."""

_OPTION_NAME = r"^[A-Za-z][A-Za-z0-9_.-]{0,127}$"
_OPTION_LIMIT_BYTES = 256 * 1024


class BundleCondition(enum.Enum):
    """In order: each is True only while those before it are."""

    PROFILE_PREPARED = "ProfilePrepared"
    SECRETS_PROVISIONED = "SecretsProvisioned"
    BOUND = "Bound"
    READY = "Ready"


class BundlePhase(enum.Enum):
    PENDING = "Pending"
    INSTALLING = "Installing"
    RUNNING = "Running"
    STOPPED = "Stopped"
    FAILED = "Failed"
    TERMINATING = "Terminating"


@attrs.frozen(kw_only=True)
class BundleSecurity:
    """What the service's container may do beyond the baseline."""

    allow_privileged: bool = described("Run without confinement; the node's policy may forbid it.", default=False)
    extra_capabilities: tuple[str, ...] = described(
        "Capabilities to add, named as in capabilities(7).", factory=tuple, maxItems=64
    )
    seccomp_profile: str = described(
        "Which system calls are let through.", default="Baseline", enum=["Baseline", "RuntimeDefault", "Localhost"]
    )
    localhost_profile: str | None = described(
        "Name of a seccomp profile of the node; needed when seccompProfile is Localhost.",
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
    )


@attrs.frozen(kw_only=True)
class BundleSpec:
    """What the user asked for. Controllers read it and never write it."""

    service: str = described(
        "The service of the catalogue to install.",
        pattern=f"^{DNS_LABEL}$",
        **{"x-nanocloud-rule": "must be an RFC 1123 label: a-z, 0-9 and '-', at most 63 characters"},
    )
    image: str | None = described(
        "Image reference to use instead of the catalogue's choice.",
        default=None,
        pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._/:@+-]{0,511}$",
    )
    options: dict[str, str] = described("Values of options that the image declares.", factory=dict, maxProperties=256)
    start: bool = described("Whether the service runs.", default=True)
    deps: bool = described("Install selected services that are missing; false refuses instead.", default=True)
    security: BundleSecurity = described("Confinement of the service's container.", factory=BundleSecurity)
    force_bindings: str | None = described(
        "A new value, usually the time, runs completed bindings once more.", default=None, maxLength=128
    )


CONDITIONS = schemas.array(
    schemas.fields(
        {
            "type": schemas.string("Name of the condition."),
            "status": schemas.string("Whether it holds.", enum=["True", "False", "Unknown"]),
            "reason": schemas.string("One word for programs."),
            "message": schemas.string("One line for people."),
            "lastTransitionTime": schemas.time("When the status last changed.") | {"nullable": True},
            "lastProbeTime": schemas.time("When it was last looked at.") | {"nullable": True},
            "observedGeneration": schemas.integer("The generation that it speaks of.", format="int64"),
        },
        required=("type", "status"),
    ),
    "What holds, by type.",
    key="type",
    maxItems=64,
)

_STATUS = schemas.fields(
    {
        "phase": schemas.string("The conditions in one word.", enum=[phase.value for phase in BundlePhase]),
        "reason": schemas.string("Why it is not ready, in one word for programs."),
        "message": schemas.string("Why it is not ready, for people."),
        "observedGeneration": schemas.integer("The generation that this status answers.", format="int64"),
        "conditions": CONDITIONS,
        "image": schemas.string("The image in use, by digest."),
        "options": schemas.mapping(description="Resolved options; secret values are masked."),
        "optionSources": schemas.mapping(description="Option to where its value came from."),
        "bindings": schemas.array(
            schemas.fields(
                {
                    "name": schemas.string("Binding object."),
                    "target": schemas.string("The selected service's bundle."),
                    "command": schemas.string("What runs there."),
                    "phase": schemas.string("Pending, Running, Completed, Failed or Timeout."),
                    "attempts": schemas.integer("Runs so far."),
                    "exitCode": schemas.integer("Of the last run."),
                    "message": schemas.string("Why it failed."),
                    "startedAt": schemas.time("When the last run began."),
                    "finishedAt": schemas.time("When the last run ended."),
                },
                required=("name",),
            ),
            "What this bundle asked of other services.",
        ),
        "pod": schemas.string("Pod that runs the service."),
        "services": schemas.mapping(description="Option to the bundle that was selected for it."),
        "restartedAt": schemas.string("The restart request that was last carried out."),
        "forcedBindings": schemas.string("The spec.forceBindings that was last carried out."),
    },
    "What controllers observed.",
)


def spec_of(bundle: Object) -> BundleSpec:
    """The typed spec of a stored Bundle."""
    return structure(bundle.get("spec", {}), BundleSpec, path="spec", what=f'Bundle "{name_of(bundle)}"')


def _check(bundle: Object) -> list[FieldError]:
    found: list[FieldError] = []
    options: dict[str, str] = bundle["spec"].get("options") or {}
    for name in options:
        if not schemas.matches(_OPTION_NAME, name):
            rule = "an option name: a letter, then letters, digits, '_', '.' or '-', at most 128 characters"
            found.append(FieldError("spec.options", f'"{name[:80]}" is not {rule}'))
    if sum(len(k) + len(v) for k, v in options.items()) > _OPTION_LIMIT_BYTES:
        found.append(FieldError("spec.options", "are larger than 256 KiB together", "FieldValueTooLong"))
    security = bundle["spec"].get("security") or {}
    for index, name in enumerate(security.get("extraCapabilities") or []):
        if not schemas.matches(r"^CAP_[A-Z_]{2,40}$", name):
            path = f"spec.security.extraCapabilities[{index}]"
            found.append(FieldError(path, f'"{name[:80]}" is not a capability such as CAP_NET_BIND_SERVICE'))
    if security.get("seccompProfile") == "Localhost" and not security.get("localhostProfile"):
        message = "is required when seccompProfile is Localhost"
        found.append(FieldError("spec.security.localhostProfile", message, "FieldValueRequired"))
    return found


def _ready(bundle: Object) -> str:
    return str((condition(bundle, BundleCondition.READY.value) or {}).get("status", "Unknown"))


def _status(bundle: Object) -> Any:
    if bundle["metadata"].get("deletionTimestamp"):
        return BundlePhase.TERMINATING.value
    reason = value_at(bundle, "status.reason")
    return reason or value_at(bundle, "status.phase") or BundlePhase.PENDING.value


BUNDLE = ResourceKind(
    group=GROUP,
    plural="bundles",
    singular="bundle",
    kind="Bundle",
    short_names=("bd",),
    categories=("all", "nanocloud"),
    custom=True,
    name_is_label=True,
    schema=schemas.fields(
        {"spec": schemas.of_class(BundleSpec), "status": _STATUS},
        "A Bundle asks for one service of the catalogue, with options, and everything that the service needs.",
        required=("spec",),
    ),
    columns=(
        Column("Service", lambda o: value_at(o, "spec.service"), description="The service of the catalogue."),
        Column("Ready", _ready, description="Whether the service can be used."),
        Column("Status", _status, description="Phase, or why it is not ready."),
        Column("Image", lambda o: value_at(o, "status.image") or value_at(o, "spec.image"), priority=1),
        Column("Message", lambda o: value_at(o, "status.message"), priority=1),
    ),
    subresources=(
        Subresource(name="actions", kind="Bundle", verbs=("create",)),
        Subresource(name="exportProfile", kind="Bundle", verbs=("create",)),
        Subresource(name="importProfile", kind="Bundle", verbs=("create",)),
    ),
    immutable=("spec.service",),
    selectable=("spec.service", "status.phase"),
    check=_check,
    initial_finalizers=(UNINSTALL_FINALIZER, ADDRESS_FINALIZER),
)
