"""The small kinds of the core group: Namespace, Node, ConfigMap, Secret, Event, PersistentVolumeClaim."""

from __future__ import annotations

import base64
from typing import Any

from nanocloud.errors import FieldError
from nanocloud.models import schema as schemas
from nanocloud.models.bundle import CONDITIONS
from nanocloud.models.kinds import READ_VERBS, Column, ResourceKind, value_at
from nanocloud.models.meta import Object, condition, is_deleting
from nanocloud.models.tables import age

DATA_LIMIT_BYTES = 1024 * 1024
"""Of a ConfigMap or a Secret, all values together."""
EVENT_TTL_SECONDS = 3600.0
_KEY = r"^[-._a-zA-Z0-9]{1,253}$"
_KEY_RULE = "must be 1 to 253 letters, digits, '-', '_' or '.'"

REFERENCE = schemas.fields(
    {
        "apiVersion": schemas.string(),
        "kind": schemas.string(),
        "namespace": schemas.string(),
        "name": schemas.string(),
        "uid": schemas.string(),
        "resourceVersion": schemas.string(),
        "fieldPath": schemas.string(),
    },
    "Points at an object.",
)


def _check_data(obj: Object) -> list[FieldError]:
    found: list[FieldError] = []
    size = 0
    for field in ("data", "binaryData"):
        for key, value in (obj.get(field) or {}).items():
            size += len(value)
            if not schemas.matches(_KEY, key) or key in (".", ".."):
                found.append(FieldError(f"{field}[{key[:80]}]", _KEY_RULE))
    for key in (obj.get("data") or {}).keys() & (obj.get("binaryData") or {}).keys():
        found.append(FieldError(f"data[{key}]", "stands in binaryData too", "FieldValueDuplicate"))
    if size > DATA_LIMIT_BYTES * 4 // 3:
        found.append(FieldError("data", "is larger than 1 MiB", "FieldValueTooLong"))
    return found


def _check_frozen(old: Object, new: Object) -> list[FieldError]:
    if not old.get("immutable"):
        return []
    found = [
        FieldError(field, "cannot be changed when `immutable` is set", "FieldValueForbidden")
        for field in ("data", "binaryData")
        if (old.get(field) or {}) != (new.get(field) or {})
    ]
    if not new.get("immutable"):
        found.append(FieldError("immutable", "cannot be unset", "FieldValueForbidden"))
    return found


def _fold_string_data(secret: Object) -> None:
    plain = secret.pop("stringData", None)
    if isinstance(plain, dict) and all(isinstance(value, str) for value in plain.values()):
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        secret["data"] = (secret.get("data") or {}) | encoded
    elif plain is not None:
        secret["stringData"] = plain  # the schema says what is wrong with it


def _start_active(namespace: Object) -> None:
    if not is_deleting(namespace):
        status = namespace.setdefault("status", {})
        if isinstance(status, dict):
            status.setdefault("phase", "Active")


def _count(*field_names: str) -> Any:
    return lambda obj: sum(len(obj.get(name) or {}) for name in field_names)


NAMESPACE = ResourceKind(
    group="",
    plural="namespaces",
    singular="namespace",
    kind="Namespace",
    short_names=("ns",),
    namespaced=False,
    name_is_label=True,
    verbs=("create", "delete", "get", "list", "patch", "update", "watch"),
    schema=schemas.fields(
        {
            "spec": schemas.fields({"finalizers": schemas.array(schemas.string())}),
            "status": schemas.fields({"phase": schemas.string(), "conditions": CONDITIONS}),
        },
        "A Namespace is a scope of names.",
    ),
    columns=(Column("Status", lambda o: "Terminating" if is_deleting(o) else value_at(o, "status.phase")),),
    selectable=("status.phase",),
    prepare=_start_active,
    initial_finalizers=("nanocloud.io/namespace",),
)

NODE = ResourceKind(
    group="",
    plural="nodes",
    singular="node",
    kind="Node",
    short_names=("no",),
    namespaced=False,
    verbs=READ_VERBS,
    schema=schemas.fields(
        {
            "spec": schemas.anything("As the node registered itself."),
            "status": schemas.anything("As the kubelet reports."),
        },
        "The machine.",
    ),
    columns=(
        Column("Status", lambda o: "Ready" if (condition(o, "Ready") or {}).get("status") == "True" else "NotReady"),
        Column("Roles", lambda o: "control-plane"),
        Column("Version", lambda o: value_at(o, "status.nodeInfo.kubeletVersion")),
        Column("Internal-IP", lambda o: _address(o, "InternalIP"), priority=1),
        Column("OS-Image", lambda o: value_at(o, "status.nodeInfo.osImage"), priority=1),
        Column("Kernel-Version", lambda o: value_at(o, "status.nodeInfo.kernelVersion"), priority=1),
        Column("Container-Runtime", lambda o: value_at(o, "status.nodeInfo.containerRuntimeVersion"), priority=1),
    ),
    selectable=("spec.unschedulable",),
)


def _address(node: Object, kind: str) -> str | None:
    addresses = value_at(node, "status.addresses") or []
    return next((str(entry.get("address")) for entry in addresses if entry.get("type") == kind), None)


CONFIG_MAP = ResourceKind(
    group="",
    plural="configmaps",
    singular="configmap",
    kind="ConfigMap",
    short_names=("cm",),
    has_status=False,
    schema=schemas.fields(
        {
            "data": schemas.mapping(description="Text by name."),
            "binaryData": schemas.mapping(schemas.string(format="byte"), "Base64 by name."),
            "immutable": schemas.boolean("True forbids every later change of the data."),
        },
        "A ConfigMap holds configuration that is no secret.",
    ),
    columns=(Column("Data", _count("data", "binaryData"), type="integer"),),
    check=_check_data,
    check_update=_check_frozen,
)

SECRET = ResourceKind(
    group="",
    plural="secrets",
    singular="secret",
    kind="Secret",
    has_status=False,
    schema=schemas.fields(
        {
            "data": schemas.mapping(schemas.string(format="byte"), "Base64 by name."),
            "stringData": schemas.mapping(description="Plain text by name; write-only, folded into data."),
            "type": schemas.string("What the data means.", default="Opaque", maxLength=253),
            "immutable": schemas.boolean("True forbids every later change of the data."),
        },
        "A Secret holds values that are stored encrypted.",
    ),
    columns=(
        Column("Type", lambda o: o.get("type")),
        Column("Data", _count("data"), type="integer"),
    ),
    immutable=("type",),
    selectable=("type",),
    prepare=_fold_string_data,
    check=_check_data,
    check_update=_check_frozen,
    encrypted=("data",),
)


def _last_seen(event: Object) -> str:
    stamp = event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp")
    return age(stamp or event["metadata"].get("creationTimestamp"))


def _involved(event: Object) -> str:
    involved = event.get("involvedObject") or {}
    return f"{str(involved.get('kind', '')).lower()}/{involved.get('name', '')}"


EVENT = ResourceKind(
    group="",
    plural="events",
    singular="event",
    kind="Event",
    short_names=("ev",),
    has_status=False,
    schema=schemas.fields(
        {
            "involvedObject": REFERENCE,
            "reason": schemas.string("One word for programs.", maxLength=128),
            "message": schemas.string("One line for people.", maxLength=4096),
            "type": schemas.string("Normal or Warning.", default="Normal", enum=["Normal", "Warning"]),
            "count": schemas.integer("How often it happened."),
            "firstTimestamp": schemas.time("When it first happened.") | {"nullable": True},
            "lastTimestamp": schemas.time("When it last happened.") | {"nullable": True},
            "eventTime": schemas.time("When it happened, of events that are not counted.") | {"nullable": True},
            "source": schemas.fields({"component": schemas.string(), "host": schemas.string()}),
            "action": schemas.string("What was done."),
            "related": REFERENCE,
            "reportingComponent": schemas.string("Who says so."),
            "reportingInstance": schemas.string("Which one of them."),
            "series": schemas.anything("Repetitions of uncounted events."),
        },
        "An Event says what happened to an object; it is kept for an hour.",
        required=("involvedObject",),
    ),
    columns=(
        Column("Last Seen", _last_seen),
        Column("Type", lambda o: o.get("type")),
        Column("Reason", lambda o: o.get("reason")),
        Column("Object", _involved),
        Column("Subobject", lambda o: value_at(o, "involvedObject.fieldPath"), priority=1),
        Column("Source", lambda o: value_at(o, "source.component"), priority=1),
        Column("Message", lambda o: str(o.get("message") or "").strip()),
        Column("First Seen", lambda o: age(o.get("firstTimestamp")), priority=1),
        Column("Count", lambda o: o.get("count") or 1, type="integer", priority=1),
        Column("Name", lambda o: o["metadata"].get("name"), format="name", priority=1),
    ),
    selectable=(
        "involvedObject.apiVersion",
        "involvedObject.fieldPath",
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.resourceVersion",
        "involvedObject.uid",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    ttl_seconds=EVENT_TTL_SECONDS,
)

PERSISTENT_VOLUME_CLAIM = ResourceKind(
    group="",
    plural="persistentvolumeclaims",
    singular="persistentvolumeclaim",
    kind="PersistentVolumeClaim",
    short_names=("pvc",),
    schema=schemas.fields(
        {
            "spec": schemas.fields(
                {
                    "accessModes": schemas.array(schemas.string(), default=["ReadWriteOnce"]),
                    "resources": schemas.fields(
                        {
                            "requests": schemas.mapping(schemas.quantity()),
                            "limits": schemas.mapping(schemas.quantity()),
                        },
                    ),
                    "storageClassName": schemas.string("Volume provider."),
                    "volumeMode": schemas.string(default="Filesystem", enum=["Filesystem"]),
                    "volumeName": schemas.string("The volume that answers the claim."),
                    "selector": schemas.anything(),
                    "dataSource": schemas.anything(),
                    "dataSourceRef": schemas.anything(),
                    "volumeAttributesClassName": schemas.string(),
                },
                required=("resources",),
            ),
            "status": schemas.fields(
                {
                    "phase": schemas.string("Pending, Bound or Lost."),
                    "accessModes": schemas.array(schemas.string()),
                    "capacity": schemas.mapping(schemas.quantity()),
                    "conditions": CONDITIONS,
                }
            ),
        },
        "A PersistentVolumeClaim asks for a volume of a size.",
        required=("spec",),
    ),
    columns=(
        Column("Status", lambda o: "Terminating" if is_deleting(o) else value_at(o, "status.phase") or "Pending"),
        Column("Volume", lambda o: value_at(o, "spec.volumeName") or ""),
        Column("Capacity", lambda o: value_at(o, "status.capacity.storage") or ""),
        Column("Access Modes", lambda o: _short_modes(value_at(o, "spec.accessModes"))),
        Column("StorageClass", lambda o: value_at(o, "spec.storageClassName") or ""),
        Column("VolumeMode", lambda o: value_at(o, "spec.volumeMode"), priority=1),
    ),
    immutable=("spec.volumeName", "spec.storageClassName", "spec.accessModes", "spec.volumeMode"),
)


def _short_modes(modes: list[str] | None) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(mode, mode) for mode in modes or [])
