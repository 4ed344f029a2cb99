"""The short form of a check over the whole catalogue: every recipe's image, as it is built.

Set NANOCLOUD_TEST_STATE to a folder; what is missing there is built first, which downloads packages.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nanocloud.config import NodeConfig
from nanocloud_dockyard import recipes
from nanocloud_dockyard.builder import Builder
from nanocloud_dockyard.check.checking import Checker

STATE = os.environ.get("NANOCLOUD_TEST_STATE")
pytestmark = [pytest.mark.root, pytest.mark.images]


# One that takes a file from elsewhere cannot be built everywhere; its own test checks it around a stand-in.
BUILT_OF_PACKAGES = [service for service in recipes.services() if not recipes.load(service).artifacts]


@pytest.mark.parametrize("service", BUILT_OF_PACKAGES)
def test_image_of_the_catalogue_keeps_every_rule(service: str) -> None:
    state = Path(str(STATE))
    Builder(state, progress=lambda subject, message: print(f"{subject}: {message}")).build(service)
    config = NodeConfig(state_dir=state)
    checker = Checker(config=config, server=None, given={}, seconds=0.0, tell=print)
    report = checker.check(service)
    # How old an image is depends on when it was built, not on its recipe.
    assert [finding for finding in report.findings if finding.rule != "image-age"] == [], report.text()
