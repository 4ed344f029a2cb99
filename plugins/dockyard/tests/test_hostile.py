"""Hostile layers, documents and registries by the hundred.

Of each: nothing outside the store is touched, nothing half-done stays in it, it ends soon, no process needs more than
200 MiB, and there is one error of a line that says what is wrong.
"""

from __future__ import annotations

import hashlib
import ssl
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from nanocloud.errors import ImageError, NanocloudError
from nanocloud_dockyard import unpacker
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.settings import DockyardConfig, LimitSettings

sys.path.insert(0, str(Path(__file__).parent))  # the tables beside this module

import hostile_documents
import hostile_layers
import hostile_registries

MIB = 1 << 20
MOST_BYTES = 200 * MIB
NODE_BYTES = 60 * MIB
"""What a node needs without any of this, at least; the tests' own process is larger."""
SECONDS = 30
AT_ONCE = 3
LIMITS = LimitSettings(max_layer_bytes=64 * MIB, max_entries=2_000)
CHILD = """
import os
status = os.open("/proc/self/status", os.O_RDONLY)
peaks = os.open({peaks!r}, os.O_WRONLY | os.O_APPEND)
from nanocloud_dockyard import _unpack
code = _unpack.main()
kilobytes = [line.split()[1] for line in os.pread(status, 1 << 16, 0).splitlines() if line.startswith(b"VmHWM")]
os.write(peaks, kilobytes[0] + b"\\n")
os._exit(code)
"""


def groups(cases):
    """Cases by the word that their names begin with."""
    found = {}
    for name in cases:
        found.setdefault(name.partition(":")[0].partition(" ")[0], []).append(name)
    return found


LAYER_GROUPS = groups(hostile_layers.CASES)


def test_there_are_hundreds_of_cases():
    layers, documents = len(hostile_layers.CASES), len(hostile_documents.CASES)
    registries = len(hostile_registries.CASES)
    assert layers >= 300
    assert documents >= 80
    assert registries >= 60


def seen(folder):
    """Everything below a folder: kind, mode, owner, content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, content)
    return found


@pytest.fixture
def outside(tmp_path):
    """What a layer would like to reach: beside every folder that it could take for its parent."""
    for place in (tmp_path, tmp_path / "images", tmp_path / "images/layers"):
        (place / "outside").mkdir(parents=True)
        (place / "outside/precious").write_text("untouched")
    return tmp_path


@pytest.fixture
def peaks(tmp_path, monkeypatch):
    """Has every child say what it needed most; gives bytes."""
    file = tmp_path / "peaks"
    file.touch()
    monkeypatch.setattr(unpacker, "CHILD", (sys.executable, "-I", "-c", CHILD.format(peaks=str(file))))
    return lambda: [int(line) * 1024 for line in file.read_text().split()]


@contextmanager
def bounded_memory():
    """This process may not grow by more than a node has left."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = _peak()
    yield
    assert _peak() - before < MOST_BYTES - NODE_BYTES


def _peak():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def complaint(error, says=""):
    """What is wrong with how it was said; empty where nothing is."""
    text, hint = str(error), getattr(error, "hint", "")
    if not isinstance(error, NanocloudError):
        return f"is a {type(error).__name__}: {text}"
    if "\n" in text or "\n" in hint or not text.isprintable() or not 10 < len(text) < 1000:
        return f"is no one clear line: {text!r}"
    return "" if says in text else f"does not say {says!r}: {text}"


# Layers


@pytest.mark.root
@pytest.mark.parametrize("group", LAYER_GROUPS)
async def test_hostile_layers_leave_nothing(group, outside, peaks, new_image, new_tar):
    store, wrong = outside / "images", {}
    before = {place: seen(place) for place in outside.rglob("outside")}
    names = LAYER_GROUPS[group]
    async with Dockyard(DockyardConfig(limits=LIMITS, parallel_layers=AT_ONCE), store) as dockyard:
        limiter = trio.CapacityLimiter(AT_ONCE)

        async def one(number, name):
            case = hostile_layers.CASES[name]
            reference = f"oci:{_layout(outside / f'layout{number}', case, new_image, new_tar)}"
            async with limiter:
                image = await dockyard.resolve(reference)
                with trio.move_on_after(SECONDS) as scope:
                    try:
                        await dockyard.ensure(image)
                        wrong[name] = "was accepted"
                    except Exception as exc:
                        wrong[name] = complaint(exc, case.says) or ("" if "layer sha256:" in str(exc) else f"{exc}")
                if scope.cancelled_caught:
                    wrong[name] = "did not end"

        async with trio.open_nursery() as nursery:
            for number, name in enumerate(names):
                nursery.start_soon(one, number, name)
    assert {name: what for name, what in wrong.items() if what} == {}
    assert {place: seen(place) for place in before} == before
    assert [path.name for path in (store / "layers").iterdir()] == ["outside"]
    assert len(peaks()) >= len(names)
    assert max(peaks()) < MOST_BYTES


@pytest.mark.root
async def test_a_layer_that_needs_more_memory_than_there_is_is_refused(outside, monkeypatch, new_image, new_tar):
    """The kernel holds the child to its bound, here a small one; the longest paths fill it soonest."""
    code = "from nanocloud_dockyard import _unpack; _unpack._MEMORY_BYTES = 24 << 20; raise SystemExit(_unpack.main())"
    monkeypatch.setattr(unpacker, "CHILD", (sys.executable, "-I", "-c", code))
    tar, parts = new_tar(), [b"%030d" % number for number in range(126)]
    for depth in range(1, len(parts) + 1):
        tar.pax({b"path": b"/".join(parts[:depth])}).folder(b"d")
    for number in range(6000):
        tar.pax({b"path": b"/".join([*parts, b"%d" % number])}).folder(b"d")
    new_image.of(bytes(tar)).write_layout(outside / "layout")
    async with Dockyard(DockyardConfig(), outside / "images") as dockyard:
        with pytest.raises(ImageError, match="MiB of memory to unpack: too many folders"):
            await dockyard.ensure(await dockyard.resolve(f"oci:{outside}/layout"))
    assert [path.name for path in (outside / "images/layers").iterdir()] == ["outside"]


def _layout(folder, case, new_image, new_tar):
    tar = new_tar()
    if case.write:
        case.write(tar)
    image = new_image.of(bytes(tar), compress=case.compress) if case.compress else new_image.of(bytes(tar))
    image.configuration["note"] = str(folder)  # every case its own image
    (layer,) = image.manifest["layers"]
    good = image.blobs.pop(layer["digest"])
    found = case.blob if case.blob is not None else case.spoil(good) if case.spoil else good
    if case.blob is not None or case.digested:
        image.manifest["layers"] = [image.blob(found, layer["mediaType"])]
    image.write_layout(folder)
    (described,) = image.manifest["layers"]
    (folder / "blobs/sha256" / described["digest"].removeprefix("sha256:")).write_bytes(found)
    return folder


# Documents


@pytest.mark.parametrize("group", groups(hostile_documents.CASES))
async def test_hostile_documents_leave_nothing(group, outside, new_image, new_tar):
    store, wrong = outside / "images", {}
    async with Dockyard(DockyardConfig(limits=LIMITS), store) as dockyard:
        before = seen(store)
        with bounded_memory():
            for number, name in enumerate(groups(hostile_documents.CASES)[group]):
                case = hostile_documents.CASES[name]
                folder = outside / f"layout{number}"
                case.write(folder, new_image, new_tar)
                try:
                    with trio.fail_after(SECONDS):
                        await dockyard.resolve(f"oci:{folder}")
                    wrong[name] = "was accepted"
                except Exception as exc:
                    wrong[name] = complaint(exc, case.says)
        assert {name: what for name, what in wrong.items() if what} == {}
        assert seen(store) == before


# Registries


@pytest.fixture
def no_threads(monkeypatch):
    """A virtual clock would run on while a thread works."""

    async def run_sync(function, *arguments, **_):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    context = ssl.create_default_context()  # one for all, for it takes long to make
    monkeypatch.setattr("nanocloud_dockyard.transport._tls", lambda ca_file: context)


@pytest.mark.parametrize("group", groups(hostile_registries.CASES))
async def test_hostile_registries_are_one_error_in_bounded_time(group, tmp_path, no_threads, autojump_clock):
    wrong = {}
    with bounded_memory():
        for name in groups(hostile_registries.CASES)[group]:
            case = hostile_registries.CASES[name]
            registry = hostile_registries.Registry(case)
            began = trio.current_time()
            try:
                with trio.fail_after(hostile_registries.MOST_SECONDS):
                    await registry.pull(tmp_path)
                wrong[name] = "was accepted"
            except ImageError as exc:
                wrong[name] = complaint(exc, case.says)
            except trio.TooSlowError:
                wrong[name] = "did not end"
            except Exception as exc:
                wrong[name] = complaint(exc, case.says)
            if registry.leaked:
                wrong[name] = f"was told the password: {registry.leaked}"
            if registry.requests > hostile_registries.MOST_REQUESTS:
                wrong[name] = f"was asked {registry.requests} times in {trio.current_time() - began:.0f} s"
    assert {name: what for name, what in wrong.items() if what} == {}
