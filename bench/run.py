"""Run the measures that the words name (``run.py pull,exec``), or all: every module here that has a ``main``."""

from __future__ import annotations

import importlib
import re
import signal
import sys
from pathlib import Path

from machine import facts
from report import recording

HERE = Path(__file__).parent
MEASURES = sorted(
    path.stem
    for path in HERE.glob("*.py")
    if path.stem != "run" and re.search(r"^def main\(\) ->", path.read_text(), re.MULTILINE)
)


def run(words: list[str]) -> int:
    names = [name for word in words for name in word.split(",") if name]
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        print(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))  # through what every measure cleans up
    with recording(HERE / "results", facts()) as file:
        for name in names or MEASURES:
            importlib.import_module(name).main()
    print(f"results are in {file.relative_to(HERE.parent)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
