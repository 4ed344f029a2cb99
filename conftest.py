"""For all tests.

Generated examples are judged by what they show, not by how fast a shared machine is.

Where tests run side by side (``pytest -n``) there are two lanes for those that change the machine: the nodes of
tests/e2e one after another, and the parts alone one after another. Each looks for what is left on the machine, by the
names of its own folders and groups. They are the longest, so they begin; every other file goes to whoever is free,
those of tests/ first, which make environments of their own.
"""

import os
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

END_TO_END = Path(__file__).parent / "tests" / "e2e"
IMAGES = os.environ.get("NANOCLOUD_TEST_STATE")

settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")


@pytest.hookimpl(wrapper=True)  # before all others: in this hook pytest-xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None]:
    for item in items:
        if item.get_closest_marker("images") is not None and not IMAGES:
            item.add_marker(pytest.mark.skip(reason="NANOCLOUD_TEST_STATE does not name a folder for built images"))
    side_by_side = hasattr(config, "workerinput")
    if side_by_side:
        uses_images = {item.path for item in items if item.get_closest_marker("images") is not None}
        items.sort(key=lambda item: _turn(item, uses_images=item.path in uses_images))
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_lane(item) or item.path.relative_to(config.rootpath).as_posix()))
    result = yield
    # It says so in their names. Under a pytest that it does not know it loses the groups without a word.
    if side_by_side and any(_lane(item) and "@" not in item.nodeid for item in items):
        raise pytest.UsageError("tests that change the machine need one worker: pytest -n with --dist loadgroup")
    return result


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Long bytes tell nobody anything, and may hold the time: each worker has to find the same names."""
    return argname if isinstance(val, bytes) and len(val) > 16 else None


def _lane(item: pytest.Item) -> str:
    """Empty for a test that leaves the machine alone."""
    if END_TO_END in item.path.parents:
        return "nodes"
    return "machine" if item.get_closest_marker("root") is not None else ""


def _turn(item: pytest.Item, *, uses_images: bool) -> tuple[int, bool]:
    """One lane begins with the images, the other comes to them when they are built. Files stay whole."""
    match _lane(item):
        case "nodes":
            return 0, uses_images
        case "machine":
            return 1, not uses_images
        case _:
            return 2, END_TO_END.parent not in item.path.parents


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
