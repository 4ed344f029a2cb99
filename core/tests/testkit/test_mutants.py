"""A bug is found where it is: each mutant of a fake fails its suite at the sentences it breaks, and at no other.

The mutants are the classes ``Test...`` of the modules ``mutants_...``, which run under the plugin in a process of their
own; ``breaks`` of each are the sentences.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))  # the modules beside this one

FILES = sorted(HERE.glob("mutants_*.py"))
MUTANTS = {
    name: found for file in FILES for name, found in vars(import_module(file.stem)).items() if name.startswith("Test")
}
_FAILED = re.compile(r'^FAILED \S+::(\w+)::\S+ - contract [^"]*"(.*?)" - ', re.MULTILINE)
_ENDED_BADLY = re.compile(r"^(?:FAILED|ERROR) .*$", re.MULTILINE)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """The sentences that each mutant fails at, as the plugin's summary shows them."""
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-p", "nanocloud.testkit.plugin"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "no:anyio", "--import-mode=importlib", *map(str, FILES)],
        cwd=tmp_path_factory.mktemp("mutants"),
        env=os.environ | {"PYTHONPATH": str(HERE), "COLUMNS": "10000"},  # or the summary would be cut
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found: dict[str, set[str]] = defaultdict(set)
    failures = _FAILED.findall(done.stdout)
    assert len(failures) == len(_ENDED_BADLY.findall(done.stdout)), done.stdout + done.stderr
    for name, sentence in failures:
        found[name].add(sentence)
    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fails_at_the_sentences_it_breaks(name: str, broken: dict[str, set[str]]) -> None:
    assert broken[name] == set(MUTANTS[name].breaks)
