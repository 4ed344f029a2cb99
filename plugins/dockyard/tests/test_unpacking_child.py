"""The unpacking child: what it may import, where it is locked in."""

import json
import os
import subprocess
import sys

import pytest


def test_the_child_imports_no_framework():
    """Its start is paid for every layer; and what is not imported cannot be attacked."""
    code = "import nanocloud_dockyard._unpack, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout
    assert {name.partition(".")[0] for name in loaded.split()}.isdisjoint(
        {"nanocloud", "trio", "attrs", "cattrs", "httpx2", "orjson", "asyncio"}
    )


@pytest.mark.root
def test_the_locked_in_child_can_import_nothing_that_the_layer_brings(tmp_path):
    """Modules at every place where Python could look, inside the folder that becomes the child's root."""
    for entry in (*sys.path, "/", "/usr/lib/python3"):
        folder = tmp_path / "root" / entry.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "hostile.py").write_text("print('escaped')")
    code = (
        "import os, sys; from nanocloud_dockyard._unpack import _lock_in\n"
        f"_lock_in(os.open({str(tmp_path / 'root')!r}, os.O_RDONLY))\n"
        "print(sorted(os.listdir('/')))\n"
        "import hostile"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError" in result.stderr
    assert "escaped" not in result.stdout
    assert "proc" not in result.stdout


@pytest.mark.root
def test_a_child_that_nobody_listens_to_ends(tmp_path, tar):
    data = bytes(tar.file(b"zeros", bytes(64 << 20)))
    fd = os.open(tmp_path, os.O_RDONLY)
    job = {"root_fd": fd, "size_bytes": len(data), "sha256": "", "diff_id": ""}
    job["limits"] = {"max_layer_bytes": 1 << 30}
    command = [sys.executable, "-I", "-m", "nanocloud_dockyard._unpack", json.dumps(job)]
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=(fd,)
    )
    child.stdout.close()
    with pytest.raises(BrokenPipeError):
        child.stdin.write(data)
    assert child.wait(30) == 1
    assert child.stderr.read() == b""
    child.stdin.detach().close()
    child.stderr.close()
    os.close(fd)
