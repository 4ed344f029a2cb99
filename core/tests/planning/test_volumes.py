from __future__ import annotations

from typing import Any

import pytest

from nanocloud.errors import InvalidError
from nanocloud.extension import Requester
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import PERSISTENT_VOLUME_CLAIM
from nanocloud.planning.volumes import FixedVolumes, refuse_other_volumes
from nanocloud.testkit.planning import plan_label, resolve_label

SOMEONE = Requester(name="someone")
THERE = {"volume_1": "/data", "volume_size_1": "1Gi", "volume_2": "/more", "volume_encrypted_2": "key:xfs"}


def bundle(options: Any, status: dict[str, str] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": "db"}, "spec": {"options": options}, "status": {"options": status or {}}}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"volume_size_1": "2Gi"}, "volume_size_1: '2Gi' is asked for, but the volume is there with 1Gi"),
        ({"volume_size_1": "512Mi"}, "volume_size_1: '512Mi' is asked for"),
        ({"volume_size_1": "big"}, "volume_size_1: 'big' is asked for"),
        ({"volume_encrypted_1": "key"}, "volume_encrypted_1: the volume is there without encryption"),
        ({"volume_encrypted_2": "other:xfs"}, "volume_encrypted_2: the volume is there encrypted with key:xfs"),
        ({"volume_size_1": "2Gi", "volume_encrypted_1": "key"}, "volume_encrypted_1: the volume is there without"),
    ],
)
def test_a_write_that_asks_for_another_volume_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        FixedVolumes().admit("update", BUNDLE, bundle(given), bundle({}, THERE), SOMEONE)
    assert said in str(caught.value)
    assert {cause.field for cause in caught.value.causes} == {f"spec.options.{name}" for name in given}
    assert "leave the option out" in caught.value.hint


@pytest.mark.parametrize(
    "given",
    [
        {},
        None,
        {"volume_size_1": "1Gi"},
        {"volume_size_1": "1024Mi"},
        {"volume_1": "/elsewhere"},
        {"volume_encrypted_2": "key:xfs"},
        {"volume_size_3": "5Gi"},  # whatever it is, there is no such volume
        {"title": "2Gi"},
        {"volume_size_1": 7},  # not text: the schema refuses it
        "nonsense",
    ],
)
def test_other_writes_pass(given: Any) -> None:
    wanted = bundle(given)
    assert FixedVolumes().admit("update", BUNDLE, wanted, bundle({}, THERE), SOMEONE) is wanted


def test_before_the_volume_is_there_any_size_passes() -> None:
    wanted = bundle({"volume_size_1": "2Gi"})
    assert FixedVolumes().admit("update", BUNDLE, wanted, bundle({"volume_size_1": "1Gi"}), SOMEONE) is wanted
    assert FixedVolumes().admit("create", BUNDLE, wanted, None, SOMEONE) is wanted
    claim: dict[str, Any] = {"spec": {}}
    assert FixedVolumes().admit("update", PERSISTENT_VOLUME_CLAIM, claim, claim, SOMEONE) is claim


async def test_a_plan_is_held_against_the_claims_that_are_there() -> None:
    settings = {"size": ["1Gi"], "volume_1": ["/data"], "volume_size_1": ["*size", "$size"]}
    made = plan_label(settings, await resolve_label(settings))
    stored = {claim["metadata"]["name"]: claim for claim in made.claim_objects}
    refuse_other_volumes(made.claims, stored)
    refuse_other_volumes(made.claims, {})
    moved = plan_label(settings, await resolve_label(settings, {"volume_1": "/other", "size": "1024Mi"}))
    refuse_other_volumes(moved.claims, stored)
    # Also where the size comes from another option.
    larger = plan_label(settings, await resolve_label(settings, {"size": "2Gi"}))
    with pytest.raises(InvalidError, match="volume_size_1: '2Gi' is asked for, but the volume is there with 1Gi"):
        refuse_other_volumes(larger.claims, stored)
    locked = {**settings, "volume_encrypted_1": ["key"]}
    encrypted = plan_label(locked, await resolve_label(locked))
    with pytest.raises(InvalidError, match="the volume is there without encryption"):
        refuse_other_volumes(encrypted.claims, stored)
    with pytest.raises(InvalidError, match="the volume is there encrypted with key"):
        refuse_other_volumes(made.claims, {claim["metadata"]["name"]: claim for claim in encrypted.claim_objects})
