"""What is remembered of a container, and how the plugin is configured."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nanocloud.config import NodeConfig
from nanocloud.errors import ConfigError, ProviderError
from nanocloud_runtime_crun import plugin
from nanocloud_runtime_crun.host import find_program
from nanocloud_runtime_crun.processes import Process, identify, is_alive, open_pidfd
from nanocloud_runtime_crun.record import Failure, Folder, Phase, Record

if TYPE_CHECKING:
    pass


def test_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.read() is None
    record = Record(
        id="c",
        labels={"a": "b"},
        phase=Phase.STARTED,
        created_at=1.5,
        log_path="/x",
        stop_signal="SIGTERM",
        started_at=2.0,
        monitor=Process(1, 2),
        init=Process(3, 4),
        failure=Failure(code=127, message="x"),
    )
    folder.write(record)
    assert folder.read() == record
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o600


def test_first_exit_code_stays(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.exit_dir.mkdir()
    assert folder.read_exit() is None
    folder.write_exit(3)
    folder.write_exit(4)
    first = folder.read_exit()
    assert first is not None
    assert first[0] == 3


def test_reused_number_is_another_process() -> None:
    own = identify(os.getpid())
    assert own is not None
    assert is_alive(own)
    assert not is_alive(Process(own.pid, own.start_ticks - 1))
    assert open_pidfd(Process(own.pid, own.start_ticks - 1)) is None


def test_missing_program_names_its_package() -> None:
    with pytest.raises(ProviderError) as caught:
        find_program("crun-that-nobody-has", "crun")
    assert caught.value.hint == "install it: apt-get install crun"


def test_plugin_reads_its_section(tmp_path: Path) -> None:
    config = NodeConfig(state_dir=tmp_path, run_dir=tmp_path, sections={"runtime-crun": {"cgroup": "/other"}})
    [runtime] = plugin.nanocloud_runtime_providers(config)
    assert runtime.name == "runtime-crun"
    with pytest.raises(ConfigError, match="group"):
        plugin.nanocloud_runtime_providers(NodeConfig(sections={"runtime-crun": {"group": "/x"}}))
