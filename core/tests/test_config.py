"""The configuration: defaults, the file, the environment, and what is refused."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from nanocloud.config import NodeConfig, load
from nanocloud.errors import ConfigError


@attrs.frozen(kw_only=True)
class Settings:
    root: Path = Path("/data")
    worker_count: int = 2
    mirrors: tuple[str, ...] = ()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def loaded(file: Path, text: str | None = None, **environ: str) -> NodeConfig:
    if text is not None:
        file.write_text(text)
    return load({"NANOCLOUD_CONFIG": str(file), **environ} if file.exists() else environ)


def test_defaults(file: Path) -> None:
    config = loaded(file)
    assert (config.state_dir, config.run_dir) == (Path("/var/lib/nanocloud.io"), Path("/run/nanocloud"))
    assert (config.listen, config.runtime, config.require_client_certificate) == ("127.0.0.1:6443", None, False)
    assert config.secure_assets == Path("/var/lib/nanocloud.io/secure_assets")


def test_the_file(file: Path) -> None:
    config = loaded(
        file,
        """
        [node]
        state_dir = "/srv/cloud"
        runtime = "crun"
        require_client_certificate = true
        disable_plugins = ["old"]

        [csi-loop]
        root = "/vol"
        worker_count = 3
        mirrors = ["a", "b"]
        """,
    )
    assert (config.state_dir, config.runtime, config.disable_plugins) == (Path("/srv/cloud"), "crun", ("old",))
    assert config.require_client_certificate
    assert config.source == str(file)
    assert config.section("csi-loop", Settings) == Settings(root=Path("/vol"), worker_count=3, mirrors=("a", "b"))
    assert config.section("other", Settings) == Settings()


def test_the_environment_wins_over_the_file(file: Path) -> None:
    config = loaded(
        file,
        '[node]\nlisten = "127.0.0.1:1"\nruntime = "a"\nrequire_client_certificate = true\n[csi-loop]\nroot = "/a"\n',
        NANOCLOUD_LISTEN="0.0.0.0:2",
        NANOCLOUD_STATE_DIR="/srv/x",
        NANOCLOUD_REQUIRE_CLIENT_CERTIFICATE="No",
        NANOCLOUD_DISABLE_PLUGINS="one, two,",
        NANOCLOUD_ALLOW_PLUGINS=" three",
        NANOCLOUD_CSI_ROOT="/b",
        NANOCLOUD_RUNTIME="",
    )
    assert (config.listen, config.state_dir, config.runtime) == ("0.0.0.0:2", Path("/srv/x"), "a")
    assert not config.require_client_certificate
    assert config.disable_plugins == ("one", "two")
    assert config.allow_plugins == ("three",)
    assert config.section("csi-loop", Settings).root == Path("/b")


def test_an_empty_allow_list_is_not_the_same_as_none(file: Path) -> None:
    assert loaded(file, "[node]\nallow_plugins = []\n").allow_plugins == ()
    assert loaded(file, "[node]\n", NANOCLOUD_ALLOW_PLUGINS="").allow_plugins is None


@pytest.mark.parametrize("text", ["true", "1", "YES", " on "])
def test_words_for_true(file: Path, text: str) -> None:
    assert loaded(file, NANOCLOUD_REQUIRE_CLIENT_CERTIFICATE=text).require_client_certificate


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[node]\nruntme = 'crun'\n", 'node.runtme: unknown field "node.runtme"; known here: allow_plugins, binding, '),
        ("[node]\nstate_dir = 5\n", "node.state_dir: expected a string, got 5"),
        ("[node]\nstate_dir = 'relative'\n", "node.state_dir is 'relative'; it must be absolute"),
        ("[node]\ndisable_plugins = 'crun'\n", "node.disable_plugins: expected a list, got 'crun'"),
        ("[node]\nrequire_client_certificate = 'no'\n", "node.require_client_certificate: expected true or false"),
        ("[node]\nkeep_unused_images_seconds = 0\n", "node.keep_unused_images_seconds is 0; it must be at least 1"),
        ("runtime = 'crun'\n", "runtime stands outside a table; node settings belong under [node]"),
        ("[node\n", "cannot be read: "),
        ("node = 5\n", "node stands outside a table"),
    ],
)
def test_a_file_that_cannot_be_used_names_file_field_and_rule(file: Path, text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_bytes_that_are_no_text(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read"):
        loaded(file)


def test_a_file_that_was_named_must_exist(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"NANOCLOUD_CONFIG names .*, which does not exist"):
        load({"NANOCLOUD_CONFIG": str(file)})


def test_a_word_that_is_neither_true_nor_false(file: Path) -> None:
    with pytest.raises(ConfigError, match="NANOCLOUD_REQUIRE_CLIENT_CERTIFICATE is 'maybe'; it must be true or false"):
        loaded(file, NANOCLOUD_REQUIRE_CLIENT_CERTIFICATE="maybe")


@pytest.mark.parametrize("text", ["-1", "1h", "٣"])
def test_a_number_that_is_none(file: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"KEEP_UNUSED_IMAGES_SECONDS is '.*'; it must be a number of seconds"):
        loaded(file, NANOCLOUD_KEEP_UNUSED_IMAGES_SECONDS=text)


def test_a_relative_folder_from_the_environment_names_its_variable(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"state_dir is 'x'; it must be absolute"):
        loaded(file, NANOCLOUD_STATE_DIR="x")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("worker_count = 'two'", "csi-loop.worker_count: expected an integer, got 'two'"),
        ("workers = 2", 'csi-loop.workers: unknown field "csi-loop.workers"; known here: mirrors, root, worker_count'),
        ("mirrors = 'a'", "csi-loop.mirrors: expected a list, got 'a'"),
    ],
)
def test_a_plugins_table_is_checked_like_the_nodes(file: Path, table: str, told: str) -> None:
    config = loaded(file, f"[csi-loop]\n{table}\n")
    with pytest.raises(ConfigError) as caught:
        config.section("csi-loop", Settings)
    assert told in str(caught.value)
    assert str(file) in str(caught.value)


def test_sections_are_not_shown(file: Path) -> None:
    assert "hunter2" not in repr(loaded(file, "[registry]\npassword = 'hunter2'\n"))
