"""Label and field selectors."""

from __future__ import annotations

import pytest

from nanocloud.errors import BadRequestError
from nanocloud.models.bundle import BUNDLE
from nanocloud.models.core import EVENT, NAMESPACE
from nanocloud.models.pod import POD
from nanocloud.models.selectors import parse

POD_OBJECT = {
    "metadata": {"name": "web-0", "namespace": "shop", "labels": {"app": "web", "tier": "front", "empty": ""}},
    "spec": {"nodeName": "node"},
    "status": {"phase": "Running"},
}


@pytest.mark.parametrize(
    ("labels", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web,tier = front", True),
        ("app!=web", False),
        ("missing!=x", True),
        ("app in (api, web)", True),
        ("app notin (web)", False),
        ("missing notin (web)", True),
        ("app", True),
        ("!app", False),
        ("!missing,app in (web),tier", True),
        ("empty=", True),
        ("app in (,web)", True),
        ("in=1", False),
        ("example.org/app=web", False),
    ],
)
def test_labels(labels: str, matches: bool) -> None:
    assert parse(POD, labels=labels).matches(POD_OBJECT) is matches


@pytest.mark.parametrize(
    "labels", ["=x", "a=b=c", "a in", "a in (b", "a b", "a,,b", ",", "-a", "a=-", "!", "a" * 5000, "a>1"]
)
def test_labels_that_cannot_be_read_are_refused(labels: str) -> None:
    with pytest.raises(BadRequestError, match="labelSelector"):
        parse(POD, labels=labels)


@pytest.mark.parametrize(
    ("fields", "matches"),
    [
        ("metadata.name=web-0", True),
        ("metadata.name==web-0,status.phase!=Failed", True),
        ("metadata.namespace=other", False),
        ("spec.nodeName=node,spec.nodeName=node", True),
        ("status.podIP=", True),
        (r"metadata.name=a\,b\=c", False),
    ],
)
def test_fields(fields: str, matches: bool) -> None:
    assert parse(POD, fields=fields).matches(POD_OBJECT) is matches


def test_unknown_fields_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(BadRequestError, match=r'"spec\.x"; bundles can be selected by metadata\.name, .*spec\.service'):
        parse(BUNDLE, fields="spec.x=1")
    with pytest.raises(BadRequestError, match="not supported"):
        parse(NAMESPACE, fields="metadata.namespace=a")
    with pytest.raises(BadRequestError, match="can't understand"):
        parse(POD, fields="metadata.name")


def test_the_source_of_an_event_is_its_component() -> None:
    assert parse(EVENT, fields="source=kubelet").matches({"metadata": {}, "source": {"component": "kubelet"}})


def test_the_one_name_that_can_match() -> None:
    assert parse(POD, fields="metadata.name=a,metadata.name=a").exact_name == "a"
    assert parse(POD, fields="metadata.name!=a").exact_name is None
    assert parse(POD, fields="metadata.name=a,metadata.name=b").exact_name is None
