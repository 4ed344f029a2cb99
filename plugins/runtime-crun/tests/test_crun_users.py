"""Users of an image, looked up in files that the image controls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nanocloud.errors import InvalidError
from nanocloud_runtime_crun import users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Callable[[str, str], int]]:
    """Opens an image's root with these user and group files."""
    opened: list[int] = []

    def make(passwd: str, group: str) -> int:
        _tree(tmp_path, {"etc/passwd": passwd, "etc/group": group})
        opened.append(os.open(tmp_path, os.O_PATH | os.O_DIRECTORY))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", users.User(0, 0, (7,), "/root")),
        ("0", users.User(0, 0, (7,), "/root")),
        ("db", users.User(9, 10, (11, 12), "/srv")),
        ("9", users.User(9, 10, (11, 12), "/srv")),
        ("db:0", users.User(9, 0, (), "/srv")),
        ("db:extra", users.User(9, 11, (), "/srv")),
        ("77", users.User(77)),
        ("77:78", users.User(77, 78)),
    ],
)
def test_user_is_found(root: Callable[[str, str], int], text: str, user: users.User) -> None:
    passwd = "root:x:0:0::/root:\n#\nbroken\ndb:x:9:10::/srv:\ndb:x:99:99::/no:\n"
    assert users.resolve(root(passwd, "root:x:0:\nextra:x:11:db,x\nmore:x:12:y,db\nadm:x:7:root\n"), text) == user


@pytest.mark.parametrize("text", ["ghost", "db:", "db:ghost", "-1", "4294967295", "99999999999999999999", "١", "a b"])
def test_user_that_is_not_there_is_refused(root: Callable[[str, str], int], text: str) -> None:
    with pytest.raises(InvalidError, match="user"):
        users.resolve(root("db:x:9:10::/srv:\n", ""), text)


def test_image_without_user_files_has_root_and_numbers(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    try:
        assert users.resolve(fd, "") == users.User()
        assert users.resolve(fd, "5:6") == users.User(5, 6)
    finally:
        os.close(fd)


def test_numbers_of_a_hostile_user_file_are_checked(root: Callable[[str, str], int]) -> None:
    fd = root("a:x:4294967295:0::/:\nb:x:x:0::/:\n", "g:x:99999999999:b,c\n")
    for name in ("a", "b"):
        with pytest.raises(InvalidError):
            users.resolve(fd, name)


def test_user_file_without_end_is_refused(root: Callable[[str, str], int]) -> None:
    with pytest.raises(InvalidError, match="bytes"):
        users.resolve(root("x" * (2 << 20), ""), "db")
