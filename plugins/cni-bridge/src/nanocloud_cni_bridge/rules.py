"""The node's packet rules: one nftables table, always replaced in one transaction.

The whole table is text made from data (``ruleset``); attaching a sandbox only adds its ports to maps. What holds:

- Pods reach everything: other pods, the node, and the world behind the node's address (masquerade).
- The world reaches pods only through published ports; nothing else is forwarded to the bridge.
- A published port works from outside, from the node (its 127.0.0.0/8 too), from other pods and from the pod itself.
  Not on ``::1``: Linux has no ``route_localnet`` for IPv6. A connection there is refused at once, so that programs
  that try it first for ``localhost`` go on to 127.0.0.1.
- Pods do not reach the node's loopback addresses, although ``route_localnet`` is on, and nobody but the bridge
  speaks with a pod's address.

A drop in another table still drops: nftables asks every table.

Source: nft(8); CVE-2020-8558 for the loopback rule.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

from nanocloud.errors import CommandError, ProviderError
from nanocloud_cni_bridge.hostports import DNS_PORT, claims

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nanocloud_cni_bridge.attachment import Attachment
    from nanocloud_cni_bridge.settings import Settings

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 60
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


def elements(attachment: Attachment, settings: Settings) -> Iterator[tuple[str, str]]:
    """(map, ``key : value``) of every port the attachment publishes; the maps are those of ``ruleset``."""
    for port in dict.fromkeys(attachment.ports):
        for claim in claims(port, dual=settings.dual):
            target = attachment.address if claim.family == 4 else attachment.address6
            if target is None:  # attached while IPv6 was off
                continue
            key = f"{port.protocol} . {port.host_port}"
            if claim.ip is None:
                yield f"any{claim.family}", f"{key} : {target} . {port.container_port}"
            else:
                yield f"at{claim.family}", f"{claim.ip} . {key} : {target} . {port.container_port}"


def ruleset(settings: Settings, attachments: Iterable[Attachment]) -> str:
    """The transaction that replaces the table, whatever is there now."""
    held: dict[str, list[str]] = {}
    for attachment in attachments:
        for name, element in elements(attachment, settings):
            held.setdefault(name, []).append(element)
    families = [("4", "ipv4_addr")] + ([("6", "ipv6_addr")] if settings.dual else [])
    maps = ""
    for family, kind in families:
        maps += _map(f"any{family}", f"inet_proto . inet_service : {kind} . inet_service", held)
        maps += _map(f"at{family}", f"{kind} . inet_proto . inet_service : {kind} . inet_service", held)
    return _TABLE.format(
        table=settings.table,
        bridge=settings.bridge,
        maps=maps,
        subnet_guards="".join(
            f'    iifname != {{ "{settings.bridge}", "lo" }} {_word(n)} saddr {n} drop\n' for n in settings.networks
        ),
        name_server="".join(
            f"    {_word(g)} daddr {g} meta l4proto {{ tcp, udp }} th dport {DNS_PORT} return\n"
            for g in settings.gateways
        ),
        dnat=("    ip6 daddr ::1 return\n" if settings.dual else "") + "".join(_dnat(family) for family, _ in families),
        masquerade="".join(
            f'    {_word(n)} saddr {n} oifname != "{settings.bridge}" masquerade\n'
            f'    {_word(n)} saddr {n} oifname "{settings.bridge}" ct status dnat masquerade\n'
            for n in settings.networks
        )
        + f'    ip saddr 127.0.0.0/8 oifname "{settings.bridge}" masquerade\n',
    )


def _word(thing: object) -> str:
    return "ip6" if ":" in str(thing) else "ip"


def _map(name: str, kind: str, held: dict[str, list[str]]) -> str:
    filled = f"    elements = {{ {', '.join(held[name])} }}\n" if held.get(name) else ""
    return f"  map {name} {{\n    type {kind}\n{filled}  }}\n"


def _dnat(family: str) -> str:
    ip = "ip" if family == "4" else "ip6"
    return (
        f"    dnat {ip} to {ip} daddr . meta l4proto . th dport map @at{family}\n"
        f"    dnat {ip} to meta l4proto . th dport map @any{family}\n"
    )


# "add" before "delete" makes the delete valid where there is no table yet. In the output hook the priority has to be
# a number: nft refuses the word dstnat there.
_TABLE = """\
add table inet {table}
delete table inet {table}
table inet {table} {{
{maps}\
  chain guard {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
{subnet_guards}\
  }}
  chain hostports {{
{name_server}\
{dnat}\
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump hostports
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    fib daddr type local jump hostports
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{masquerade}\
  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    iifname "{bridge}" accept
    oifname "{bridge}" ct state established,related accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
}}
"""


class Rules:
    """The table in the kernel, and what it publishes. Blocking; threads take turns, one transaction each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._published: dict[str, Attachment] = {}
        # The table as nft prints it without elements. That depends on nothing but the settings, so it is read once:
        # read after each replacement, it could take in what somebody else had changed a moment later.
        self._shape = ""

    def replace(self, attachments: Iterable[Attachment]) -> None:
        """Make the table anew; it publishes the ports of ``attachments``."""
        with self._lock:
            self._published = {a.sandbox: a for a in attachments if a.ports}
            self._replace()

    def restore(self) -> bool:
        """Make the table anew if somebody else changed it; says whether."""
        with self._lock:
            if self._read() == self._shape:
                return False
            self._replace()
            return True

    def publish(self, attachment: Attachment) -> None:
        if not attachment.ports:
            return
        with self._lock:
            self._published[attachment.sandbox] = attachment
            self._apply("add", attachment)

    def withdraw(self, attachment: Attachment) -> None:
        """What was never published is no error."""
        with self._lock:
            if self._published.pop(attachment.sandbox, None):
                self._apply("delete", attachment)

    def _apply(self, verb: str, attachment: Attachment) -> None:
        lines = [
            f"{verb} element inet {self._settings.table} {name} {{ {element} }}\n"
            for name, element in elements(attachment, self._settings)
        ]
        try:
            if lines:
                run_nft("".join(lines))
        except CommandError as exc:
            log.warning("the table inet %s is not as it was left, making it anew: %s", self._settings.table, exc)
            self._replace()

    def _replace(self) -> None:
        run_nft(ruleset(self._settings, self._published.values()))
        self._shape = self._shape or self._read()

    def _read(self) -> str:
        try:
            return run_nft("", "--stateless", "--terse", "list", "table", "inet", self._settings.table)
        except CommandError:
            return ""


def require_nft() -> None:
    """Fail before anything is changed rather than halfway."""
    if shutil.which("nft", path=_ENVIRONMENT["PATH"]) is None:
        raise _missing()


def _missing() -> ProviderError:
    return ProviderError(
        "the program nft of the package nftables is missing: packet rules cannot be set",
        hint="install it: apt-get install nftables",
    )


def delete_table(table: str) -> None:
    run_nft(f"add table inet {table}\ndelete table inet {table}\n")


def run_nft(text: str, *arguments: str) -> str:
    """Run nft with ``text`` as its script, or with ``arguments``; its output.

    Raises:
        CommandError: nft refused; nothing was changed.
        ProviderError: nft is not installed, or hangs.
    """
    argv = ["nft", *(arguments or ("-f", "-"))]
    try:
        # A worker thread waits here, so the short form of subprocess is the fast one.
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, env=_ENVIRONMENT, timeout=_TIMEOUT_SECONDS, check=False
        )
    except FileNotFoundError:
        raise _missing() from None
    except subprocess.TimeoutExpired as exc:
        raise ProviderError(f"nft did not finish within {_TIMEOUT_SECONDS} seconds") from exc
    if done.returncode:
        raise CommandError(argv, done.returncode, done.stderr)
    return done.stdout
