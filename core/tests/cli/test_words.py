from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from nanocloud.cli.app import app
from nanocloud.cli.words import QUICK, asks_for_help, leaves_nothing, quick_call


@pytest.mark.parametrize("name", QUICK)
def test_a_form_has_the_words_that_typer_declares(name: str) -> None:
    command = typer.main.get_command(app).get_command(None, name)  # type: ignore[attr-defined]
    declared = {p.name: p for p in command.params if p.name not in ("help", "install_completion", "show_completion")}
    options = {word: p for p in declared.values() if p.param_type_name == "option" for word in p.opts}
    form = QUICK[name]
    assert form.flags == {word: p.name for word, p in options.items() if p.is_flag}
    assert form.values == {word: p.name for word, p in options.items() if not p.is_flag}
    arguments = [p.name for p in declared.values() if p.param_type_name == "argument"]
    assert [*form.arguments, *filter(None, [form.rest])] == arguments


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("status", {}),
        ("status web", {"service": "web"}),
        ("status -n demo web -w", {"service": "web", "namespace": "demo", "watch": True}),
        ("status --namespace=demo --output json", {"namespace": "demo", "output": "json"}),
        ("status -n --pods", {"namespace": "--pods"}),
    ],
)
def test_plain_words_are_read_as_typer_reads_them(
    words: str, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick: list[dict[str, object]] = []
    monkeypatch.setattr(
        "nanocloud.cli.overview.show", lambda service=None, **more: quick.append({"service": service, **more})
    )
    call = quick_call(words.split())
    assert call is not None
    call()
    app(words.split(), standalone_mode=False)
    defaults = {"service": None, "namespace": None, "pods": False, "output": "table", "watch": False, "curl": False}
    assert [{**defaults, **found} for found in quick] == [{**defaults, **given}] * 2


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("exec web -- true", {"command": ["true"]}),
        ("exec web -- sh -c -- --help", {"command": ["sh", "-c", "--", "--help"]}),
        ("exec -i -t --namespace=demo web -- sh", {"command": ["sh"], "interactive": True, "terminal": True}),
    ],
)
def test_a_command_of_a_container_is_read_as_typer_reads_it(
    words: str, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick: list[dict[str, object]] = []

    def execute(pod: str, command: list[str], **more: object) -> int:
        quick.append({"pod": pod, "command": list(command), **more})
        return 7

    monkeypatch.setattr("nanocloud.cli.remote.execute", execute)
    call = quick_call(words.split())
    assert call is not None
    assert call() == 7
    assert app(words.split(), standalone_mode=False) == 7
    defaults = {"namespace": "default", "interactive": False, "terminal": False, "container": None}
    defaults |= {"as_binding": False, "curl": False, "pod": "web"}
    namespace = "demo" if "demo" in words else "default"
    assert [{**defaults, **found} for found in quick] == [{**defaults, **given, "namespace": namespace}] * 2


@pytest.mark.parametrize(
    "words",
    [
        "",
        "logs web",
        "status --help",
        "status -wn demo",
        "status a b",
        "status -n",
        "status --pods=yes",
        "status -o=json",
        "status -- web",
        "exec web true",
        "exec -- true",
        "exec -it web -- sh",
        "exec web sh -- -c",
    ],
)
def test_other_words_are_left_to_typer(words: str) -> None:
    assert quick_call(words.split()) is None


@pytest.mark.parametrize(
    ("words", "asks"), [("", True), ("--help", True), ("-h", True), ("--help status", False), ("status -h", False)]
)
def test_only_the_program_as_a_whole_is_explained_without_typer(words: str, asks: bool) -> None:
    assert asks_for_help(words.split()) is asks


@pytest.mark.parametrize(
    ("words", "leaves"),
    [
        (["status"], True),
        (["exec", "web", "--", "true"], True),
        (["exec", "web", "true"], False),  # for typer
        (["server"], False),
        (["install", "web"], False),
        (["--help"], False),
        ([], False),
    ],
)
def test_only_plain_commands_that_hold_nothing_end_on_the_spot(words: list[str], *, leaves: bool) -> None:
    assert leaves_nothing(words) is leaves


def ended(words: list[str], stdout: int, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.argv[1:] = {words!r}; from nanocloud.cli.main import run; run()"
    environment = {**os.environ, "KUBECONFIG": "", "NANOCLOUD_STATE_DIR": str(tmp_path), "HOME": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False
    )


def test_what_a_command_printed_arrives_although_it_ends_on_the_spot(tmp_path: Path) -> None:
    (tmp_path / "secure_assets").mkdir()
    (tmp_path / "secure_assets" / "admin.key").touch()
    done = ended(["status", "--curl"], subprocess.PIPE, tmp_path)
    assert (done.returncode, done.stdout[:5], done.stderr) == (0, "curl ", "")
    done = ended(["status", "-o", "rubbish"], subprocess.PIPE, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0][:5]) == (2, "", "error")


def test_output_that_cannot_be_written_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "secure_assets").mkdir()
    (tmp_path / "secure_assets" / "admin.key").touch()
    with Path("/dev/full").open("w") as full:
        done = ended(["status", "--curl"], full.fileno(), tmp_path)
    assert done.returncode != 0
    assert "No space left" in done.stderr


def test_a_user_without_credentials_is_told_how_to_get_some_and_the_status_is_2(tmp_path: Path) -> None:
    done = ended(["status"], subprocess.PIPE, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no node is known to this user" in done.stderr
