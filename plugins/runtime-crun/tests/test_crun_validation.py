"""What is refused before the host is touched, and what crun's refusals mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nanocloud.errors import InvalidError
from nanocloud.providers.runtime import (
    ContainerSpec,
    ExecSpec,
    ProjectedFile,
    Resources,
    SeccompProfile,
    Security,
)
from nanocloud.testkit.specs import container_spec
from nanocloud_runtime_crun import failures
from nanocloud_runtime_crun.host import CAPABILITIES
from nanocloud_runtime_crun.record import Failure
from nanocloud_runtime_crun.validation import check_container, check_exec

ALL = frozenset(CAPABILITIES)


def _spec(**fields: Any) -> ContainerSpec:
    return container_spec(fields.pop("id", "c"), Path("/logs"), **({"layers": (Path("/layer"),)} | fields))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("executable file `x` not found in $PATH: No such file or directory", 127),
        ("exec container process (missing dynamic library?) `/x`: No such file or directory", 127),
        ("open executable: Not a directory", 127),
        ("open executable: Permission denied", 126),
        ("exec container process `/x`: Exec format error", 126),
        ("exec: Exec format error", 126),
    ],
)
def test_crun_says_why_nothing_was_executed(words: str, code: int) -> None:
    assert failures.explain(words) == Failure(code=code, message=words)


def test_other_words_are_no_programs_fault() -> None:
    assert failures.explain("mount `x` to `y`: No such file or directory") is None
    assert failures.exit_code("the container `c` is not running") == 126


def test_last_words_are_the_last_line_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("T stdout F one\nT stderr F exec: two words\n")
    assert failures.last_words(tmp_path / "log") == "exec: two words"
    assert failures.last_words(tmp_path / "absent") == ""


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"id": "../x"}, "id"),
        ({"layers": ()}, "layers"),
        ({"layers": (Path("relative"),)}, "layers[0]"),
        ({"argv": ()}, "argv"),
        ({"argv": ("a\0",)}, "argv"),
        ({"argv": ("\udc80",)}, "argv"),
        ({"argv": ("x" * (1 << 18),)}, "argv"),
        ({"environment": {"A=B": ""}}, "environment"),
        ({"working_directory": "x"}, "working_directory"),
        ({"working_directory": "/../x"}, "working_directory"),
        ({"hostname": "a b"}, "hostname"),
        ({"tmpfs": ("/a", "/a/")}, "tmpfs[1]"),
        ({"tmpfs": ("/proc/x",)}, "tmpfs[0]"),
        ({"files": (ProjectedFile(path="/x", content=b"", mode=0o4755),)}, "files[0].mode"),
        ({"files": (ProjectedFile(path="/x", content=b"x" * (5 << 20)),)}, "files[0].content"),
        ({"resources": Resources(memory_bytes=1)}, "resources.memory_bytes"),
        ({"resources": Resources(cpu_millicores=0)}, "resources.cpu_millicores"),
        ({"resources": Resources(pids=-1)}, "resources.pids"),
        ({"security": Security(capabilities=frozenset({"chown"}))}, "security.capabilities"),
        ({"security": Security(seccomp=SeccompProfile.LOCALHOST)}, "security.seccomp_path"),
        ({"stop_signal": "TERM"}, "stop_signal"),
        ({"log_path": Path("/logs/a:b")}, "log_path"),
        ({"log_limit_bytes": 0}, "log_limit_bytes"),
    ],
)
def test_bad_field_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidError) as caught:
        check_container(_spec(**fields), ALL)
    assert [cause.field for cause in caught.value.causes] == [named]


def test_every_bad_field_is_named_at_once_and_no_secret_shown() -> None:
    with pytest.raises(InvalidError) as caught:
        check_container(_spec(argv=(), environment={"PASSWORD": "hunter2\0"}, stop_signal=""), ALL)
    assert {cause.field for cause in caught.value.causes} == {"argv", "environment", "stop_signal"}
    assert "hunter2" not in str(caught.value)


def test_exec_takes_no_more_secrets_than_descriptors() -> None:
    check_exec("c", ExecSpec(argv=("x",), secrets=(b"",) * 64), ALL)
    with pytest.raises(InvalidError, match="secrets"):
        check_exec("c", ExecSpec(argv=("x",), secrets=(b"",) * 65), ALL)
