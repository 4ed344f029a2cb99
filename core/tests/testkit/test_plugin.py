"""What an author sees who runs a suite in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FORGETFUL = """
import pytest
from nanocloud.testkit import FakeVolume
from nanocloud.testkit.suites import VolumeProviderSuite

class Forgetful(FakeVolume):
    async def delete(self, volume):
        pass

class TestForgetful(VolumeProviderSuite):
    in_memory = True

    @pytest.fixture
    def make_provider(self, tmp_path):
        volume = Forgetful(tmp_path / "volumes")
        return lambda: volume

    test_limit_holds_for_what_is_written = test_a_volume_is_a_file_system_of_its_own = None

    async def test_more_than_the_suite_asks(self, provider):
        \"\"\"Of its author.\"\"\"
        assert provider.name == "forgetful"

    def test_of_root(self):
        pass

    test_of_root = pytest.mark.root(test_of_root)
"""
WORDS = 'contract volume, delete: "Remove the volume and its data. Unknown ids are no error."'


def pytest_in(folder: Path, *words: str, plugin: bool = True, columns: int = 80) -> str:
    """What pytest says about the tests in a folder, for a user who is not root."""
    (folder / "test_forgetful.py").write_text(FORGETFUL)
    (folder / "conftest.py").write_text("import os\nos.geteuid = lambda: 65534\n")
    command = [sys.executable, "-m", "pytest", "--strict-markers", "-ra", "-p", "no:cacheprovider", *words]
    command += ["-p", "nanocloud.testkit.plugin"] if plugin else []
    environment = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run(
        [*command, "-k", "deleted_volume or more_than_the_suite or of_root"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said on a small terminal."""
    return pytest_in(tmp_path_factory.mktemp("empty"))


def test_a_failure_shows_its_values_and_the_sentence_it_breaks(narrow: str) -> None:
    assert "2 failed, 1 skipped" in narrow
    pattern = r"^_+ TestForgetful.test_deleted_volume_is_gone\S+ _+$(.*?)^_"
    [report] = re.findall(pattern, narrow, re.MULTILINE | re.DOTALL)
    assert re.search(r"^E +Left contains one more item: 'shop\.data-db-0'$", report, re.MULTILINE)
    assert re.search(rf"^-+ contract -+\n{re.escape(WORDS)}$", report, re.MULTILINE)


def test_broken_sentences_are_listed_whole_however_narrow_the_terminal_is(narrow: str) -> None:
    listed = re.search(r"^=+ sentences of contracts that do not hold =+\n(.*?)^=", narrow, re.MULTILINE | re.DOTALL)
    assert listed is not None
    assert listed[1].splitlines() == [WORDS]


def test_the_summary_begins_with_the_sentence(tmp_path: Path) -> None:
    summary = [line for line in pytest_in(tmp_path, columns=300).splitlines() if line.startswith("FAILED")]
    node = "test_forgetful.py::TestForgetful"
    assert summary[0].startswith(f"FAILED {node}::test_deleted_volume_is_gone_with_its_data - {WORDS} - Assertion")
    # A test of the author's own says what it says.
    assert summary[1].startswith(f"FAILED {node}::test_more_than_the_suite_asks - AssertionError: assert 'fake' ==")


def test_what_needs_root_is_skipped_for_others(narrow: str) -> None:
    assert re.search(r"^SKIPPED \[1\] .*changes the machine: needs root$", narrow, re.MULTILINE)


def test_suites_say_what_they_need(tmp_path: Path) -> None:
    said = pytest_in(tmp_path, "-o", "markers=root: here", "-o", "trio_mode=true", plugin=False)
    assert "the conformance suites run under: pytest -p nanocloud.testkit.plugin" in said
    said = pytest_in(tmp_path, "-p", "no:trio")
    assert "the conformance suites need pytest-trio: pip install 'nanocloud[testkit]'" in said


MISTAKEN = """
import pytest
from nanocloud.testkit import FakeNetwork, FakeVolume
from nanocloud.testkit.suites import VolumeProviderSuite

class Undecorated(FakeVolume):
    async def lifespan(self):
        yield

class TestNothing(VolumeProviderSuite):
    pass

class TestProvider(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path):
        return FakeVolume(tmp_path)

class TestOther(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self):
        return FakeNetwork

class TestAsync(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path):
        async def make():
            return FakeVolume(tmp_path)
        return make

class TestUndecorated(VolumeProviderSuite):
    @pytest.fixture
    def make_provider(self, tmp_path):
        return lambda: Undecorated(tmp_path)
"""


def test_a_mistaken_fixture_is_told_in_a_line_and_blamed_on_no_sentence(tmp_path: Path) -> None:
    (tmp_path / "test_mistaken.py").write_text(MISTAKEN)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "nanocloud.testkit.plugin"]
    done = subprocess.run([*command, "-k", "rfc_1123"], cwd=tmp_path, capture_output=True, text=True, check=False)
    said = re.findall(r"^_+ ERROR at setup of (\w+)\.\w+ _+\n(.*)$", done.stdout, re.MULTILINE)
    for (name, line), words in zip(
        said,
        (
            "TestNothing must define the fixture make_provider",
            "TestProvider: make_provider must give a callable that builds a provider; it gave <",
            "TestOther: what make_provider gives must build a VolumeProvider; it built <",
            "TestAsync: what make_provider gives must not be async",
            "TestUndecorated: Undecorated.lifespan must be decorated with @asynccontextmanager",
        ),
        strict=True,
    ):
        assert line.startswith(words), name
    assert "contract volume" not in done.stdout
