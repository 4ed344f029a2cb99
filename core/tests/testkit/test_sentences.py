"""The suites quote the contracts."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from nanocloud.testkit.sentences import quoted
from nanocloud.testkit.suites import BindingProviderSuite, ImageProviderSuite, StorageProviderSuite
from nanocloud.testkit.suites.base import ProviderSuite

SUITES: list[type[ProviderSuite[Any]]] = [BindingProviderSuite, ImageProviderSuite, StorageProviderSuite]


def quotes_of(suite: type[ProviderSuite[Any]]) -> dict[str, str]:
    """The docstrings of a suite's tests."""
    return {name: inspect.getdoc(test) or "" for name, test in inspect.getmembers(suite) if name.startswith("test_")}


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.contract)
def test_every_test_quotes_its_contract(suite: type[ProviderSuite[Any]]) -> None:
    wrong = []
    for name, quote in quotes_of(suite).items():
        try:
            quoted(suite.contract, quote)
        except LookupError as exc:
            wrong.append(f"{name}: {exc}")
    assert wrong == []
