"""From a pod to what the runtime is asked for."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any

import attrs
import pytest

from nanocloud.errors import InvalidError
from nanocloud.kubelet.translate import container_id, container_spec, expand, name_files, network_spec, sandbox_id
from nanocloud.providers.image import ImageConfig, UnpackedImage
from nanocloud.providers.network import SandboxId, SandboxNetwork
from nanocloud.providers.runtime import ContainerSpec, Resources, SeccompProfile
from nanocloud.testkit.specs import labelled_image

UID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
NETWORK = SandboxNetwork(
    sandbox=SandboxId("s"),
    owner="shop/web-0",
    namespace_path=Path("/run/netns/s"),
    addresses=(ip_address("10.0.0.5"), ip_address("fd00::5")),
    nameservers=(ip_address("10.0.0.1"),),
    ports=(),
)


def pod(container: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-0", "namespace": "shop", "uid": UID},
        "spec": {"containers": [{"name": "web", "image": "web", **(container or {})}], **spec},
    }


def spec_of(made: dict[str, Any], config: ImageConfig | None = None, **environment: str) -> ContainerSpec:
    return container_spec(
        made,
        0,
        restart_count=2,
        image=UnpackedImage(
            image=attrs.evolve(labelled_image("web"), config=config or ImageConfig()), layers=(Path("/layers/1"),)
        ),
        environment=environment,
        network=NETWORK,
        peers={},
        mounts=(),
        files=(),
        tmpfs=(),
        logs=Path("/var/log"),
    )


def test_ids_are_of_the_pod_and_differ_by_attempt() -> None:
    assert container_id(UID, 0, 0) != container_id(UID, 0, 1) != container_id(UID, 1, 1)
    assert container_id(UID, 0, 12).startswith(sandbox_id(UID))
    assert len(container_id(UID, 12, 123456)) <= 63


ENTRY, COMMAND = ("/bin/entry", "-a"), ("run", "it")


@pytest.mark.parametrize(
    ("container", "argv"),
    [
        ({}, (*ENTRY, *COMMAND)),
        ({"args": ["x"]}, (*ENTRY, "x")),
        ({"command": ["/bin/other"]}, ("/bin/other",)),
        ({"command": ["/bin/other"], "args": ["x"]}, ("/bin/other", "x")),
        ({"args": ["$(NAME)", "$$(NAME)", "$(UNKNOWN)", "$NAME"]}, (*ENTRY, "shop", "$(NAME)", "$(UNKNOWN)", "$NAME")),
    ],
)
def test_command_and_arguments_as_in_kubernetes(container: dict[str, Any], argv: tuple[str, ...]) -> None:
    config = ImageConfig(entrypoint=ENTRY, command=COMMAND)
    assert spec_of(pod(container), config, NAME="shop").argv == argv


def test_an_expanded_value_is_not_expanded_again() -> None:
    assert expand("$(A)", {"A": "$(B)", "B": "x"}) == "$(B)"


def test_nothing_to_run_names_the_image() -> None:
    with pytest.raises(InvalidError, match="image web names no program to run") as caught:
        spec_of(pod())
    assert caught.value.causes[0].field == "spec.containers[0].command"


def test_selected_services_are_found_without_a_name_server() -> None:
    files = {file.path: file.content.decode() for file in name_files(pod(), NETWORK, {"db": ("10.1.0.9", "fd00::9")})}
    lines = files["/etc/hosts"].splitlines()
    assert "10.1.0.9\tdb.shop.svc db.nanocloud.local db" in lines
    assert "fd00::9\tdb.shop.svc db.nanocloud.local db" in lines


def test_the_pods_environment_wins_over_the_images() -> None:
    config = ImageConfig(entrypoint=("x",), environment={"PATH": "/bin", "HOSTNAME": "image", "A": "1"})
    spec = spec_of(pod(hostname="web"), config, A="2", B="3")
    assert spec.environment == {"PATH": "/bin", "HOSTNAME": "image", "A": "2", "B": "3"}
    assert spec_of(pod(), ImageConfig(entrypoint=("x",))).environment == {"HOSTNAME": "web-0"}


@pytest.mark.parametrize(
    ("context", "user"),
    [
        ({}, "mysql"),
        ({"runAsUser": 5}, "5"),
        ({"runAsUser": 0, "runAsGroup": 0}, "0:0"),
        ({"runAsGroup": 7}, "mysql"),
    ],
)
def test_the_user(context: dict[str, Any], user: str) -> None:
    config = ImageConfig(entrypoint=("x",), user="mysql")
    assert spec_of(pod({"securityContext": context}), config).user == user


def test_confinement() -> None:
    context = {
        "capabilities": {"add": ["NET_BIND_SERVICE", "CAP_CHOWN"], "drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
        "readOnlyRootFilesystem": True,
    }
    security = spec_of(pod({"securityContext": context, "command": ["x"]})).security
    assert security.capabilities == {"CAP_NET_BIND_SERVICE", "CAP_CHOWN"}
    assert (security.seccomp, security.read_only_root) == (SeccompProfile.RUNTIME_DEFAULT, True)
    plain = spec_of(pod({"command": ["x"]})).security
    assert (plain.capabilities, plain.seccomp, plain.privileged) == (frozenset(), SeccompProfile.BASELINE, False)


@pytest.mark.parametrize(
    ("limits", "resources"),
    [
        ({}, Resources()),
        ({"memory": "64Mi", "cpu": "500m"}, Resources(memory_bytes=64 * 2**20, cpu_millicores=500)),
        ({"memory": "1000", "cpu": "1.5"}, Resources(memory_bytes=1000, cpu_millicores=1500)),
        ({"cpu": "2"}, Resources(cpu_millicores=2000)),
    ],
)
def test_limits(limits: dict[str, str], resources: Resources) -> None:
    assert spec_of(pod({"command": ["x"], "resources": {"limits": limits}})).resources == resources


def test_names_that_a_container_knows() -> None:
    files = {file.path: file.content.decode() for file in name_files(pod(hostname="web"), NETWORK, {})}
    assert files["/etc/hostname"] == "web\n"
    assert files["/etc/hosts"].splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "10.0.0.5\tweb",
        "fd00::5\tweb",
    ]
    assert files["/etc/resolv.conf"].splitlines() == [
        "nameserver 10.0.0.1",
        "search shop.svc nanocloud.local",
        "options ndots:2",
    ]


def test_published_ports() -> None:
    ports = [
        {"containerPort": 80, "hostPort": 8080, "protocol": "TCP"},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"containerPort": 9000},
    ]
    spec = network_spec(pod({"ports": ports}))
    assert spec.owner == "shop/web-0"
    assert [(p.host_port, p.container_port, p.protocol, str(p.host_ip)) for p in spec.ports] == [
        (8080, 80, "tcp", "None"),
        (53, 53, "udp", "192.0.2.1"),
    ]
