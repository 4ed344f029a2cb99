"""Trees that a container could have written, and their removal."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from nanocloud_runtime_crun.trees import remove_tree


def test_tree_of_every_kind_of_file_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "a/b/link").symlink_to("/")
    (tree / "a/dangling").symlink_to("absent")
    os.mkfifo(tree / "pipe")
    (tree / "\udcff\n").write_text("x")
    (tree / "a/locked").mkdir(mode=0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
    remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("x")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "tree")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept/file").exists()


def test_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    here = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(3000):  # 3000 * 201 bytes of path, three times Python's recursion limit
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_wide_tree_is_removed(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"tree/{number}/full").mkdir(parents=True)
        (tmp_path / f"tree/{number}/file").touch()
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_removal_that_is_stopped_is_taken_up_again(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"tree/{number}/a/b").mkdir(parents=True)
        (tmp_path / f"tree/{number}/file").touch()
    answers = iter([False] * 20 + [True] * 1000)
    remove_tree(tmp_path / "tree", stopped=lambda: next(answers))
    assert 0 < len(list((tmp_path / "tree").iterdir())) < 30
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_absent_tree_and_absent_parent_are_no_error(tmp_path: Path) -> None:
    remove_tree(tmp_path / "absent")
    remove_tree(tmp_path / "absent/absent")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("chattr") is None, reason="needs root and chattr")
def test_immutable_files_and_folders_are_removed(tmp_path: Path) -> None:
    (tmp_path / "tree/folder").mkdir(parents=True)
    (tmp_path / "tree/folder/file").touch()
    (tmp_path / "tree/appended").touch()
    try:
        subprocess.run(["chattr", "+i", tmp_path / "tree/folder/file", tmp_path / "tree/folder"], check=True)
        subprocess.run(["chattr", "+a", tmp_path / "tree/appended", tmp_path / "tree"], check=True)
    except subprocess.CalledProcessError:
        pytest.skip("this file system has no such flags")
    remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []
