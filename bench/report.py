"""What a measure says: one line of JSON for machines, one row of a table for people."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence


def report(
    name: str, unit: str, *, ours: Sequence[float], peers: Mapping[str, Sequence[float]], floor: Sequence[float]
) -> dict[str, object]:
    """Print the result of one measure; all samples are in ``unit``, less is better."""
    middle = statistics.median(ours)
    fastest = min(peers, key=lambda peer: statistics.median(peers[peer])) if peers else ""
    peer = statistics.median(peers[fastest]) if peers else None
    result: dict[str, object] = {
        "name": name,
        "unit": unit,
        "ours": round(middle, 3),
        "peer": None if peer is None else round(peer, 3),
        "peer_name": fastest,
        "floor": round(statistics.median(floor), 3) if floor else None,
        "ratio": None if peer is None else round(middle / peer, 2),
        "rounds": len(ours),
        "spread": [round(min(ours), 3), round(max(ours), 3)],
    }
    print(json.dumps(result), flush=True)
    _table(name, unit, {"nanocloud": ours, **peers, **({"floor": floor} if floor else {})})
    return result


def _table(name: str, unit: str, samples: Mapping[str, Sequence[float]]) -> None:
    width = max(map(len, samples))
    print(f"{name}, {unit}: median [fastest-slowest]", file=sys.stderr)
    for who, values in samples.items():
        middle, low, high = statistics.median(values), min(values), max(values)
        print(f"  {who:{width}}  {middle:8.2f} [{low:.2f}-{high:.2f}]", file=sys.stderr)
