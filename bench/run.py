"""Run the measures that the words name, or all: every module here that has a function ``main``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
MEASURES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("run", "report"))


def run(names: list[str]) -> int:
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        print(f"no measure {unknown[0]!r}; there are {', '.join(MEASURES)}", file=sys.stderr)
        return 2
    sys.path.insert(0, str(HERE))
    for name in names or MEASURES:
        importlib.import_module(name).main()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
