"""What servers that are no more have left: half-made containers, writable layers of before a reboot, exec sessions.

The order of ``take_down`` is what makes it safe to be killed at any point: first the processes, also those that make
new ones; then what they held; the folder last, for it says that work is left.
"""

from __future__ import annotations

import logging
import signal
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import attrs
import trio

from nanocloud.errors import CommandError
from nanocloud_runtime_runc import mounts
from nanocloud_runtime_runc.cgroups import Groups, monitor_of
from nanocloud_runtime_runc.folder import Folder
from nanocloud_runtime_runc.programs import run
from nanocloud_runtime_runc.record import Phase
from nanocloud_runtime_runc.runc import Runc
from nanocloud_runtime_runc.trees import remove_tree

log = logging.getLogger(__name__)
_LAST_WORDS_SECONDS = 5


@attrs.frozen
class Undertaker:
    runc: Runc
    groups: Groups
    stores: Path
    """One folder a container: its writable layer."""
    aside: Path
    """Writable layers that nobody owns any more."""

    async def take_down(self, folder: Folder) -> None:
        """Remove everything of a container but its log, from whatever state.

        Raises:
            OSError, ProviderError: something would not go; the folder stays, and so does the work.
        """
        known = folder.record()
        if known is not None:
            folder.write_record(attrs.evolve(known, phase=Phase.REMOVING))
        await self.groups.empty(folder.id)
        if known is not None and known.monitor is not None:
            with trio.move_on_after(_LAST_WORDS_SECONDS):  # it writes the end of the log
                await known.monitor.ended()
        await self.groups.empty(monitor_of(folder.id))
        if known is None or known.phase is not Phase.CREATED:
            await self._end_makers(folder.id)
        try:
            await run(*self.runc.command("delete", "--force", folder.id))
        except CommandError as exc:
            log.warning("container %s: %s", folder.id, exc)  # what it left is removed here
        await self.groups.empty(folder.id)
        for group in (folder.id, monitor_of(folder.id)):
            await self.groups.remove(group)
        await trio.to_thread.run_sync(mounts.unmount, folder.rootfs)
        for path in (self.runc.root / folder.id, self.stores / folder.id, folder.path):
            await trio.to_thread.run_sync(remove_tree, path)

    async def _end_makers(self, *words: str) -> None:
        while makers := list(self.runc.makers(*words)):
            for process in makers:
                process.send(signal.SIGKILL)
            for process in makers:
                await process.ended()

    async def end_sessions(self, folders: Sequence[Folder]) -> None:
        """End exec sessions: their server is gone, and with it whoever waits for them.

        Such a process has its parent outside of the container, as nothing else there but the first one has.
        """
        await self._end_makers("exec")
        for folder in folders:
            known = folder.record()
            members = self.groups.members(folder.id)
            inside = {process.pid for process in members}
            strangers = [process for process in members if process.parent not in inside]
            for leader in strangers:
                if known is not None and leader != known.first:
                    group = [process for process in members if process.group == leader.pid]
                    leader.kill_group()
                    for process in (leader, *group):
                        await process.ended()

    def set_aside(self, known: Collection[str]) -> None:
        """Move the writable layers of unknown containers out of the way: removing millions of files takes minutes."""
        for path in self.stores.iterdir():
            if path.name not in known:
                path.rename(Path(tempfile.mkdtemp(dir=self.aside)) / path.name)

    def empty_aside(self) -> None:
        """Remove what was set aside, by this server or an earlier one. Blocks."""
        for path in self.aside.iterdir():
            try:
                remove_tree(path)
            except OSError as exc:
                log.warning("%s, of an earlier container, stays: %s", path, exc)
