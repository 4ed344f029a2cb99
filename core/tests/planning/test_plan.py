from __future__ import annotations

import json
import string

import attrs
import pytest

from nanocloud.errors import InvalidError, LabelError
from nanocloud.models.bundle import BundleSecurity
from nanocloud.planning import BindingRecord, DesiredBundle, Profile, ResolvedOption
from nanocloud.planning.plan import pin
from nanocloud.planning.workload import BindingStep, Claim, SelectedService, WorkloadPlan
from nanocloud.providers.binding import BindingArgument, BindingResult
from nanocloud.testkit.planning import (
    MARIADB,
    WORDPRESS,
    Settings,
    plan_label,
    profile_of,
    resolve_label,
    target,
)
from nanocloud.testkit.specs import DIGEST


async def wordpress(given: dict[str, str] | None = None) -> WorkloadPlan:
    targets = [await target()]
    return plan_label(WORDPRESS, await resolve_label(WORDPRESS, given, targets=targets), targets)


async def planned(settings: Settings, given: dict[str, str] | None = None, **more: object) -> WorkloadPlan:
    return plan_label(settings, await resolve_label(settings, given), **more)  # type: ignore[arg-type]


async def test_the_pod_of_wordpress() -> None:
    workload = await wordpress({"database_transport": "tls"})
    assert workload.pod == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "wordpress-0",
            "namespace": "default",
            "labels": {
                "nanocloud.io/bundle": "wordpress",
                "app.kubernetes.io/name": "wordpress",
                "app.kubernetes.io/instance": "wordpress",
                "app.kubernetes.io/managed-by": "nanocloud",
            },
        },
        "spec": {
            "hostname": "wordpress",
            "restartPolicy": "Always",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "containers": [
                {
                    "name": "wordpress",
                    "image": f"wordpress@{DIGEST}",
                    "imagePullPolicy": "IfNotPresent",
                    "env": [
                        {"name": "DB_CA", "value": "/run/nanocloud/tls/ca.crt"},
                        {"name": "DB_HOST", "value": "mariadb.default.svc"},
                        {"name": "DB_NAME", "value": "wordpress"},
                        {
                            "name": "DB_PASSWORD",
                            "valueFrom": {"secretKeyRef": {"name": "wordpress-options", "key": "env_DB_PASSWORD"}},
                        },
                    ],
                    "ports": [{"containerPort": 80, "protocol": "TCP", "hostPort": 8080}],
                    "volumeMounts": [
                        {"name": "volume-1", "mountPath": "/var/www/html"},
                        {"name": "tls", "mountPath": "/run/nanocloud/tls", "readOnly": True},
                    ],
                    "readinessProbe": {
                        "exec": {"command": ["/usr/lib/nanocloud/ready.sh"]},
                        "periodSeconds": 2,
                        "timeoutSeconds": 10,
                        "failureThreshold": 3,
                    },
                    "securityContext": {"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False},
                }
            ],
            "volumes": [
                {"name": "volume-1", "persistentVolumeClaim": {"claimName": "volume-1-wordpress-0"}},
                {"name": "tls", "secret": {"secretName": "wordpress-tls", "defaultMode": 0o444}},
            ],
        },
    }


async def test_the_rest_of_the_plan_of_wordpress() -> None:
    workload = await wordpress({"database_transport": "tls"})
    assert workload.image == f"wordpress@{DIGEST}"
    assert workload.services == (SelectedService(option="database", bundle="mariadb", installed=False),)
    assert workload.services_to_add == ("mariadb",)
    create, require = workload.bindings
    assert (create.target, create.command, create.pending) == ("mariadb", "create_user", True)
    assert create.arguments == (
        BindingArgument(value="wordpress"),
        BindingArgument(value="wordpress"),
        BindingArgument(value="random1", secret=True),
    )
    assert create.secret_keys == (None, None, "database_password")
    assert (require.command, require.arguments) == ("require_tls", (BindingArgument(value="wordpress"),))
    assert workload.claims == (
        Claim(
            name="volume-1-wordpress-0",
            volume="volume-1",
            size="1Gi",
            size_bytes=2**30,
            mount_path="/var/www/html",
        ),
    )
    assert workload.claim_objects[0]["spec"] == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "volumeMode": "Filesystem",
    }
    assert workload.tls_secret == "wordpress-tls"
    assert [secret.name for secret in workload.secrets] == ["wordpress-options"]
    assert workload.secrets[0].values == {"database_password": "random1", "env_DB_PASSWORD": "random1"}


async def test_the_plan_of_a_service_that_needs_nobody() -> None:
    workload = plan_label(MARIADB, await resolve_label(MARIADB), installed=["mariadb"])
    assert workload.services_to_add == ()
    assert workload.bindings == ()
    assert workload.tls_secret is None
    assert workload.claims[0].size_bytes == 10 * 2**30
    assert [str(port) for port in workload.ports] == ["3306/tcp"]


async def test_an_installed_service_is_not_added() -> None:
    targets = [await target()]
    workload = plan_label(WORDPRESS, await resolve_label(WORDPRESS, targets=targets), targets, installed=["mariadb"])
    assert workload.services_to_add == ()


async def test_no_secret_is_in_the_pod_nor_in_a_repr() -> None:
    workload = await wordpress()
    shown = json.dumps(workload.pod) + json.dumps(workload.claim_objects) + repr(workload)
    assert "random1" not in shown


async def test_equal_input_gives_an_equal_plan() -> None:
    assert await wordpress() == await wordpress()
    assert (await wordpress()).pod_hash == (await wordpress()).pod_hash
    assert (await wordpress()).pod_hash != (await wordpress({"database_name": "blog"})).pod_hash


# Bindings


async def test_the_id_of_a_binding_is_a_name_and_does_not_depend_on_values() -> None:
    one, other = await wordpress(), await wordpress({"database_name": "blog"})
    assert one.bindings[0].id == other.bindings[0].id
    assert one.bindings[0].fingerprint != other.bindings[0].fingerprint
    assert set(one.bindings[0].id) <= set(string.ascii_lowercase + string.digits + "-")
    assert one.bindings[0].id.startswith("database-create-user-")
    assert len(one.bindings[0].id) <= 63


def _record(step: BindingStep, result: BindingResult = BindingResult.COMPLETED) -> BindingRecord:
    return BindingRecord(
        command=step.command, target=step.target, attempts=1, result=result, fingerprint=step.fingerprint
    )


async def test_a_recorded_success_is_skipped() -> None:
    targets = [await target()]
    resolution = await resolve_label(WORDPRESS, targets=targets)
    (step,) = plan_label(WORDPRESS, resolution, targets).bindings
    profile = profile_of(resolution)

    def pending(profile: Profile, *, force: bool = False) -> bool:
        desired = DesiredBundle(namespace="default", name="wordpress", service="wordpress", force_bindings=force)
        return bool(plan_label(WORDPRESS, resolution, targets, profile=profile, desired=desired).pending_bindings)

    assert pending(profile)
    assert pending(profile.record(step.id, _record(step, BindingResult.FAILED)))
    done = profile.record(step.id, _record(step))
    assert not pending(done)
    assert pending(done, force=True)
    changed = {**profile.options, "database_name": ResolvedOption(value="blog", source="given")}
    assert pending(attrs.evolve(done, options=changed))


async def test_a_binding_that_is_not_exported_is_refused() -> None:
    targets = [await target(exports={"options": ["host"], "bindings": ["other"]})]
    resolution = await resolve_label(WORDPRESS, targets=targets)
    with pytest.raises(InvalidError, match="mariadb does not export this binding; it exports other") as caught:
        plan_label(WORDPRESS, resolution, targets)
    assert caught.value.causes[0].field == "spec.options.database"


async def test_an_argument_stays_one_argument() -> None:
    settings = {"db=&mariadb": ["&create_user $name --pw=$pw $HOME"], "name": [], "pw": ["!rand 8 hex"]}
    targets = [await target()]
    resolution = await resolve_label(settings, {"name": "a; rm -rf / $pw"}, targets=targets)
    workload = plan_label(settings, resolution, targets)
    (step,) = workload.bindings
    assert step.arguments == (
        BindingArgument(value="a; rm -rf / $pw"),
        BindingArgument(value="--pw=random1", secret=True),
        BindingArgument(value="$HOME"),
    )
    assert step.secret_keys == (None, f"{step.id}.1", None)
    assert workload.secrets[0].values == {"pw": "random1", f"{step.id}.1": "--pw=random1"}


async def test_a_binding_without_value_or_service_is_refused() -> None:
    targets = [await target()]
    settings: Settings = {"db=&mariadb": ["&create_user $name"], "?name": []}
    with pytest.raises(InvalidError, match=r"\$name has no value"):
        plan_label(settings, await resolve_label(settings, targets=targets), targets)
    settings = {"db=&mariadb": [], "db=none": [], "tls=on": ["*db", "&require_tls"]}
    with pytest.raises(InvalidError, match="runs in the service that db selects, and it selects none"):
        plan_label(settings, await resolve_label(settings, {"db": "none"}), targets)


# What the node is asked for


async def test_a_label_cannot_read_the_secrets_of_others() -> None:
    settings = {"secret_env_A": ["mariadb-options:root_password"]}
    with pytest.raises(InvalidError, match="is outside the bundle, and an image's label may not name it"):
        await planned(settings)
    with pytest.raises(InvalidError, match="belongs to another bundle"):
        await planned(settings, {"secret_env_A": "mariadb-options:root_password"}, installed=["mariadb"])
    workload = await planned(settings, {"secret_env_A": "?smtp:password"})
    assert workload.pod["spec"]["containers"][0]["env"] == [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "smtp", "key": "password", "optional": True}}}
    ]
    own = {"secret_env_A": ["wordpress-tls:tls.crt"], "secret_env_B": ["mine:key"]}
    assert await planned(own, own_secrets=["mine"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"env_A": ["1"], "secret_env_A": ["wordpress-options:a"]}, "env_A sets A too"),
        ({"volume_1": ["/data"], "volume_2": ["/data"]}, "another volume is mounted at '/data'"),
        ({"port_1": ["80->80"], "port_2": ["127.0.0.1:80->81"]}, "takes the host port of 80->80/tcp"),
    ],
)
async def test_what_cannot_be_together_is_refused(settings: Settings, said: str) -> None:
    with pytest.raises(InvalidError, match="cannot be planned") as caught:
        await planned(settings)
    assert said in str(caught.value)


async def test_ports_that_do_not_meet_are_planned() -> None:
    settings = {
        "port_10": ["53->53/udp"],
        "port_2": ["53->53/tcp"],
        "port_3": ["127.0.0.1:80->80"],
        "port_4": ["[::1]:80->80"],
        "port_5": ["80"],
    }
    workload = await planned(settings)
    assert [str(port) for port in workload.ports] == [
        *("53->53/tcp", "127.0.0.1:80->80/tcp", "[::1]:80->80/tcp", "80/tcp", "53->53/udp")
    ]
    assert workload.pod["spec"]["containers"][0]["ports"][2] == {
        "containerPort": 80,
        "protocol": "TCP",
        "hostPort": 80,
        "hostIP": "::1",
    }


async def test_command_and_arguments_replace_those_of_the_image() -> None:
    workload = await planned({"runtime_command": ['["/bin/app", "a b"]'], "runtime_args": ["--x 'y z'"]})
    container = workload.pod["spec"]["containers"][0]
    assert (container["command"], container["args"]) == (["/bin/app", "a b"], ["--x", "y z"])


async def test_an_encrypted_volume() -> None:
    workload = await planned({"volume_1": ["/data"], "volume_encrypted_1": ["vault:xfs"], "volume_size_1": ["1.5Gi"]})
    (claim,) = workload.claims
    assert (claim.encryption_key, claim.fs_type, claim.size) == ("vault", "xfs", "1.5Gi")
    assert workload.claim_objects[0]["metadata"]["annotations"] == {
        "nanocloud.io/volume-key": "vault",
        "nanocloud.io/fs-type": "xfs",
    }


async def test_an_image_gets_only_harmless_capabilities_by_itself() -> None:
    labels = {"io.nanocloud.capabilities": "CAP_CHOWN SETUID"}
    workload = await planned({}, labels=labels)
    context = workload.pod["spec"]["containers"][0]["securityContext"]
    assert context["capabilities"] == {"add": ["CHOWN", "SETUID"], "drop": ["ALL"]}
    labels = {"io.nanocloud.capabilities": '["CAP_SYS_ADMIN"]'}
    with pytest.raises(InvalidError, match="the image asks for CAP_SYS_ADMIN") as caught:
        await planned({}, labels=labels)
    assert caught.value.causes[0].field == "spec.security.extraCapabilities"
    granted = DesiredBundle(
        namespace="default",
        name="wordpress",
        service="wordpress",
        security=BundleSecurity(extra_capabilities=("CAP_SYS_ADMIN",), seccomp_profile="RuntimeDefault"),
    )
    context = (await planned({}, labels=labels, desired=granted)).pod["spec"]["containers"][0]["securityContext"]
    assert context["capabilities"]["add"] == ["SYS_ADMIN"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("text", ["chown", "CAP_", "CAP_CHOWN,CAP_KILL", "[1]", "A" * 5000, "'"])
async def test_a_bad_capability_label_is_refused(text: str) -> None:
    with pytest.raises(LabelError, match=r"io\.nanocloud\.capabilities"):
        await planned({}, labels={"io.nanocloud.capabilities": text})


async def test_privileged_is_the_users_word() -> None:
    security = BundleSecurity(allow_privileged=True, seccomp_profile="Localhost", localhost_profile="mine.json")
    desired = DesiredBundle(namespace="default", name="wordpress", service="wordpress", security=security)
    context = (await planned({}, desired=desired)).pod["spec"]["containers"][0]["securityContext"]
    assert context == {
        "capabilities": {"drop": ["ALL"]},
        "privileged": True,
        "seccompProfile": {"type": "Localhost", "localhostProfile": "mine.json"},
    }


@pytest.mark.parametrize(
    ("reference", "pinned"),
    [
        ("mariadb", "mariadb@D"),
        ("mariadb:11", "mariadb@D"),
        ("registry:5000/a/b:1", "registry:5000/a/b@D"),
        ("registry:5000/a/b@sha256:old", "registry:5000/a/b@D"),
        ("oci:/srv/layout:tag", "oci:/srv/layout@D"),
    ],
)
def test_an_image_is_named_by_its_digest(reference: str, pinned: str) -> None:
    assert pin(reference, "D") == pinned
