"""Pod: the containers of one bundle, shaped as Kubernetes shapes them. Controllers make pods, the kubelet runs them.

The schema fills in what a Kubernetes server would, because kubectl reads defaulted fields without asking.
"""

from __future__ import annotations

from typing import Any

from nanocloud.models import schema as schemas
from nanocloud.models.bundle import CONDITIONS
from nanocloud.models.kinds import Column, ResourceKind, Subresource, value_at
from nanocloud.models.meta import DNS_LABEL, Object, condition, is_deleting, parse_time
from nanocloud.models.schema import Schema, array, boolean, fields, int_or_string, integer, mapping, quantity, string
from nanocloud.models.tables import age

DEFAULT_GRACE_SECONDS = 30

_KEY_SELECTOR = {"name": string(), "key": string(), "optional": boolean(nullable=True)}
_KEY_TO_PATH = array(fields({"key": string(), "path": string(), "mode": integer()}, required=("key", "path")))
_CAPABILITIES = fields({"add": array(string()), "drop": array(string())})
_SECCOMP = fields({"type": string(), "localhostProfile": string()})
_IDENTITY = {
    "runAsUser": integer(format="int64"),
    "runAsGroup": integer(format="int64"),
    "runAsNonRoot": boolean(),
    "seccompProfile": _SECCOMP,
}

_ENV = array(
    fields(
        {
            "name": string("Name of the variable.", minLength=1, maxLength=512),
            "value": string("Its value."),
            "valueFrom": fields(
                {
                    "secretKeyRef": fields(_KEY_SELECTOR, required=("key",)),
                    "configMapKeyRef": fields(_KEY_SELECTOR, required=("key",)),
                    "fieldRef": fields({"apiVersion": string(default="v1"), "fieldPath": string()}),
                    "resourceFieldRef": schemas.anything(),
                },
                "Where its value is kept.",
            ),
        },
        required=("name",),
    ),
    "Environment variables.",
    key="name",
)

_PROBE = fields(
    {
        "exec": fields({"command": array(string())}, "Exit status 0 is success."),
        "httpGet": fields(
            {
                "path": string(default="/"),
                "port": int_or_string(),
                "host": string(),
                "scheme": string(default="HTTP", enum=["HTTP", "HTTPS"]),
                "httpHeaders": array(fields({"name": string(), "value": string()})),
            },
            "A status of 200 to 399 is success.",
            required=("port",),
        ),
        "tcpSocket": fields(
            {"port": int_or_string(), "host": string()}, "A connection is success.", required=("port",)
        ),
        "grpc": schemas.anything(),
        "initialDelaySeconds": integer("Before the first try."),
        "periodSeconds": integer("Between tries.", default=10, minimum=1),
        "timeoutSeconds": integer("Of one try.", default=1, minimum=1),
        "successThreshold": integer("Successes in a row that count.", default=1, minimum=1),
        "failureThreshold": integer("Failures in a row that count.", default=3, minimum=1),
        "terminationGracePeriodSeconds": integer(format="int64"),
    },
    "How the kubelet asks the container.",
)

_CONTAINER = fields(
    {
        "name": string("Unique within the pod.", pattern=f"^{DNS_LABEL}$"),
        "image": string("Image reference."),
        "command": array(string(), "Replaces the image's entrypoint."),
        "args": array(string(), "Replaces the image's command."),
        "workingDir": string(),
        "ports": array(
            fields(
                {
                    "name": string(),
                    "containerPort": integer(minimum=1, maximum=65535),
                    "hostPort": integer(minimum=0, maximum=65535),
                    "hostIP": string(),
                    "protocol": string(default="TCP", enum=["TCP", "UDP", "SCTP"]),
                },
                required=("containerPort",),
            ),
            "Ports that the container listens on.",
        ),
        "env": _ENV,
        "envFrom": array(schemas.anything()),
        "resources": fields(
            {
                "limits": mapping(quantity(), "What the container may use."),
                "requests": mapping(quantity(), "What it needs."),
                "claims": array(schemas.anything()),
            },
            default={},
        ),
        "volumeMounts": array(
            fields(
                {
                    "name": string("A volume of the pod."),
                    "mountPath": string("Absolute path in the container."),
                    "readOnly": boolean(),
                    "subPath": string(),
                },
                required=("name", "mountPath"),
            ),
            "Where volumes appear.",
            key="mountPath",
        ),
        "livenessProbe": _PROBE,
        "readinessProbe": _PROBE,
        "startupProbe": _PROBE,
        "lifecycle": schemas.anything("Hooks."),
        "securityContext": fields(
            _IDENTITY
            | {
                "capabilities": _CAPABILITIES,
                "privileged": boolean(),
                "allowPrivilegeEscalation": boolean(),
                "readOnlyRootFilesystem": boolean(),
            },
            "What the container may do.",
        ),
        "imagePullPolicy": string(default="IfNotPresent", enum=["Always", "IfNotPresent", "Never"]),
        "terminationMessagePath": string(default="/dev/termination-log"),
        "terminationMessagePolicy": string(default="File"),
        "restartPolicy": string(),
        "stdin": boolean(),
        "stdinOnce": boolean(),
        "tty": boolean(),
    },
    "One container.",
    required=("name",),
)

_VOLUME = fields(
    {
        "name": string("Unique within the pod.", pattern=f"^{DNS_LABEL}$"),
        "persistentVolumeClaim": fields({"claimName": string(), "readOnly": boolean()}, required=("claimName",)),
        "secret": fields(
            {"secretName": string(), "items": _KEY_TO_PATH, "defaultMode": integer(default=420), "optional": boolean()}
        ),
        "configMap": fields(
            {"name": string(), "items": _KEY_TO_PATH, "defaultMode": integer(default=420), "optional": boolean()}
        ),
        "emptyDir": fields({"medium": string(), "sizeLimit": quantity()}),
        "projected": schemas.anything(),
        "hostPath": schemas.anything(),
        "csi": schemas.anything(),
        "downwardAPI": schemas.anything(),
    },
    "Files for the containers.",
    required=("name",),
)

POD_SPEC: Schema = fields(
    {
        "containers": array(_CONTAINER, "At least one.", key="name", maxItems=32),
        "initContainers": array(_CONTAINER, "Run to their end before the others.", key="name", maxItems=32),
        "ephemeralContainers": array(schemas.anything()),
        "volumes": array(_VOLUME, "What containers mount.", key="name", maxItems=128),
        "nodeName": string("The node."),
        "nodeSelector": mapping(),
        "hostname": string(),
        "subdomain": string(),
        "hostNetwork": boolean(),
        "hostPID": boolean(),
        "hostIPC": boolean(),
        "shareProcessNamespace": boolean(),
        "restartPolicy": string(default="Always", enum=["Always", "OnFailure", "Never"]),
        "terminationGracePeriodSeconds": integer(default=DEFAULT_GRACE_SECONDS, minimum=0, format="int64"),
        "activeDeadlineSeconds": integer(format="int64"),
        "dnsPolicy": string(default="ClusterFirst"),
        "dnsConfig": schemas.anything(),
        "hostAliases": array(fields({"ip": string(), "hostnames": array(string())})),
        "enableServiceLinks": boolean(default=False),
        "schedulerName": string(default="nanocloud"),
        "serviceAccountName": string(),
        "serviceAccount": string(),
        "automountServiceAccountToken": boolean(),
        "priority": integer(),
        "priorityClassName": string(),
        "preemptionPolicy": string(),
        "imagePullSecrets": array(fields({"name": string()})),
        "securityContext": fields(
            _IDENTITY
            | {
                "fsGroup": integer(format="int64"),
                "fsGroupChangePolicy": string(),
                "supplementalGroups": array(integer(format="int64")),
                "sysctls": array(fields({"name": string(), "value": string()})),
            },
            default={},
        ),
        "tolerations": array(schemas.anything()),
        "affinity": schemas.anything(),
        "topologySpreadConstraints": array(schemas.anything()),
        "readinessGates": array(fields({"conditionType": string()})),
    },
    "What the pod is made of.",
    required=("containers",),
)

_STATE = fields(
    {
        "waiting": fields({"reason": string(), "message": string()}),
        "running": fields({"startedAt": schemas.time()}),
        "terminated": fields(
            {
                "exitCode": integer(),
                "signal": integer(),
                "reason": string(),
                "message": string(),
                "startedAt": schemas.time() | {"nullable": True},
                "finishedAt": schemas.time() | {"nullable": True},
                "containerID": string(),
            }
        ),
    }
)
_CONTAINER_STATUSES = array(
    fields(
        {
            "name": string(),
            "state": _STATE,
            "lastState": _STATE,
            "ready": boolean(),
            "started": boolean(nullable=True),
            "restartCount": integer(),
            "image": string(),
            "imageID": string(),
            "containerID": string(),
        },
        required=("name",),
    )
)
_STATUS = fields(
    {
        "phase": string("Pending, Running, Succeeded, Failed or Unknown.", default="Pending"),
        "conditions": CONDITIONS,
        "reason": string(),
        "message": string(),
        "hostIP": string(),
        "hostIPs": array(fields({"ip": string()})),
        "podIP": string(),
        "podIPs": array(fields({"ip": string()})),
        "startTime": schemas.time() | {"nullable": True},
        "containerStatuses": _CONTAINER_STATUSES,
        "initContainerStatuses": _CONTAINER_STATUSES,
        "qosClass": string(),
        "observedGeneration": integer(format="int64"),
    },
    "As the kubelet reports.",
    default={},
)


def _statuses(pod: Object) -> list[Object]:
    return value_at(pod, "status.containerStatuses") or []


def _ready(pod: Object) -> str:
    total = len(value_at(pod, "spec.containers") or [])
    return f"{sum(bool(status.get('ready')) for status in _statuses(pod))}/{total}"


def _status(pod: Object) -> str:
    """The word that kubectl shows: why it waits or how it ended, before the phase."""
    word = str(value_at(pod, "status.reason") or value_at(pod, "status.phase") or "Pending")
    found = _init_word(pod) or _container_word(pod, word)
    return "Terminating" if is_deleting(pod) else found


def _init_word(pod: Object) -> str | None:
    done = 0
    statuses = value_at(pod, "status.initContainerStatuses") or []
    for status in statuses:
        state = status.get("state") or {}
        ended = state.get("terminated")
        if ended is not None and ended.get("exitCode") == 0:
            done += 1
            continue
        if ended is not None:
            return f"Init:{ended.get('reason') or 'ExitCode:' + str(ended.get('exitCode'))}"
        reason = (state.get("waiting") or {}).get("reason")
        if reason and reason != "PodInitializing":
            return f"Init:{reason}"
        return f"Init:{done}/{len(statuses)}"
    return None


def _container_word(pod: Object, word: str) -> str:
    running = False
    for status in reversed(_statuses(pod)):
        state = status.get("state") or {}
        ended = state.get("terminated")
        if reason := (state.get("waiting") or {}).get("reason"):
            word = str(reason)
        elif ended is not None:
            word = str(ended.get("reason") or f"ExitCode:{ended.get('exitCode')}")
        elif state.get("running") is not None and status.get("ready"):
            running = True
    if word == "Completed" and running:
        is_ready = (condition(pod, "Ready") or {}).get("status") == "True"
        return "Running" if is_ready else "NotReady"
    return word


def _restarts(pod: Object) -> str:
    statuses = _statuses(pod)
    count = sum(int(status.get("restartCount") or 0) for status in statuses)
    ends = [((s.get("lastState") or {}).get("terminated") or {}).get("finishedAt") for s in statuses]
    known = [str(stamp) for stamp in ends if parse_time(stamp) is not None]
    return f"{count} ({age(max(known))} ago)" if count and known else str(count)


def _gates(_: Object) -> Any:
    return None


POD = ResourceKind(
    group="",
    plural="pods",
    singular="pod",
    kind="Pod",
    short_names=("po",),
    categories=("all",),
    verbs=("delete", "deletecollection", "get", "list", "watch"),
    schema=fields({"spec": POD_SPEC, "status": _STATUS}, "A Pod is a group of containers.", required=("spec",)),
    columns=(
        Column("Ready", _ready, description="Containers that are ready."),
        Column("Status", _status, description="What the containers do."),
        Column("Restarts", _restarts, description="Restarts of all containers."),
        Column("IP", lambda o: value_at(o, "status.podIP"), priority=1),
        Column("Node", lambda o: value_at(o, "spec.nodeName"), priority=1),
        Column("Nominated Node", _gates, priority=1),
        Column("Readiness Gates", _gates, priority=1),
    ),
    subresources=(
        Subresource(name="log", kind="Pod", verbs=("get",)),
        Subresource(name="exec", kind="PodExecOptions", verbs=("create", "get")),
    ),
    selectable=(
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    ),
    grace_seconds=DEFAULT_GRACE_SECONDS,
)
