"""Findings, the rules that they are about, and the level that an image reaches.

A rule says the best level that an image can still have which breaks it; an image's level is the lowest of these.
``docs/images.md`` lists the same rules, and a test holds the two together.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

import attrs


class Level(enum.IntEnum):
    REFUSED = 0
    BRONZE = 1
    SILVER = 2
    GOLD = 3

    @property
    def word(self) -> str:
        return self.name.lower()


@attrs.frozen
class Rule:
    at_best: Level
    todo: str

    @property
    def severity(self) -> str:
        if self.at_best is Level.REFUSED:
            return "error"
        return "info" if self.at_best is Level.GOLD else "warning"


RULES: dict[str, Rule] = {
    # What its labels say
    "label": Rule(Level.REFUSED, "mend the label where it says"),
    "no-options": Rule(Level.GOLD, "add the label io.nanocloud.options, if the service has ports, data or settings"),
    "export-option": Rule(Level.REFUSED, "export options that the image has"),
    "export-binding": Rule(Level.REFUSED, "put an executable of that name into /usr/lib/nanocloud/bindings"),
    "binding-unexported": Rule(Level.SILVER, "add it to bindings in the exports, or remove the file"),
    "binding-owned": Rule(Level.SILVER, "say in owned of the exports which arguments belong to one dependant alone"),
    "companion-alone": Rule(Level.REFUSED, "add the create_ command that it belongs to, or remove it"),
    "no-verify": Rule(Level.SILVER, "add a verify_ command, so that a binding counts only once it works"),
    "no-revoke": Rule(Level.BRONZE, "add a revoke_ command, so that access ends with the dependant"),
    "capabilities": Rule(Level.BRONZE, "find a way to run without them"),
    "default-secret": Rule(Level.BRONZE, "let !rand make the default, else it is the same everywhere"),
    "port-undeclared": Rule(Level.GOLD, "add a port_<n> for it, if others are to reach it"),
    # What its configuration and its files say
    "start-command": Rule(Level.REFUSED, "set ENTRYPOINT to a program that is in the image"),
    "user-unknown": Rule(Level.REFUSED, "add the user in the Containerfile, or write USER as numbers"),
    "user-root": Rule(Level.BRONZE, "set USER to a user of the service's own"),
    "environment-secret": Rule(Level.BRONZE, "take it out of the image: everyone who has the image can read it"),
    "stop-signal": Rule(Level.SILVER, "set STOPSIGNAL to the signal that lets the service end in good order"),
    "no-ready-script": Rule(Level.BRONZE, "add /usr/lib/nanocloud/ready.sh, which says when the service can be used"),
    "script-mode": Rule(Level.REFUSED, "make it readable and executable for who runs it: mode 0755"),
    "script-interpreter": Rule(Level.REFUSED, "begin it with #! and an interpreter that is in the image"),
    "script-syntax": Rule(Level.REFUSED, "mend the script where it says"),
    "volume-undeclared": Rule(Level.SILVER, "add a volume_<n> for it: without one its data go with the container"),
    "volume-path": Rule(Level.SILVER, "make the folder in the Containerfile and give it to USER"),
    "image-size": Rule(Level.SILVER, "leave out what the service does not need"),
    "image-age": Rule(Level.SILVER, "build it again, for security updates"),
    # What happens when it is installed
    "install": Rule(Level.REFUSED, "see nanocloud events and nanocloud logs of an installation with these options"),
    "not-tried": Rule(Level.SILVER, "build the image of the selected service, then check again"),
    "slow-ready": Rule(Level.SILVER, "do less before the service answers"),
    "idle-memory": Rule(Level.SILVER, "set the service's caches and workers to what a small machine has"),
    "account-refused": Rule(Level.REFUSED, "mend create_ or verify_: what was made does not verify"),
    "account-left": Rule(Level.REFUSED, "mend revoke_: the account still works after uninstalling"),
    "account-unseen": Rule(Level.GOLD, "nothing: the selected service cannot say whether an account is left"),
    "residue": Rule(Level.REFUSED, "see nanocloud status and the server's log: uninstalling did not end"),
}


@attrs.frozen
class Finding:
    rule: str
    where: str
    """A label, a path in the image, or the options of a trial."""
    message: str

    @property
    def severity(self) -> str:
        return RULES[self.rule].severity

    @property
    def todo(self) -> str:
        return RULES[self.rule].todo


def level_of(findings: Iterable[Finding]) -> Level:
    return min((RULES[finding.rule].at_best for finding in findings), default=Level.GOLD)
