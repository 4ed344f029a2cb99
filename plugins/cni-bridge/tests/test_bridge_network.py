"""Runs the ``inside_*.py`` files in network and mount namespaces of their own: the machine's network is not touched."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nanocloud.testkit.suites import NetworkProviderSuite

pytestmark = pytest.mark.root

HERE = Path(__file__).parent
INSIDE = (HERE / "inside_network.py", HERE / "inside_crashes.py", HERE / "inside_conformance.py")
TIMEOUT_SECONDS = 300
CASES = [
    node.name
    for file in INSIDE
    for node in ast.parse(file.read_text()).body
    if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef) and node.name.startswith("test_")
] + [name for name in dir(NetworkProviderSuite) if name.startswith("test_")]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each case: empty for a pass, else the report."""
    folder = tmp_path_factory.mktemp("inside")
    report = folder / "report.xml"
    plugins = ["-p", "no:cacheprovider", "-p", "inside_world", "-p", "nanocloud.testkit.plugin"]
    pytest_inside = [sys.executable, "-m", "pytest", "-q", *plugins, *map(str, INSIDE)]
    outer = str(Path("/proc/self/ns/net").stat().st_ino)
    done = subprocess.run(
        ["unshare", "--net", "--mount", "--", *pytest_inside, f"--junitxml={report}", f"--basetemp={folder / 'tmp'}"],
        cwd=HERE, env=os.environ | {"OUTER_NETNS": outer, "PYTHONPATH": str(HERE)},
        capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
    )  # fmt: skip
    if not report.exists():
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = case.attrib["name"].split("[")[0]
        found[name] = found.get(name, "") + "\n".join(
            child.text or "" for child in case if child.tag in ("failure", "error", "skipped")
        )
    return found


@pytest.mark.parametrize("case", CASES)
def test_inside_its_own_network(case: str, outcomes: dict[str, str]) -> None:
    if report := outcomes.get(case, "it did not run"):
        pytest.fail(report, pytrace=False)
