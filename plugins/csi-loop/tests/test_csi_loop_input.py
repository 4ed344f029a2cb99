"""What is refused before it reaches a path, and the configuration. Needs no root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanocloud.config import NodeConfig
from nanocloud.errors import ConfigError, InvalidError
from nanocloud.providers.volume import VolumeId, VolumeSpec
from nanocloud_csi_loop import LoopVolumes, plugin
from nanocloud_csi_loop.config import read
from nanocloud_csi_loop.sizes import human

MIB = 1024**2
HOSTILE = [
    "", ".", "..", "../etc", "a/b", "/etc", ".new-a", "-a", "A", "a b", "a\n", "a\0b", "é", "a" * 129, "a\\b", "*",
    None, 7,
]  # fmt: skip


@pytest.fixture
def closed(tmp_path: Path) -> LoopVolumes:
    """Not open, on a folder that does not exist: touching a path would show."""
    return LoopVolumes(tmp_path / "never-made")


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_hostile_ids_are_refused_by_every_method(closed: LoopVolumes, hostile: str, tmp_path: Path) -> None:
    volume = VolumeId(hostile)
    for call in (
        lambda: closed.create(VolumeSpec(id=volume, size_bytes=16 * MIB)),
        lambda: closed.publish(volume, consumer="web"),
        lambda: closed.unpublish(volume, consumer="web"),
        lambda: closed.delete(volume),
    ):
        with pytest.raises(InvalidError, match=r"volume id .* is not allowed; it must be 1 to 128 of") as caught:
            await call()
        assert [cause.field for cause in caught.value.causes] == ["id"]
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("hostile", ["", "a b", "a\n", "é", "x" * 513])
async def test_hostile_consumers_are_refused(closed: LoopVolumes, hostile: str) -> None:
    for call in (closed.publish, closed.unpublish):
        with pytest.raises(InvalidError, match=r"consumer .* is not allowed"):
            await call(VolumeId("db"), consumer=hostile)


@pytest.mark.parametrize("size", [0, -1, 16 * MIB - 1, 8 * 1024**4 + 1, True, 16.0 * MIB, "16Mi"])
async def test_sizes_that_cannot_be_are_refused(closed: LoopVolumes, size: int) -> None:
    with pytest.raises(InvalidError, match=r"volume db: size_bytes .* from 16 MiB to 8 TiB"):
        await closed.create(VolumeSpec(id=VolumeId("db"), size_bytes=size))


@pytest.mark.parametrize("fs_type", ["xfs", "", "ext4 -o suid", "EXT4"])
async def test_other_file_systems_are_refused(closed: LoopVolumes, fs_type: str) -> None:
    with pytest.raises(InvalidError, match=r"fs_type .* is not allowed; it must be one of ext4"):
        await closed.create(VolumeSpec(id=VolumeId("db"), size_bytes=16 * MIB, fs_type=fs_type))


def test_volumes_lie_in_the_state_folder_unless_configured(tmp_path: Path) -> None:
    assert read(NodeConfig(state_dir=tmp_path))[0] == tmp_path / "volumes"
    configured = NodeConfig(sections={"csi-loop": {"root": "/srv/volumes", "overcommit": True}})
    root, section = read(configured)
    assert (root, section.overcommit) == (Path("/srv/volumes"), True)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"root": "volumes"}, "csi-loop.root is 'volumes'; it must be an absolute path"),
        ({"root": "/srv/../etc"}, "csi-loop.root"),
        ({"rot": "/srv"}, 'unknown field "csi-loop.rot"'),
        ({"overcommit": "no"}, "csi-loop.overcommit: expected true or false"),
    ],
)
def test_bad_configuration_names_the_field(table: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace(".", r"\.")):
        read(NodeConfig(sections={"csi-loop": table}))


def test_plugin_offers_one_provider_and_touches_nothing(tmp_path: Path) -> None:
    [provider] = plugin.nanocloud_volume_providers(NodeConfig(state_dir=tmp_path))
    assert provider.name == "csi-loop"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (16 * MIB, "16 MiB"), (1610612736, "1.5 GiB")]
)
def test_sizes_read_well(size: int, text: str) -> None:
    assert human(size) == text
