"""The suites quote the contracts, and every sentence of a contract is held by a test or listed here with a reason."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from nanocloud.testkit import suites
from nanocloud.testkit.sentences import quoted, sentences
from nanocloud.testkit.suites.base import ProviderSuite

SUITES: list[type[ProviderSuite[Any]]] = [getattr(suites, name) for name in suites.__all__]

MEANING = "says what a word, a class or a field means; what is promised of it stands elsewhere"
ASKS = "asks something of the node, not of the provider"
MACHINE = "cannot be seen without what not every machine has, or takes something that a test must not do to it"
OWN = "depends on how the provider is built: its own tests hold it"

UNHELD: dict[str, dict[str, str]] = {
    "base": {
        MEANING: """
            What every provider has: a name, and a life that the node opens and closes.
            Base of all contracts.
            Prepare what the provider needs, hold it while the body runs, then let go.
            Usually written with ``@asynccontextmanager``; it may keep a nursery for workers of its own.
            An optional power: take everything off the host that the provider ever made (``nanocloud reset``).
            """,
        ASKS: """
            Methods are called from one trio thread.
            """,
        MACHINE: """
            ProviderError: the host lacks something; the message says what and how to get it.
            """,
        OWN: """
            Every await of a method can be cancelled.
            Errors are those of ``nanocloud.errors``: the ones that a method names, else ProviderError.
            A message is one line that names the object.
            """,
    },
    "binding": {
        MEANING: """
            The binding contract: run one command of a selected service on behalf of a dependant, inside an envelope.
            One run of a binding command.
            Idempotency key: ``<namespace>/<bundle>/<binding id>``.
            A name that the target's image exports, found in ``/usr/lib/nanocloud/bindings``.
            The running container of the selected service.
            It ended with another code, or could not be run; then there is no code, and ``output`` says why.
            It was killed at the time limit; there is no code.
            Runs binding commands.
            """,
        ASKS: """
            Which command runs when, over the life of a binding, is not the provider's business: see
            ``models/binding.py``.
            """,
    },
    "image": {
        MEANING: """
            The image contract: references become verified image configurations and unpacked, shared layers.
            ``sha256:<64 hex>``.
            The part of an OCI image configuration that runs a container.
            Untrusted.
            ``80/tcp``
            Compressed layers together.
            A service that ``nanocloud install`` can name.
            Whether its image is here and needs no registry.
            What the image will say once it is built, where the provider knows that without it.
            Finds, fetches, verifies and unpacks images.
            """,
        OWN: """
            A manifest for this machine's platform whose configuration was read and verified.
            So does what the catalogue offers without a registry.
            """,
    },
    "macro": {
        MEANING: """
            The macro contract: ``!name args`` in an option's default becomes a value while a profile is resolved.
            What a macro may look at.
            The option whose default holds the macro.
            What is resolved so far, the user's choices first.
            Expands one or more macros.
            The value of ``!macro arguments...``.
            """,
        ASKS: """
            Values that users give are never expanded; a macro sees only defaults that the image's label declares.
            The value is decided once and kept in the profile; a macro that was expanded is not asked again.
            """,
    },
    "network": {
        MEANING: """
            The network contract: a sandbox gets a network namespace, addresses, host ports, and names that resolve.
            ``<namespace>/<pod>``; whose address it is.
            Connects pod sandboxes.
            """,
        ASKS: """
            Names are lower case without a final dot.
            """,
        MACHINE: """
            Other names are asked of the node's own resolvers.
            While it is open, its name server answers and foreign changes are mended.
            """,
        OWN: """
            Forget the address reserved for ``owner`` (its pod is gone for good).
            """,
    },
    "runtime": {
        MEANING: """
            The runtime contract: containers, as the kubelet asks for them.
            A container's life is ``created -> running -> exited``, then it is removed.
            For what must never reach a disk in plaintext (keys, secrets) and for ``/etc/hosts`` and
            ``/etc/resolv.conf``.
            What ordinary services need; the default.
            The wider set that container engines allow by default.
            The JSON file at ``Security.seccomp_path``.
            What the container may do beyond the baseline.
            Names as in capabilities(7): ``CAP_CHOWN``.
            Everything a runtime needs to make one container.
            How a container ended.
            Seconds since the epoch.
            Of the container's first process, as the host sees it; None when it ended.
            One more process in a running container.
            A process started by ``RuntimeProvider.exec``.
            None with a terminal.
            Runs containers.
            """,
        MACHINE: """
            Limits of one container; ``None`` is unlimited.
            Every capability and device, and no seccomp filter.
            Unpacked image layers, lowest first, shared and read-only, with overlayfs whiteouts.
            Names are looked up in the image's ``/etc/passwd`` and ``/etc/group``.
            A network namespace made by the network provider; ``None`` gives the container an empty one of its own.
            Paths at which the container gets an empty tmpfs, besides ``/dev``, ``/dev/shm`` and ``/run``.
            None: the container's own set.
            Set the terminal's size; nothing without a terminal.
            """,
        OWN: """
            ``code`` is 128 + signal after a signal, and 255 when the monitor was lost.
            ProviderError: the host refused; the message names the step.
            Costs nothing while it waits.
            """,
    },
    "storage": {
        MEANING: """
            The storage contract: an ordered map from byte keys to records, where every change has a revision and a
            past.
            A storage is what the keyspace stands on.
            It is written so that one can be made from this text alone, on an embedded file, on lmdb, or on a server
            such as etcd (whose model this is).
            What a storage guarantees:
            A key's state as one transaction left it.
            Of the transaction that wrote this state.
            Seconds since the epoch; None: never.
            If every check is true, do every operation.
            The checks held.
            ``revision`` is the transaction's own, or the store's last where nothing changed.
            How many keys changed: puts, and deletes of keys that existed.
            The state after each operation, in order; None for a delete.
            The key's mod revision; 0 where it does not exist.
            One key in one transaction.
            ``record`` is None for a delete, ``previous`` is None for a creation.
            In the order of their keys.
            The state they were read at: the one asked for, else the store's last.
            In the order of revisions; within one in the order of the transaction's operations.
            Of the last committed transaction.
            History before this revision is forgotten; 0: none is.
            What the data occupies.
            Keeps the records.
            Check and change in one step; durable when it returns.
            The key's record at ``revision``, default now.
            The store's numbers, from one state.
            """,
        ASKS: """
            Deleting what has expired is the keyspace's work, by an ordinary transaction.
            No key occurs in two operations; the caller sees to that.
            """,
        MACHINE: """
            Failures of the disk or the server behind are UnavailableError (the same call may succeed later), stored
            data that makes no sense is CorruptError.
            UnavailableError: it did not happen as far as this process can tell: the disk is full, or failed.
            Whoever wrote it: with a storage that several servers share, also their transactions count.
            """,
    },
    "volume": {
        MEANING: """
            The volume contract: a claim becomes a file system of the asked size that containers mount.
            Keeps volumes.
            """,
        MACHINE: """
            Volumes outlive the server and the machine's restarts.
            Every volume; mounts and consumers as the kernel and the records agree.
            """,
    },
}


def quotes_of(suite: type[ProviderSuite[Any]]) -> dict[str, str]:
    """The docstrings of a suite's tests."""
    return {name: inspect.getdoc(test) or "" for name, test in inspect.getmembers(suite) if name.startswith("test_")}


def held_by(suite: type[ProviderSuite[Any]]) -> set[str]:
    return {sentence.text for quote in quotes_of(suite).values() for sentence in quoted(suite.contract, quote)}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.contract)
def test_every_test_quotes_its_contract(suite: type[ProviderSuite[Any]]) -> None:
    wrong = []
    for name, quote in quotes_of(suite).items():
        try:
            quoted(suite.contract, quote)
        except LookupError as exc:
            wrong.append(f"{name}: {exc}")
    assert wrong == []


@pytest.mark.parametrize("contract", UNHELD)
def test_every_sentence_is_held_or_listed(contract: str) -> None:
    said = {sentence.text for sentence in sentences(contract)}
    held = set.union(*(held_by(suite) for suite in SUITES if contract in (suite.contract, "base"))) & said
    listed = " ".join(" ".join(UNHELD[contract].values()).split())
    unheld = said - held
    assert {text for text in unheld if text not in listed} == set(), "neither held nor listed"
    left = listed
    for text in sorted(unheld, key=len, reverse=True):
        left = left.replace(text, "", 1)
    assert left.split() == [], "listed, and held or not said at all"


def test_every_contract_is_looked_at() -> None:
    assert UNHELD.keys() - {"base"} == {suite.contract for suite in SUITES}
