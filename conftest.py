"""For all tests.

Generated examples are judged by what they show, not by how fast a shared machine is. Where tests run side by side
(``pytest -n``), those that change the machine run one after another: they look for what is left on it.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

END_TO_END = Path(__file__).parent / "tests" / "e2e"

settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist looks at the groups in this hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        changes_the_machine = item.get_closest_marker("root") is not None or END_TO_END in item.path.parents
        item.add_marker(pytest.mark.xdist_group("machine" if changes_the_machine else str(item.path)))


@pytest.fixture(scope="session")
def disk() -> Iterator[Path]:
    """An empty filesystem for trees of unpacked images, of which nothing is left when the tests are over.

    A hundred thousand files go with the one that holds them all. As nothing on it has to survive a power cut, nothing
    on it waits for the machine's disk. Its path is short, for sockets.
    """
    folder = Path(tempfile.mkdtemp(prefix="nc", dir="/tmp"))
    image = folder.with_suffix(".ext4")
    with image.open("xb") as file:
        file.truncate(64 << 30)  # takes what is used of it
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard,lazy_journal_init=1", image], check=True)
    subprocess.run(["mount", "-o", "loop,nobarrier", image, folder], check=True)
    (folder / "lost+found").rmdir()
    yield folder
    subprocess.run(["umount", folder], check=True)  # fails while something that a test has left holds it
    folder.rmdir()
    image.unlink()
