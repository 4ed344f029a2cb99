"""Fake volume providers with one bug each that breaks sentences of their contract; see ``test_mutants.py``."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import attrs
import trio
from subjects import CANCELLED, VolumeSubject

from nanocloud.providers.volume import VolumeId
from nanocloud.testkit import FakeVolume

if TYPE_CHECKING:
    from pathlib import Path

    from nanocloud.providers.volume import VolumeSpec, VolumeStatus


class LosesDataOnSecondPublish(FakeVolume):
    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        path = await super().publish(volume, consumer=consumer)
        if self._known(volume).consumers == {consumer}:
            shutil.rmtree(path)
            path.mkdir()
        return path


class TestLosesDataOnSecondPublish(VolumeSubject):
    fake = LosesDataOnSecondPublish
    breaks = ("A fresh volume is empty; what was written is there again.", "Calls for one volume may overlap.")


class DropsEveryConsumer(FakeVolume):
    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        await super().unpublish(volume, consumer=consumer)
        self._known(volume).consumers.clear()


class TestDropsEveryConsumer(VolumeSubject):
    fake = DropsEveryConsumer
    breaks = (
        "Drop the consumer; without consumers the volume is unmounted. Unknown consumers are no error.",
        "Calls for one volume may overlap.",
    )


class ReadsItsRecordTooEarly(FakeVolume):
    """Who else uses a volume is read before the mount, and written after it."""

    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        before = set(self._known(volume).consumers)
        path = await super().publish(volume, consumer=consumer)
        self._known(volume).consumers = before | {consumer}
        return path


class TestReadsItsRecordTooEarly(VolumeSubject):
    fake = ReadsItsRecordTooEarly
    breaks = ("Calls for one volume may overlap.",)


class ShortensIds(FakeVolume):
    """To 64 letters, for a label that holds no more."""

    async def create(self, spec: VolumeSpec) -> VolumeStatus:
        return await super().create(attrs.evolve(spec, id=_shortened(spec.id)))

    async def publish(self, volume: VolumeId, *, consumer: str) -> Path:
        return await super().publish(_shortened(volume), consumer=consumer)

    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        await super().unpublish(_shortened(volume), consumer=consumer)


def _shortened(volume: VolumeId) -> VolumeId:
    return VolumeId(volume[:64]) if len(volume) <= 128 else volume


class TestShortensIds(VolumeSubject):
    fake = ShortensIds
    breaks = ("``[a-z0-9][a-z0-9.-]{0,127}``; unique on the node, chosen by the caller.",)


class ForgetsBeforeItUnmounts(FakeVolume):
    """The consumer is dropped first; an unpublish that is cancelled then leaves the mount to nobody."""

    async def unpublish(self, volume: VolumeId, *, consumer: str) -> None:
        consumers = self._known(volume).consumers
        if consumer in consumers:
            consumers.remove(consumer)
            consumers.add("nobody")
            await trio.lowlevel.checkpoint()
            consumers.remove("nobody")
        await super().unpublish(volume, consumer=consumer)


class TestForgetsBeforeItUnmounts(VolumeSubject):
    fake = ForgetsBeforeItUnmounts
    breaks = (CANCELLED,)
