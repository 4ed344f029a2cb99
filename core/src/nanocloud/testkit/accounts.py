"""FakeAccounts: a database's accounts as data, and the binding commands that make, verify, rotate and revoke them.

Every command works in small steps, as a real one does; ``stop_at`` ends one in the middle, as a kill would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from nanocloud.errors import InvalidError

if TYPE_CHECKING:
    from nanocloud.providers.binding import BindingCall

COMMANDS = ("create_user", "rotate_user", "verify_user", "revoke_user")
EXPORTS = {"options": ["host", "port"], "bindings": list(COMMANDS), "owned": {"create_user": [1, 2]}}
"""What the image of such a database says: DATABASE and USER belong to one dependant."""
_KILLED = 137


class _KilledError(Exception):
    pass


@attrs.define
class Account:
    password: str = ""
    databases: set[str] = attrs.field(factory=set[str])


@attrs.define
class FakeAccounts:
    """A handler for FakeBinding: ``create_user DATABASE USER PASSWORD`` and its companions."""

    users: dict[str, Account] = attrs.field(factory=dict[str, Account])
    databases: set[str] = attrs.field(factory=set[str])
    log: list[str] = attrs.field(factory=list[str])
    """Commands that ended by themselves, in order."""
    steps: int = 0
    stop_at: int | None = None
    """The step, counted over all commands from 1, at which the command is killed."""
    when_stopped: Callable[[], None] = lambda: None

    def __call__(self, call: BindingCall) -> int:
        database, user, password = (argument.value for argument in call.arguments[:3])
        try:
            code = self._run(call.command, database, user, password)
        except _KilledError:
            return _KILLED
        self.log.append(call.command)
        return code

    def _run(self, command: str, database: str, user: str, password: str) -> int:
        match command:
            case "create_user" | "rotate_user":
                self._step()
                self.databases.add(database)
                self._step()
                account = self.users.setdefault(user, Account())
                self._step()
                account.password = password
                self._step()
                account.databases.add(database)
                self._step()
                return 0
            case "verify_user":
                self._step()
                found = self.users.get(user)
                return 0 if found and found.password == password and database in found.databases else 1
            case "revoke_user":
                self._step()
                self.users.pop(user, None)
                self._step()
                return 0
            case _:
                raise InvalidError(f"{command} is not one of {', '.join(COMMANDS)}")

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            self.when_stopped()
            raise _KilledError
