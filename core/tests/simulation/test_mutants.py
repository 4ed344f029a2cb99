"""The stories find mistakes: each of these, planted in the keyspace, the kubelet or a controller, breaks a promise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from nanocloud.controllers import revocations
from nanocloud.controllers.bundles import BundleController
from nanocloud.keyspace import Keyspace
from nanocloud.kubelet import pods
from nanocloud.models.binding import BindingPhase
from nanocloud.testkit import FakeDisk
from nanocloud.testkit.simulation import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from nanocloud.controllers.progress import Obstacle
    from nanocloud.kubelet.parts import KubeletParts
    from nanocloud.models.meta import Object
    from nanocloud.planning.workload import BindingStep

MOST_SEEDS = 25


def watches_that_begin_one_revision_late(patch: pytest.MonkeyPatch) -> None:
    watch = Keyspace.watch

    def late(self: Keyspace, prefix: Any, *, after: int) -> Any:
        return watch(self, prefix, after=min(after + 1, self.revision))

    patch.setattr(Keyspace, "watch", late)


def writes_that_do_not_look_what_they_overwrite(patch: pytest.MonkeyPatch) -> None:
    put = Keyspace.put

    async def blind(self: Keyspace, key: Any, value: bytes, **more: Any) -> Any:
        return await put(self, key, value, **more | {"expect": None})

    patch.setattr(Keyspace, "put", blind)


def a_disk_whose_last_sync_was_a_lie(patch: pytest.MonkeyPatch) -> None:
    crash = FakeDisk.crash

    def lose(self: FakeDisk, *, survivors: int = 0) -> None:
        crash(self, survivors=survivors)
        last = self._revision
        while self._changes and self._changes[-1].revision == last:
            self._states[self._changes.pop().key].pop()
            self._revision = last - 1

    patch.setattr(FakeDisk, "crash", lose)


def a_kubelet_that_forgets_to_let_go_of_volumes(patch: pytest.MonkeyPatch) -> None:
    release = pods.release_pod

    async def forgetful(pod: Object, parts: KubeletParts, *, for_good: bool) -> None:
        await release(pod | {"spec": pod["spec"] | {"volumes": []}}, parts, for_good=for_good)

    patch.setattr(pods, "release_pod", forgetful)


def a_controller_that_takes_a_failed_command_for_a_good_one(patch: pytest.MonkeyPatch) -> None:
    look_at = BundleController._look_at

    async def content(self: BundleController, bundle: Object, step: BindingStep, binding: Object) -> Obstacle | None:
        status = binding.get("status") or {}
        if status.get("phase") == BindingPhase.FAILED.value:
            binding = {**binding, "status": {**status, "phase": BindingPhase.COMPLETED.value}}
        return await look_at(self, bundle, step, binding)

    patch.setattr(BundleController, "_look_at", content)


def an_uninstallation_that_revokes_nothing(patch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: Any, **__: Any) -> bool:
        return False

    patch.setattr(revocations, "ensure_revocation", nothing)


MUTANTS: dict[Callable[[pytest.MonkeyPatch], None], set[str]] = {
    watches_that_begin_one_revision_late: {"watches_are_whole_and_in_order"},
    writes_that_do_not_look_what_they_overwrite: {"generation_follows_the_spec", "acknowledged_bundles_are_there"},
    a_disk_whose_last_sync_was_a_lie: {"revisions_grow_by_one", "acknowledged_counts_are_there"},
    a_kubelet_that_forgets_to_let_go_of_volumes: {"every_use_of_a_volume_is_of_a_pod"},
    a_controller_that_takes_a_failed_command_for_a_good_one: {"a_binding_recorded_is_a_binding_done"},
    an_uninstallation_that_revokes_nothing: {"every_account_belongs_to_somebody"},
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_planted_mistake_is_found(
    mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    found: set[str] = set()
    for seed in range(MOST_SEEDS):
        found |= {broken.promise for broken in tell(seed).broken}
        if found & MUTANTS[mutant]:
            return
    raise AssertionError(f"{MOST_SEEDS} stories broke {found or 'nothing'}")
