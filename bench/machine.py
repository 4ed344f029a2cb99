"""The facts of a run: what the numbers of a file of results were measured on. No names of hosts, users or paths."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).parent
_VERSIONS = {
    "podman": ("podman", "--version"),
    "docker": ("/usr/sbin/dockerd", "--version"),
    "containerd": ("containerd", "--version"),
    "crun": ("crun", "--version"),
    "runc": ("runc", "--version"),
    "conmon": ("conmon", "--version"),
    "etcd": ("etcd", "--version"),
    "skopeo": ("skopeo", "--version"),
    "umoci": ("umoci", "--version"),
    "docker-registry": ("docker-registry", "--version"),
    "kubectl": ("kubectl", "version", "--client"),
}
_NUMBER = re.compile(r"\d+\.\d+[\w.+~-]*")


def facts() -> dict[str, object]:
    """Keys: date (UTC), commit, kernel, processor, cores, memory_gib, file_system, system, python, versions, load."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "kernel": platform.release(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "file_system": _said("stat", "--file-system", "--format=%T", str(HERE)),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
        "versions": {name: found for name, command in _VERSIONS.items() if (found := _version(*command))},
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def _commit() -> str:
    """With a plus where the tree is not what the commit says; results themselves do not count."""
    changed = _said("git", "-C", str(HERE), "status", "--porcelain", "--untracked-files=no")
    others = [line for line in changed.splitlines() if "bench/results/" not in line]
    return (_said("git", "-C", str(HERE), "rev-parse", "--short=10", "HEAD") or "unknown") + "+" * bool(others)


def _processor() -> str:
    names = re.findall(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def _version(*command: str) -> str:
    found = _NUMBER.search(_said(*command))
    return found[0] if found else ""


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
