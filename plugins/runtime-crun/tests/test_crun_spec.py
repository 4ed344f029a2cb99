"""The OCI configuration of a container."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nanocloud.providers.runtime import (
    ContainerSpec,
    Mount,
    ProjectedFile,
    Security,
)
from nanocloud.testkit.specs import container_spec
from nanocloud_runtime_crun import spec as oci
from nanocloud_runtime_crun import users


def _spec(**fields: Any) -> ContainerSpec:
    return container_spec("c", Path("/logs"), **({"layers": (Path("/layer"),)} | fields))


def _prepared(spec: ContainerSpec, **fields: Any) -> oci.Prepared:
    given: dict[str, Any] = {
        "rootfs": Path("/view/rootfs"),
        "volumes": tuple(Path(f"/view/volumes/{n}") for n, _ in enumerate(spec.mounts)),
        "files": tuple(Path(f"/view/files/{n}") for n, _ in enumerate(spec.files)),
        "network_namespace": None,
        "user": users.User(),
        "seccomp": None,
        "capabilities": (),
        "resources": {},
        "cgroup_path": "/nanocloud/c",
        "hard_open_files": 1000,
        "oom_score": 0,
    }
    return oci.Prepared(**(given | fields))


def _config(spec: ContainerSpec, **fields: Any) -> dict[str, Any]:
    config = oci.build(spec, _prepared(spec, **fields))
    json.dumps(config)
    return config


def test_confinement_does_not_depend_on_what_is_asked() -> None:
    config = _config(_spec(security=Security(privileged=True)))
    assert config["process"]["noNewPrivileges"] is True
    kinds = {namespace["type"] for namespace in config["linux"]["namespaces"]}
    assert kinds == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert "/proc/keys" in config["linux"]["maskedPaths"]
    assert "/proc/sys" in config["linux"]["readonlyPaths"]
    assert next(mount["type"] for mount in config["mounts"] if mount["destination"] == "/dev") == "tmpfs"


def test_network_namespace_is_joined_by_path() -> None:
    config = _config(_spec(), network_namespace=Path("/view/netns"))
    assert {"type": "network", "path": "/view/netns"} in config["linux"]["namespaces"]


def test_open_files_stay_below_what_may_be_given() -> None:
    limits = {limit["type"]: limit for limit in _config(_spec(), hard_open_files=20_000)["process"]["rlimits"]}
    assert (limits["RLIMIT_NOFILE"]["hard"], limits["RLIMIT_CORE"]["hard"]) == (20_000, 0)
    limits = {limit["type"]: limit for limit in _config(_spec(), hard_open_files=1 << 30)["process"]["rlimits"]}
    assert limits["RLIMIT_NOFILE"]["hard"] == 65_536


def test_mounts_are_in_an_order_in_which_none_covers_another() -> None:
    spec = _spec(
        mounts=(Mount(source=Path("/v"), target="/a/b/c"), Mount(source=Path("/w"), target="/a/", read_only=True)),
        files=(ProjectedFile(path="/run/x/key", content=b""),),
        tmpfs=("/a/b",),
    )
    config = _config(spec)
    order = [mount["destination"] for mount in config["mounts"]]
    assert order.index("/a") < order.index("/a/b") < order.index("/a/b/c")
    assert order.index("/run") < order.index("/run/x/key")
    options = {mount["destination"]: set(mount["options"]) for mount in config["mounts"]}
    assert {"bind", "ro", "nosuid", "nodev"} <= options["/a"]
    assert {"bind", "ro", "nosuid", "nodev", "noexec"} <= options["/run/x/key"]
    assert "rw" in options["/a/b/c"]


def test_callers_mount_replaces_the_systems() -> None:
    config = _config(_spec(mounts=(Mount(source=Path("/v"), target="/run"),), tmpfs=("/dev/shm",)))
    destinations = [mount["destination"] for mount in config["mounts"]]
    assert destinations.count("/run") == destinations.count("/dev/shm") == 1


def test_user_without_root_keeps_its_capabilities_over_execve() -> None:
    assert oci.capabilities({"CAP_B", "CAP_A"}, 0)["ambient"] == []
    assert oci.capabilities({"CAP_B", "CAP_A"}, 5)["ambient"] == ["CAP_A", "CAP_B"]
