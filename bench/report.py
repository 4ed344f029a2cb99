"""What a measure says: one line of JSON for machines, a table for people, and a line in the file of results.

A line of results, all numbers in ``unit``, medians unless said:

    {"name": "pull.seconds", "unit": "s", "less_is_better": true,
     "ours": 1.9, "peer": 3.9, "peer_name": "podman pull", "floor": 1.7, "floor_name": "curl and tar",
     "ratio": 0.49, "floor_ratio": 1.12, "rounds": 5, "spread": [1.8, 2.2],
     "peers": {"podman pull": 3.9, "docker pull": 4.2}, "others": {}, "at": "2026-11-26T03:00:00Z", "load": 0.7}

``ratio`` is always ours over the best of the peers, ``floor_ratio`` ours over the floor: below one is better where
``less_is_better``, above one where not. ``spread`` is our smallest and largest round; ``load`` is the load of the
machine's last minute when the measure ended. Files of results are written by ``recording``; ``machine.py`` says what
stands in their first line.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

_files: list[Path] = []
"""Where results go besides standard output; the last one counts."""


def report(
    name: str,
    unit: str,
    *,
    ours: Sequence[float],
    peers: Mapping[str, Sequence[float]] | None = None,
    floor: Sequence[float] = (),
    floor_name: str = "",
    others: Mapping[str, Sequence[float]] | None = None,
    less_is_better: bool = True,
) -> dict[str, object]:
    """Print the result of one measure, and keep it; all samples are in ``unit``, one a round.

    ``others`` are told beside it and compared with nobody: another floor, a part of ours.
    """
    middles = {peer: statistics.median(samples) for peer, samples in (peers or {}).items()}
    best = (min if less_is_better else max)(middles, key=lambda peer: middles[peer], default="")
    result: dict[str, object] = {
        "name": name,
        "unit": unit,
        "less_is_better": less_is_better,
        "ours": _short(statistics.median(ours)),
        "peer": _short(middles[best]) if best else None,
        "peer_name": best,
        "floor": _short(statistics.median(floor)) if floor else None,
        "floor_name": floor_name,
        "ratio": _ratio(ours, (peers or {}).get(best, ())),
        "floor_ratio": _ratio(ours, floor),
        "rounds": len(ours),
        "spread": [_short(min(ours)), _short(max(ours))],
        "peers": {peer: _short(middle) for peer, middle in middles.items()},
        "others": {other: _short(statistics.median(samples)) for other, samples in (others or {}).items()},
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load": round(os.getloadavg()[0], 1),
    }
    _keep(result)
    floors = {floor_name or "floor": floor} if floor else {}
    _table(result, {"nanocloud": ours, **(peers or {}), **floors, **(others or {})})
    return result


@contextmanager
def recording(folder: Path, facts: Mapping[str, object]) -> Iterator[Path]:
    """Results are appended to ``<folder>/<date>-<commit>.jsonl``, below a line with the facts of this run."""
    folder.mkdir(exist_ok=True)
    file = folder / f"{facts['date']}-{facts['commit']}.jsonl"
    _append(file, {"machine": facts})
    _files.append(file)
    try:
        yield file
    finally:
        _files.pop()


def _keep(result: Mapping[str, object]) -> None:
    print(json.dumps(result), flush=True)
    if _files:
        _append(_files[-1], result)


def _append(file: Path, line: Mapping[str, object]) -> None:
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")


def _short(number: float) -> float:
    return float(f"{number:.4g}") if abs(number) < 1000 else round(number)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    below = statistics.median(theirs) if theirs else 0
    return float(f"{statistics.median(ours) / below:.3g}") if below else None


def _table(result: Mapping[str, object], samples: Mapping[str, Sequence[float]]) -> None:
    width = max(map(len, samples))
    better = "less" if result["less_is_better"] else "more"
    print(f"{result['name']}, {result['unit']}, {better} is better: median [smallest-largest]", file=sys.stderr)
    for who, values in samples.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"  {who:{width}}  {middle:10.2f} [{low:.2f}-{high:.2f}]", file=sys.stderr)
