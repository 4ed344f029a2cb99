"""One check of one image: fetch it, look at it, and install it unless only its files are wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import attrs
import trio

from nanocloud.concurrency import unwrapped
from nanocloud.planning.label import image_contract
from nanocloud_dockyard.check.findings import Level, level_of
from nanocloud_dockyard.check.lint import lint
from nanocloud_dockyard.check.report import Report
from nanocloud_dockyard.check.subject import Subject, fetch
from nanocloud_dockyard.check.trial import Trial
from nanocloud_dockyard.layout_writer import published
from nanocloud_dockyard.provider import Dockyard
from nanocloud_dockyard.reference import ServiceReference, parse_reference
from nanocloud_dockyard.settings import DockyardConfig

if TYPE_CHECKING:
    from nanocloud.client.api import Api
    from nanocloud.config import NodeConfig


@attrs.frozen(kw_only=True)
class Checker:
    config: NodeConfig
    server: Api | None
    """None: only files are looked at."""
    given: Mapping[str, str]
    seconds: float
    tell: Callable[[str], None]

    def check(self, reference: str) -> Report:
        """Raises NotFoundError or ImageError where there is no image to look at."""
        with unwrapped():
            subject = trio.run(self._fetch, reference)
        findings = lint(subject)
        if self.server is None or level_of(findings) is Level.REFUSED:
            return Report(subject=reference, findings=tuple(findings))
        is_service = isinstance(parse_reference(reference), ServiceReference)
        trial = Trial(
            server=self.server,
            config=self.config,
            service=reference if is_service else _service_name(reference),
            image=None if is_service else reference,
            contract=image_contract(subject.labels),
            given=self.given,
            seconds=self.seconds,
            tell=lambda said: self.tell(f"{reference}: {said}"),
        )
        trial.run()
        found = (*findings, *dict.fromkeys(trial.findings))
        return Report(subject=reference, findings=found, measured=tuple(trial.measured), tried=True)

    async def _fetch(self, reference: str) -> Subject:
        settings = self.config.section("dockyard", DockyardConfig)
        root = self.config.state_dir / "images"
        built = {image.digest: image.created for image in published(root / "layout").values()}
        async with Dockyard(settings, root) as dockyard:
            return await fetch(dockyard, reference, built)


def _service_name(reference: str) -> str:
    """A bundle's name for an image: the last word of its reference that can be one."""
    words = re.findall(r"[a-z0-9](?:[-a-z0-9]{0,40}[a-z0-9])?", reference.partition("@")[0].lower())
    return words[-1] if words and words[-1] != "latest" else "image"
