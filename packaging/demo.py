"""The demo: a node of its own under ``.demo/``, and on it WordPress with its database over TLS, by one command.

``up`` does what is not done yet, so it can be run again and again; ``down`` removes every trace.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / ".demo"
NANOCLOUD = Path(sys.executable).with_name("nanocloud")
PID_FILE, LOG, KUBECONFIG = DEMO / "server.pid", DEMO / "server.log", DEMO / "kubeconfig"
# Sockets below the run folder must fit into 108 bytes, so it cannot lie below a long path.
ENVIRONMENT = {
    **os.environ,
    "NANOCLOUD_STATE_DIR": str(DEMO / "state"),
    "NANOCLOUD_RUN_DIR": "/run/nanocloud-demo",
}
APPLICATION, DATABASE = "wordpress", "mariadb"
START_SECONDS, ANSWER_SECONDS = 30.0, 60.0


def up() -> None:
    DEMO.mkdir(mode=0o700, exist_ok=True)
    if not server_runs():
        say("preparing the node")
        run("setup", "--no-token", quiet=True)
        start_server()
    say("building images from Debian packages (the first time takes a few minutes)")
    run("dockyard", "build", DATABASE, APPLICATION)
    say(f"installing {APPLICATION} with {DATABASE}")
    run("install", APPLICATION, "--option", f"database={DATABASE}", "--option", "database_transport=tls")
    if not KUBECONFIG.exists():
        script = run("config", quiet=True)
        subprocess.run(
            ["/bin/sh"],
            input=script,
            text=True,
            check=True,
            capture_output=True,
            env=ENVIRONMENT | {"KUBECONFIG": str(KUBECONFIG)},
        )
    print()
    run("status")
    url = answering_url()
    shown = NANOCLOUD.relative_to(Path.cwd()) if NANOCLOUD.is_relative_to(Path.cwd()) else NANOCLOUD
    config = KUBECONFIG.relative_to(Path.cwd()) if KUBECONFIG.is_relative_to(Path.cwd()) else KUBECONFIG
    tips = {
        f"export KUBECONFIG={config}": "for kubectl",
        "kubectl get bundles,pods -A": "services and their pods",
        f"{shown} status {APPLICATION}": "options, bindings, conditions, events",
        f"{shown} exec {APPLICATION} -- printenv WORDPRESS_ADMIN_PASSWORD": f"log in as admin: {url}wp-login.php",
        f"{shown} exec -it {DATABASE} -- mariadb": "a client in the database's container",
        f"{shown} uninstall {APPLICATION} --dry-run": "what would go, and what it takes along",
        f"{shown} dockyard list": "what else can be installed",
    }
    width = max(map(len, tips))
    print(f"\n{APPLICATION} answers at {url}\n\nTry next:")
    for command, meaning in tips.items():
        print(f"  {command:{width}}  {meaning}")
    print("\nmake demo-down removes everything again.")


def down() -> None:
    pid = server_runs()
    if pid:
        os.kill(pid, signal.SIGTERM)
        wait_for_end(pid)
    if DEMO.exists() or Path(ENVIRONMENT["NANOCLOUD_RUN_DIR"]).exists():
        run("reset", "--yes")
        shutil.rmtree(DEMO, ignore_errors=True)
    say("nothing of the demo is left")


def server_runs() -> int:
    """The server's process id, 0 when it does not run."""
    try:
        pid = int(PID_FILE.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return 0
    return pid if b"nanocloud" in command and b"server" in command else 0


def start_server() -> None:
    with LOG.open("ab") as log:
        process = subprocess.Popen(
            [NANOCLOUD, "server"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=ENVIRONMENT,
            start_new_session=True,
        )
    PID_FILE.write_text(str(process.pid))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            fail(f"the server ended: {last_line(LOG)}")
        answer = subprocess.run([NANOCLOUD, "status"], env=ENVIRONMENT, capture_output=True, check=False)
        if answer.returncode == 0:
            return
        time.sleep(0.2)
    fail(f"the server does not answer; see {LOG}")


def wait_for_end(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        import select

        if not select.select([descriptor], [], [], START_SECONDS)[0]:
            fail(f"the server (process {pid}) does not end")
    finally:
        os.close(descriptor)


def answering_url() -> str:
    """The application's address, asked for real."""
    url = "http://127.0.0.1:8080/"
    deadline, problem = time.monotonic() + ANSWER_SECONDS, ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            with opener.open(url, timeout=10) as answer:
                page = answer.read().decode(errors="replace")
                if answer.status == 200 and "WordPress" in page:
                    return url
                problem = f"status {answer.status}, and no WordPress in the page"
        except (urllib.error.URLError, OSError) as exc:
            problem = str(exc)
        time.sleep(0.5)
    fail(f"{url} does not answer: {problem}")
    raise AssertionError


def run(*words: str, quiet: bool = False) -> str:
    """A nanocloud command; its output goes to the terminal unless ``quiet``, which returns it."""
    done = subprocess.run(
        [NANOCLOUD, *words], env=ENVIRONMENT, check=False, text=True, stdout=subprocess.PIPE if quiet else None
    )
    if done.returncode != 0:
        fail(f"nanocloud {' '.join(words)} failed")
    return done.stdout or ""


def last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def say(text: str) -> None:
    print(f"==> {text}", flush=True)


def fail(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    if os.geteuid() != 0:
        fail("the demo runs real containers and needs root: sudo make demo")
    {"up": up, "down": down}[sys.argv[1]]()
