"""Draws the newest result of every measure into ``docs/numbers.md``, between its two marks; the rest is by hand.

Run as a program it writes the page; a test holds the page against the results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "numbers.md", ROOT / "bench" / "results"
BEGIN, END = "<!-- results: make bench-page -->", "<!-- end of results -->"
_BAR = 30
_EIGHTHS = " ▏▎▍▌▋▊▉"

SECTIONS = {
    "pod": "Containers",
    "exec": "Commands in a container",
    "install": "An application with its database",
    "network": "A pod's network",
    "pull": "Images",
    "keyspace": "The keyspace",
    "api": "The API",
    "idle": "A node that has nothing to do",
    "cli": "The command line",
    "growth": "Growth",
}
"""What the first word of a measure's name stands for, in the order of the page."""

MEANINGS = {
    "pod.start": "From the request until the image's program runs and has reached its gateway",
    "pod.end": "From the request to stop until the process has ended",
    "pod.stop": "From the request to stop until network and mounts are given back",
    "pod.teardown": "From the request to remove a running container until nothing is left of it",
    "pod.start-50": "Fifty at once, asked for by ten clients, until all run",
    "pod.teardown-50": "Fifty that run, asked to go by ten clients, until all are gone",
    "exec.api": "`true` by the API, until its exit status is known",
    "exec.command": "`true` by the command line",
    "install.seconds": "WordPress with its MariaDB, images present, until it is ready",
    "pull.seconds": "Five layers, 240 MB in all, from a registry on loopback until they are unpacked",
    "pull.rate": "The same image, as a rate of unpacked bytes",
    "pull.node_memory": "Peak memory meanwhile, of a process with the node's image provider alone",
    "api.get": "GET of one small object a second, over TLS, 16 connections, the server on one core",
    "api.get_cost": "What one GET costs the server",
    "api.list": "LIST of 500 objects of 700 bytes a second",
    "api.list_cost": "What one LIST of 500 costs the server",
    "api.patch": "PATCH a second, each durable; the gateway's is a compare and put",
    "api.patch_cost": "What one PATCH costs the server",
    "api.watch-1000": "From a PATCH until the last of 1,000 watches over TLS has it",
    "api.watch-1000_cost": "What telling one watch of a change costs the server, with 1,000 of them",
    "keyspace.put_1": "Puts of 1 KiB a second by one writer, each durable before the next, followed by a watcher",
    "keyspace.put_64": "Puts of 1 KiB a second by 64 writers side by side, followed by a watcher",
    "keyspace.transact_64": "Compare and put with a lease, by 64 writers",
    "keyspace.get": "Reads of single keys a second: ours a call in the process, etcd's over gRPC, 64 at a time",
    "keyspace.put_1_p50": "What one put of a single writer takes, median",
    "keyspace.put_1_p99": "What one put of a single writer takes, 99th percentile",
    "keyspace.put_64_p50": "What one put takes beside 63 others, median",
    "keyspace.put_64_p99": "What one put takes beside 63 others, 99th percentile",
    "keyspace.watch_p50": "From the call of a put to its event at a watcher, median",
    "keyspace.watch_p99": "From the call of a put to its event at a watcher, 99th percentile",
    "keyspace.100k_start": "With 100,000 keys of 1 KiB: from the start of the process to its first answer",
    "keyspace.100k_memory": "Memory of the process with 100,000 keys of 1 KiB; etcd maps its file, so its pages count",
    "network.attach": "A namespace, an address on a bridge and a port of the host that leads there",
    "network.detach": "Until nothing is left of them",
    "pull.child_memory": "Peak memory of the largest process that unpacks a layer",
    "idle.memory-0": "Memory of all that the node keeps running, without containers",
    "idle.memory-20": "Memory of all that the node keeps running, with 20 containers, whose own processes do not count",
    "idle.memory-each": "What each container adds to the memory, besides its own processes",
    "idle.cpu-0": "Processor time of all that the node keeps running, without containers",
    "idle.cpu-20": "Processor time with 20 containers that are asked whether they are ready; the peers' are not",
    "idle.wakes-0": "How often a thread wakes, without containers",
    "idle.wakes-20": "How often a thread wakes, with 20 containers",
    "cli.status": "`nanocloud status` with five services, beside five containers or pods",
    "cli.help": "`--help` of each program",
}
"""What a measure says, for those whose name does not."""

_GROWTH = {
    "install": "processor time of the server to install one",
    "memory": "memory of the server for each",
    "one-more": "from the request for one more until it is ready",
    "remove": "from the request to remove one until it is gone",
    "list": "`GET` of all, for each",
    "plan": "a dry run of one more",
    "status": "the command `nanocloud status`",
    "start": "until a server that starts after the machine did has all running",
}
for size in (10, 100):
    MEANINGS |= {
        f"growth.real-install-{size}": f"{size} services in containers: processor time of the node to install one",
        f"growth.real-memory-{size}": f"{size} services in containers: memory of the server for each",
    }
for size in (10, 100, 1000):
    MEANINGS |= {
        f"growth.{what}-{size}": f"{size:,} services on fake providers: {text}" for what, text in _GROWTH.items()
    }


def drawn(files: Iterable[Path]) -> str:
    """The part of the page between the marks, from files of results: of each measure its newest."""
    newest: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for result, facts in sorted(_results(files), key=lambda found: found[0].get("at", "")):
        newest[result["name"]] = (result, facts)
    lines: list[str] = []
    known = list(SECTIONS)
    words = {name.partition(".")[0] for name in newest}
    for word in sorted(words, key=lambda word: (known.index(word) if word in known else len(known), word)):
        lines += [f"### {SECTIONS.get(word, word.capitalize())}", ""]
        for name, (result, _) in newest.items():
            if name.partition(".")[0] == word:
                lines += [*_measure(result), ""]
    behind = [line for result, _ in newest.values() for line in _behind(result)]
    lines += ["### Where we are behind", "", *(behind or ["Nowhere among these measures."]), ""]
    if missing := [f"- {title}" for word, title in SECTIONS.items() if word not in words]:
        lines += ["### Not measured here yet", "", *missing, ""]
    return "\n".join([*lines, "### The machine", "", *_machines(newest.values())])


def page(text: str, files: Iterable[Path]) -> str:
    """``text`` with its drawn part made anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{drawn(files)}\n\n{END}{rest.partition(END)[2]}"


def result_files() -> list[Path]:
    """Files of changed trees do not count."""
    return sorted(file for file in RESULTS.glob("*.jsonl") if not file.stem.endswith("+"))


def _results(files: Iterable[Path]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for file in files:
        facts: dict[str, Any] = {}
        for line in file.read_text().splitlines():
            said = json.loads(line)
            if "machine" in said:
                facts = said["machine"]
            else:
                yield said, facts


def _measure(result: dict[str, Any]) -> list[str]:
    better = "less is better" if result["less_is_better"] else "more is better"
    low, high = result["spread"]
    rows = {"**Nanocloud**": result["ours"], **result["peers"]}
    if result["floor"] is not None:
        rows[f"*floor: {result['floor_name'] or 'the least'}*"] = result["floor"]
    rows |= {f"*{name}*": value for name, value in result.get("others", {}).items()}
    most = max(rows.values()) or 1
    return [
        f"**{MEANINGS.get(result['name'], result['name'])}** (`{result['name']}`; {better}; "
        f"median of {result['rounds']} rounds, ours {low:g} to {high:g}; {_ratios(result)})",
        "",
        f"| | {result['unit']} | |",
        "| --- | ---: | --- |",
        *(f"| {name} | {value:g} | {_bar(value / most)} |" for name, value in rows.items()),
    ]


def _behind(result: dict[str, Any]) -> Iterator[str]:
    ratio = result["ratio"]
    if ratio is not None and (ratio > 1 if result["less_is_better"] else ratio < 1):
        what = MEANINGS.get(result["name"], result["name"])
        yield f"- {what} (`{result['name']}`): {ratio:.2f} of {result['peer_name']}."


def _ratios(result: dict[str, Any]) -> str:
    said = []
    if result["ratio"] is not None:
        said.append(f"{result['ratio']:.2f} of {result['peer_name']}")
    if result["floor_ratio"] is not None:
        said.append(f"{result['floor_ratio']:.2f} of the floor")
    return f"{', '.join(said) or 'no peer'}; load {result['load']:g}"


def _bar(share: float) -> str:
    eighths = round(share * _BAR * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip() or "▏"


def _machines(results: Iterable[tuple[dict[str, Any], dict[str, Any]]]) -> list[str]:
    """One line a run that something above comes from."""
    runs: dict[str, tuple[dict[str, Any], set[str]]] = {}
    for result, facts in results:
        runs.setdefault(json.dumps(facts), (facts, set()))[1].add(result["name"].partition(".")[0])
    lines = []
    for facts, words in runs.values():
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        lines.append(
            f"- {', '.join(sorted(words))}: {facts['date']}, commit `{facts['commit']}`; {facts['cores']} cores "
            f"({facts['processor']}), {facts['memory_gib']} GiB, Linux {facts['kernel']}, {facts['system']}, "
            f"Python {facts['python']}; load at the start {facts['load'][0]:g}; {versions}."
        )
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), result_files()))
