"""Seccomp profiles: the two built-in ones, and what a profile of the administrator may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import (
    SeccompProfile,
    Security,
)
from nanocloud_runtime_crun import seccomp
from nanocloud_runtime_crun.host import CAPABILITIES

if TYPE_CHECKING:
    pass

ALL = frozenset(CAPABILITIES)


@pytest.mark.parametrize("profile", [SeccompProfile.BASELINE, SeccompProfile.RUNTIME_DEFAULT])
@pytest.mark.parametrize("capabilities", [frozenset(), ALL, frozenset({"CAP_SYS_ADMIN"}), frozenset({"CAP_BPF"})])
def test_no_call_is_both_allowed_and_refused(profile: SeccompProfile, capabilities: frozenset[str]) -> None:
    """One rule without arguments makes every other rule of that call void, in silence."""
    compiled = seccomp.for_container(Security(seccomp=profile), capabilities)
    assert compiled is not None
    plain: dict[str, str] = {}
    with_arguments: set[str] = set()
    for rule in compiled["syscalls"]:
        for name in rule["names"]:
            if "args" in rule:
                with_arguments.add(name)
            else:
                assert name not in plain, name
                plain[name] = rule["action"]
    assert not with_arguments & set(plain)
    assert (compiled["defaultAction"], compiled["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert "io_uring_setup" not in plain


def _actions(capabilities: frozenset[str], profile: SeccompProfile = SeccompProfile.BASELINE) -> dict[str, str]:
    compiled = seccomp.for_container(Security(seccomp=profile), capabilities)
    assert compiled is not None
    return {name: rule["action"] for rule in compiled["syscalls"] for name in rule["names"]}


@pytest.mark.parametrize("name", ["mount", "bpf", "keyctl", "unshare", "setns", "reboot", "init_module", "userfaultfd"])
def test_dangerous_calls_are_refused_without_capabilities(name: str) -> None:
    for profile in (SeccompProfile.BASELINE, SeccompProfile.RUNTIME_DEFAULT):
        assert _actions(frozenset(), profile)[name] == "SCMP_ACT_ERRNO"


def test_capability_opens_its_calls() -> None:
    assert _actions(frozenset({"CAP_SYS_ADMIN"}))["mount"] == "SCMP_ACT_ALLOW"
    assert _actions(frozenset({"CAP_SYS_TIME"}))["clock_settime"] == "SCMP_ACT_ALLOW"
    assert _actions(ALL)["keyctl"] == "SCMP_ACT_ERRNO"


def test_runtime_default_is_wider_than_baseline() -> None:
    def allowed(profile: SeccompProfile) -> set[str]:
        return {name for name, action in _actions(frozenset(), profile).items() if action == "SCMP_ACT_ALLOW"}

    assert allowed(SeccompProfile.BASELINE) < allowed(SeccompProfile.RUNTIME_DEFAULT)
    assert "ptrace" in allowed(SeccompProfile.RUNTIME_DEFAULT) - allowed(SeccompProfile.BASELINE)


def test_privileged_is_not_filtered() -> None:
    assert seccomp.for_container(Security(privileged=True), ALL) is None


def test_rules_of_other_machines_are_left_out() -> None:
    rules = [
        {"names": ["a"], "action": "SCMP_ACT_ALLOW", key: {"arches": ["s390x"]}} for key in ("includes", "excludes")
    ]
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    assert len(seccomp.compile_profile(profile, frozenset(), "s390x")["syscalls"]) == 1
    assert seccomp.compile_profile(profile, frozenset(), "x86_64")["architectures"] == ["SCMP_ARCH_X86_64"]


@pytest.mark.parametrize(
    "profile",
    [
        [],
        {},
        {"defaultAction": "ALLOW"},
        {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": "1"},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": 1}]},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": {}, "errnoRet": -1}],
        },
    ],
)
def test_profile_that_is_none_is_refused(profile: Any) -> None:
    with pytest.raises(InvalidError, match="seccomp profile"):
        seccomp.compile_profile(profile, frozenset(), "x86_64")
