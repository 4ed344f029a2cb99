"""The programs of an image that the node runs: is each there, may it run, and does it parse.

A script of an untrusted image is only parsed (``sh -n``), as nobody, and never run. Interpreters other than a shell
have no way to parse alone that runs nothing, so those scripts are only looked for.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nanocloud_dockyard.check.findings import Finding

if TYPE_CHECKING:
    from nanocloud_dockyard.check.tree import ImageTree

NOBODY = 65534
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SHELLS = {"sh": "sh", "dash": "sh", "ash": "sh", "bash": "bash"}
_PARSE_SECONDS = 10


def look_at(tree: ImageTree, path: str, *, uid: int, gid: int) -> Iterator[Finding]:
    """What is wrong with a program that ``uid`` has to run; the file exists."""
    entry = tree.find(path)
    assert entry is not None
    if not entry.is_file:
        yield Finding("script-mode", path, "is no regular file")
        return
    content = tree.read(path) or b""
    if not entry.lets(uid, gid, execute=True):
        yield Finding("script-mode", path, f"has mode {entry.state.st_mode & 0o7777:04o}, and user {uid} runs it")
    if content.startswith(b"\x7fELF"):
        return
    first = content.partition(b"\n")[0]
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    if not words:
        yield Finding("script-interpreter", path, "neither is a program nor begins with #!")
        return
    interpreter = _interpreter(tree, words)
    if interpreter is None:
        yield Finding("script-interpreter", path, f"asks for {' '.join(words)[:80]}, which the image does not have")
        return
    shell = _SHELLS.get(posixpath.basename(interpreter))
    if shell is not None and (wrong := _parse(shell, content)):
        yield Finding("script-syntax", path, wrong)


def program(tree: ImageTree, name: str) -> str | None:
    """The path of a program by its name or path, as a start would find it."""
    candidates = (name,) if "/" in name else tuple(f"{folder}/{name}" for folder in _PATH)
    for path in candidates:
        entry = tree.find(path)
        if entry is not None and entry.is_file:
            return path
    return None


def _interpreter(tree: ImageTree, words: list[str]) -> str | None:
    """Its path; of ``/usr/bin/env name`` the name's, where both are there."""
    found = program(tree, words[0]) if words[0].startswith("/") else None
    if found is None or posixpath.basename(words[0]) != "env":
        return found
    named = [word for word in words[1:] if not word.startswith("-")]
    return program(tree, named[0]) if named else None


def _parse(shell: str, content: bytes) -> str:
    """What the shell says is wrong; nothing where it has no objection, or is not on this machine."""
    found = shutil.which(shell)
    if found is None:
        return ""
    is_root = os.geteuid() == 0
    try:
        done = subprocess.run(
            (found, "-n"),
            input=content,
            capture_output=True,
            timeout=_PARSE_SECONDS,
            check=False,
            env={},
            cwd="/",
            user=NOBODY if is_root else None,
            group=NOBODY if is_root else None,
            extra_groups=[] if is_root else None,
        )
    except subprocess.TimeoutExpired:
        return f"is not parsed within {_PARSE_SECONDS} s"
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines[0] if lines else "does not parse").removeprefix(f"{found}: ") if done.returncode else ""
