"""Plugins that do the worst at import and in hooks, as installed packages: all else goes on, and says which it was."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from nanocloud.config import NodeConfig
from nanocloud.errors import PluginError
from nanocloud.plugins import PluginState
from nanocloud.plugins.guard import FaultError, guarded, raised
from nanocloud.plugins.scrape import PluginMetrics
from nanocloud.providers.runtime import RuntimeProvider
from nanocloud.testkit.plugins import PluginSite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nanocloud.plugins import PluginHost, PluginInfo

PATIENCE = 1.0
"""Seconds. What hangs takes as long; what does not is far from it, even on a busy machine."""
CONFIG = NodeConfig()
GOOD = """\
from nanocloud import hookimpl
from nanocloud.testkit import FakeRuntime

NANOCLOUD_CONTRACTS = {"runtime": "1.0", "extension": "1.0"}

"""
RUNTIME = """
@hookimpl
def nanocloud_runtime_providers(config):
    return [FakeRuntime()]
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginSite]:
    monkeypatch.syspath_prepend(tmp_path)
    site = PluginSite(tmp_path)
    yield site
    site.forget()


def beside_a_good_one(site: PluginSite, source: str) -> tuple[PluginHost, PluginInfo]:
    """The host and the record of a plugin of this source, once a runtime was chosen; there is one of a good plugin."""
    site.install("acme-bad", "bad", source)
    site.install("acme-good", "good", GOOD + RUNTIME)
    host = site.host(patience_seconds=PATIENCE)
    assert host.select("runtime", RuntimeProvider, CONFIG).name == "fake"
    bad, good = host.plugins
    assert (good.name, good.state) == ("good", PluginState.ACTIVE)
    return host, bad


# ---- imports ---------------------------------------------------------------------------------------------------------

NEVER_ENDS = {
    "sleeps": "import time\ntime.sleep(3600)",
    "loops": "while True: pass",
    "catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "holds the interpreter": "import ctypes\nctypes.PyDLL(None).sleep(3600)",
    "closes its descriptors": "import os, time\nos.closerange(3, 1024)\ntime.sleep(3600)",
}


@pytest.mark.parametrize("source", NEVER_ENDS.values(), ids=NEVER_ENDS)
def test_an_import_that_does_not_end_breaks_its_plugin_alone(site: PluginSite, source: str) -> None:
    _, bad = beside_a_good_one(site, source)
    assert (bad.state, bad.reason) == (PluginState.BROKEN, "import did not end within 1 s")
    assert site.modules[0] not in sys.modules


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import os\nos._exit(3)", "import ended the process with status 3"),
        ("import os\nos._exit(0)", "import ended the process with status 0"),
        ("import ctypes\nctypes.string_at(0)", "import ended the process by SIGSEGV"),
        ("import os\nos.abort()", "import ended the process by SIGABRT"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "import ended the process by SIGKILL"),
        ("import os\nos.kill(os.getpid(), 40)", "import ended the process by signal 40"),
        ("import sys\nsys.exit(3)", "import raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "import raised KeyboardInterrupt"),
        ("class Odd(BaseException): ...\nraise Odd('so')", "import raised Odd: so"),
        ("raise ValueError('two\\nlines')", "import raised ValueError: two lines"),
        (
            "def deep(): deep()\ndeep()",
            "import raised RecursionError: maximum recursion depth exceeded",
        ),
        (
            "class Odd(Exception):\n    def __str__(self): raise ValueError\nraise Odd",
            "import raised Odd: (its text cannot be made)",
        ),
        (
            "class Odd(Exception):\n    def __str__(self): raise SystemExit\nraise Odd",
            "import raised Odd: (its text cannot be made)",
        ),
        ("import os\nif not os.fork(): raise SystemExit", "import forked the process"),
    ],
)
def test_an_import_that_ends_badly_breaks_its_plugin_alone(site: PluginSite, source: str, reason: str) -> None:
    _, bad = beside_a_good_one(site, source)
    assert (bad.state, bad.reason) == (PluginState.BROKEN, reason)
    assert site.modules[0] not in sys.modules


def test_each_of_several_bad_imports_is_found(site: PluginSite) -> None:
    for name, source in {"a": "import os\nos._exit(1)", "b": "1 / 0", "d": "import os\nos.abort()"}.items():
        site.install(f"acme-{name}", name, source)
    for name in ("c", "e"):
        site.install(f"acme-{name}", name, GOOD)
    states = {info.name: (info.state.value, info.reason) for info in site.host().plugins}
    assert states == {
        "a": ("broken", "import ended the process with status 1"),
        "b": ("broken", "import raised ZeroDivisionError: division by zero"),
        "c": ("active", ""),
        "d": ("broken", "import ended the process by SIGABRT"),
        "e": ("active", ""),
    }


def test_a_role_that_needs_what_hangs_says_so(site: PluginSite) -> None:
    site.install("acme-slow", "slow", "import time\ntime.sleep(3600)")
    with pytest.raises(PluginError) as caught:
        site.host(patience_seconds=PATIENCE).select("runtime", RuntimeProvider, CONFIG)
    assert str(caught.value) == (
        "no runtime provider is installed [slow (acme-slow) is broken: import did not end within 1 s]"
    )


def test_what_a_hanging_import_started_goes_with_it(site: PluginSite, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    site.install(
        "acme-slow",
        "slow",
        "import subprocess, time\nfrom pathlib import Path\n"
        "child = subprocess.Popen(['sleep', '3600'])\n"
        f"Path({str(file)!r}).write_text(str(child.pid))\ntime.sleep(3600)",
    )
    site.host(patience_seconds=PATIENCE)
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        ended = select.poll()
        ended.register(os.pidfd_open(int(file.read_text())), select.POLLIN)
        assert ended.poll(10_000)


@pytest.mark.parametrize(
    "hang",
    ["time.sleep(3600)", "while True: pass", "try: time.sleep(3600)\nexcept BaseException: pass\ntime.sleep(3600)"],
)
def test_an_import_that_hangs_only_the_second_time_is_interrupted(site: PluginSite, hang: str) -> None:
    """The first time is in a child process, which finds nothing wrong."""
    source = f"import os, time\nif os.getpid() == {os.getpid()}:\n{indent(hang, '    ')}\n"
    _, bad = beside_a_good_one(site, source)
    assert (bad.state, bad.reason) == (PluginState.BROKEN, "import did not end within 1 s")
    assert site.modules[0] not in sys.modules


@pytest.mark.parametrize("text", ["garbage\\n", "7\\n", "x" * 4096])
def test_an_import_that_writes_into_every_file_breaks_its_plugin_alone(site: PluginSite, text: str) -> None:
    known = {int(name) for name in os.listdir("/proc/self/fd")}  # pytest's, which are spared
    source = f"""\
import contextlib, os
while os.getpid() != {os.getpid()}:
    for file in set(range(3, 64)) - {known}:
        with contextlib.suppress(OSError):
            os.write(file, b"{text}")
"""
    _, bad = beside_a_good_one(site, source)
    assert (bad.state, bad.reason) == (PluginState.BROKEN, "import wrote into files that are not its own")


def test_what_a_plugin_forks_does_not_go_on_as_the_node(site: PluginSite) -> None:
    """Another process would come out of the host, and be a second node."""
    hook = f"@hookimpl\ndef {HOOK}(config):\n"
    site.install("acme-import", "at-import", f"import os\nos.fork()\n{GOOD}{hook}    return []\n")
    site.install("acme-hook", "in-hook", f"import os\n{GOOD}{hook}    os.fork()\n    return []\n")
    reasons = {row["name"]: row["reason"] for row in listed(site)}
    assert reasons["at-import"] == "import forked the process"
    assert reasons["in-hook"] == f"{HOOK} forked the process"


def test_what_is_imported_already_is_not_tried_in_a_child(site: PluginSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("acme-good", "good", GOOD + RUNTIME)
    site.host()
    monkeypatch.delattr(os, "fork")
    assert [info.state for info in site.host().plugins] == [PluginState.ACTIVE]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def __getattr__(name): raise SystemExit(4)", "its module raised SystemExit: 4"),
        ("def __getattr__(name):\n    while True: pass", "its module did not end within 1 s"),
        ("def __dir__(): raise BaseException", "its module raised BaseException"),
        (
            "from collections import UserDict\nclass Odd(UserDict):\n    def items(self): raise SystemExit\n"
            "NANOCLOUD_CONTRACTS = Odd()",
            "its module raised SystemExit",
        ),
    ],
)
def test_a_module_that_misbehaves_when_it_is_looked_at_breaks_its_plugin_alone(
    site: PluginSite, source: str, reason: str
) -> None:
    _, bad = beside_a_good_one(site, GOOD + source)
    assert (bad.state, bad.reason) == (PluginState.BROKEN, reason)


# ---- hooks -----------------------------------------------------------------------------------------------------------

HOOK = "nanocloud_runtime_providers"
UNNAMED = """\
class Odd(FakeRuntime):
    @property
    def name(self): {body}
return [Odd()]"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import time; time.sleep(3600)", f"{HOOK} did not end within 1 s"),
        (
            "while True:\n    try: [].pop()\n    except Exception: pass",
            f"{HOOK} did not end within 1 s",
        ),
        ("import sys; sys.exit('bye')", f"{HOOK} raised SystemExit: bye"),
        ("raise KeyboardInterrupt", f"{HOOK} raised KeyboardInterrupt"),
        ("raise MemoryError", f"{HOOK} raised MemoryError"),
        (
            "class Odd(Exception):\n    def __str__(self): raise SystemExit\nraise Odd",
            f"{HOOK} raised Odd: (its text cannot be made)",
        ),
        (
            "class Odd(Exception):\n    def __str__(self):\n        while True: pass\nraise Odd",
            f"{HOOK} did not end within 1 s",
        ),
        ("raise BaseException('so')", f"{HOOK} raised BaseException: so"),
        ("def deep(): deep()\ndeep()", f"{HOOK} raised RecursionError: maximum recursion depth exceeded"),
        ("return 7", f"{HOOK} raised TypeError: 'int' object is not iterable"),
        ("yield FakeRuntime()\nraise OSError('midway')", f"{HOOK} raised OSError: midway"),
        ("while True: yield config", f"{HOOK} raised PluginError: more than 10000 answers"),
        ("return [None]", f"{HOOK} gave NoneType, which is no RuntimeProvider"),
        (UNNAMED.format(body="raise OSError('no name')"), f"{HOOK} gave Odd, whose name raised OSError: no name"),
        (UNNAMED.format(body="raise SystemExit"), f"{HOOK} gave Odd, whose name raised SystemExit"),
        (UNNAMED.format(body="import time; time.sleep(3600)"), f"{HOOK} gave Odd, whose name did not end within 1 s"),
        (UNNAMED.format(body="return 7"), f"{HOOK} gave Odd, which has no name"),
    ],
)
def test_a_hook_that_misbehaves_breaks_its_plugin_alone(site: PluginSite, body: str, reason: str) -> None:
    _, bad = beside_a_good_one(site, f"{GOOD}@hookimpl\ndef {HOOK}(config):\n{indent(body, '    ')}\n")
    assert (bad.state, bad.reason) == (PluginState.BROKEN, reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import os; os._exit(0)", f"{HOOK} ended the process with status 0"),
        ("import ctypes; ctypes.string_at(0)", f"{HOOK} ended the process by SIGSEGV"),
        ("import ctypes; ctypes.PyDLL(None).sleep(3600)", f"{HOOK} did not end within 1 s"),
    ],
)
def test_a_hook_that_would_take_the_node_with_it_is_found_before(site: PluginSite, body: str, reason: str) -> None:
    bad = site.install("acme-bad", "bad", f"{GOOD}@hookimpl\ndef {HOOK}(config):\n    {body}\n")
    site.install("acme-good", "good", GOOD + RUNTIME)
    host = site.host(patience_seconds=PATIENCE, config=CONFIG)
    assert host.select("runtime", RuntimeProvider, CONFIG).name == "fake"
    assert [(info.name, info.state.value, info.reason) for info in host.plugins] == [
        ("bad", "broken", reason),
        ("good", "active", ""),
    ]
    assert bad not in sys.modules


def test_the_list_tells_of_a_hook_that_ends_the_process(site: PluginSite) -> None:
    site.install("acme-bad", "bad", f"import os\n{GOOD}@hookimpl\ndef {HOOK}(config):\n    os._exit(3)\n")
    (bad,) = [row for row in listed(site) if row["name"] == "bad"]
    assert bad["reason"] == f"{HOOK} ended the process with status 3"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("RELEASE.wait()", "did not end within 1 s"),
        ("raise SystemExit", "raised SystemExit"),
        ("return ['# no metric']", "gave str, which is no Metric"),
        (
            "odd = Metric('a', '', 'gauge'); odd.samples = 7; return [odd]",
            "gave what cannot be shown: rendering raised ",
        ),
    ],
)
async def test_metrics_of_a_plugin_that_misbehaves_are_left_out(site: PluginSite, body: str, reason: str) -> None:
    preamble = f"from threading import Event\nfrom prometheus_client import Metric\n{GOOD}RELEASE = Event()\n"
    hook = "@hookimpl\ndef nanocloud_metrics(context):\n    "
    good = "from prometheus_client.core import GaugeMetricFamily\n    return [GaugeMetricFamily('acme', '', value=7)]"
    module = site.install("acme-bad", "bad", f"{preamble}{hook}{body}\n")
    site.install("acme-good", "good", f"{preamble}{hook}{good}\n")
    host = site.host()
    scrape = PluginMetrics(host, context=None, patience_seconds=PATIENCE)  # type: ignore[arg-type]
    with capture_logs():
        for _ in range(3):
            assert b"\nacme 7.0\n" in await scrape()
    assert {info.name: info.state.value for info in host.plugins} == {"bad": "broken", "good": "active"}
    assert host.plugins[0].reason.startswith(f"nanocloud_metrics {reason}")
    sys.modules[module].RELEASE.set()


# ---- the guard itself ------------------------------------------------------------------------------------------------


def test_the_users_interrupt_is_not_taken_for_a_plugins_fault() -> None:
    def interrupted() -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        guarded(interrupted, seconds=PATIENCE)


def test_an_alarm_that_somebody_waits_for_is_given_back() -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGALRM, mine)
    signal.setitimer(signal.ITIMER_REAL, 10_000, 5)
    try:
        assert guarded(lambda: 7, seconds=PATIENCE) == 7
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert 9_000 < left <= 10_000
        assert interval == 5
        assert signal.getsignal(signal.SIGALRM) is mine
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_in_a_thread_the_guard_still_catches() -> None:
    caught: list[str] = []

    def run() -> None:
        try:
            guarded(sys.exit, seconds=PATIENCE)
        except FaultError as fault:
            caught.append(str(fault))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert caught == ["raised SystemExit"]


def test_a_long_text_of_an_exception_is_cut() -> None:
    assert raised(ValueError("x" * 10_000)) == f"raised ValueError: {'x' * 500}..."


# ---- standard output -------------------------------------------------------------------------------------------------

PRINTS = """
import os, subprocess
def say(where):
    print("print", where)
    os.write(1, b"write\\n")
    subprocess.run(["echo", "echo"])
say("import")
"""


def cli(site: PluginSite, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as users run it, with the plugins of the site beside those of this environment."""
    names = ("PATH", "HOME")
    known = {name: os.environ[name] for name in names if name in os.environ}
    command = [sys.executable, "-c", "from nanocloud.cli.main import run; run()", *words]
    settings = {"PYTHONPATH": str(site.folder), "NANOCLOUD_STATE_DIR": str(site.folder / "state")}
    return subprocess.run(
        command, env=known | settings | environment, capture_output=True, text=True, check=False, timeout=60
    )


def listed(site: PluginSite) -> list[dict[str, Any]]:
    done = cli(site, "plugin", "list", "-o", "json")
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_prints_of_a_plugin_do_not_reach_the_output_that_a_program_reads(site: PluginSite) -> None:
    hook = "@hookimpl\ndef nanocloud_runtime_providers(config):\n    say('hook')\n    return []\n"
    site.install("acme-loud", "loud", GOOD + PRINTS + hook)
    done = cli(site, "plugin", "list", "-o", "json")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    assert {row["name"]: row["state"] for row in rows}["loud"] == "active"
    assert done.stderr.split().count("print") == 2
    assert done.stderr.split().count("echo") == 2


DEEDS = ("sys.stdout.close()", "sys.stdout = None", "sys.stdout = io.TextIOWrapper(sys.stdout.buffer)", "os.close(1)")


def test_what_plugins_do_to_standard_output_is_undone(site: PluginSite) -> None:
    for number, deed in enumerate(DEEDS):
        hook = f"@hookimpl\ndef {HOOK}(config):\n"
        site.install(f"acme-{number}", f"import-{number}", f"import io, os, sys\n{GOOD}{deed}\n{hook}    return []\n")
        site.install(
            f"acme-hook-{number}", f"hook-{number}", f"import io, os, sys\n{GOOD}{hook}    {deed}\n    return []\n"
        )
    assert {f"{at}-{number}" for at in ("import", "hook") for number in range(len(DEEDS))} <= {
        row["name"] for row in listed(site)
    }


def test_the_list_does_not_wait_for_what_plugins_began(site: PluginSite) -> None:
    source = "import atexit, os, threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    site.install("acme-bad", "bad", f"{source}atexit.register(os._exit, 9)\n{GOOD}")
    assert "bad" in [row["name"] for row in listed(site)]


HELLO = """
from nanocloud.extension import CommandGroup

def hello():
    print("hello")

def load():
    import typer
    app = typer.Typer()
    app.command()(hello)
    return app

@hookimpl
def nanocloud_commands():
    return [CommandGroup(name="hello", help="Says hello.", load=load)]
"""


@pytest.mark.parametrize("source", ["import os\nos._exit(9)", "import ctypes\nctypes.string_at(0)", "raise SystemExit"])
def test_help_and_commands_go_on_beside_a_plugin_that_ends_the_process(site: PluginSite, source: str) -> None:
    site.install("acme-bad", "bad", source)
    site.install("acme-good", "good", GOOD + HELLO)
    assert "Says hello." in cli(site, "--help").stdout
    done = cli(site, "hello")
    assert (done.stdout, done.returncode) == ("hello\n", 0), done.stderr


def test_commands_of_one_name_are_an_error_that_names_both_distributions(site: PluginSite) -> None:
    site.install("acme-one", "one", GOOD + HELLO)
    site.install("acme-two", "two", GOOD + HELLO)
    done = cli(site, "hello")
    assert "'hello' is offered by acme-one and acme-two" in done.stderr
    assert done.returncode == 2
    assert "Says hello." in cli(site, "--help", NANOCLOUD_DISABLE_PLUGINS="two").stdout
    assert cli(site, "hello", NANOCLOUD_ALLOW_PLUGINS="two").stdout == "hello\n"
    assert "No such command" in cli(site, "hello", NANOCLOUD_ALLOW_PLUGINS="core").stderr


@pytest.mark.parametrize(
    ("load", "told"),
    [
        ("raise ValueError('\\x1b[2J')", "cannot be loaded: raised ValueError: ?[2J"),
        ("raise SystemExit", "cannot be loaded: raised SystemExit"),
        ("return None", "are no typer.Typer but NoneType"),
    ],
)
def test_commands_that_cannot_be_loaded_are_told_with_their_plugin(site: PluginSite, load: str, told: str) -> None:
    site.install("acme-one", "one", GOOD + HELLO.replace("import typer", load))
    done = cli(site, "hello")
    assert done.stderr == (
        f"error: the commands 'hello' of the plugin 'one' {told}\n  see: nanocloud plugin show one\n"
    )
    assert done.returncode == 2


def test_a_line_of_help_that_is_none_leaves_the_rest(site: PluginSite) -> None:
    odd = "class Odd:\n    def __str__(self): raise SystemExit\n"
    site.install("acme-one", "one", GOOD + odd + HELLO.replace('"Says hello."', "Odd()"))
    lines = cli(site, "--help").stdout.splitlines()
    assert lines[-1].strip() == "hello"
    assert "  plugin " in "".join(line[:9] for line in lines)
