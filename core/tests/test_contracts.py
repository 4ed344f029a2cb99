"""The versions of contracts: which statement of a plugin is understood, and which one fits this node."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

from nanocloud import contracts, hookspecs
from nanocloud.contracts import IncompatibleError, check_hooks, check_versions, contract_of, read_statement
from nanocloud.plugins import ROLES
from nanocloud.providers import CONTRACTS


@pytest.fixture
def later_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "CONTRACTS", {"runtime": "2.10", "network": "1.0", "extension": "1.0"})


@pytest.mark.usefixtures("later_node")
@pytest.mark.parametrize("version", ["2.0", "2.9", "2.10"])
def test_the_same_major_and_a_minor_up_to_the_nodes_fit(version: str) -> None:
    check_versions({"runtime": version})


@pytest.mark.usefixtures("later_node")
@pytest.mark.parametrize("version", ["1.0", "1.10", "2.11", "2.100", "3.0", "20.0"])
def test_another_major_and_a_higher_minor_are_refused_with_both_versions(version: str) -> None:
    with pytest.raises(IncompatibleError) as caught:
        check_versions({"network": "1.0", "runtime": version})
    assert str(caught.value) == f"built for runtime contract {version}; this node speaks 2.10"


@pytest.mark.usefixtures("later_node")
def test_every_contract_that_does_not_fit_is_named() -> None:
    with pytest.raises(IncompatibleError) as caught:
        check_versions({"runtime": "3.0", "network": "1.1"})
    assert str(caught.value) == (
        "built for runtime contract 3.0; this node speaks 2.10 and built for network contract 1.1; this node speaks 1.0"
    )


def test_a_contract_of_a_newer_node_is_let_pass() -> None:
    check_versions({"teleport": "7.0"})


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        (None, "states no NANOCLOUD_CONTRACTS, the contracts it was built for"),
        ("1", "NANOCLOUD_CONTRACTS is '1'; expected a mapping of contracts to versions"),
        (["runtime"], "NANOCLOUD_CONTRACTS is list; expected a mapping of contracts to versions"),
        ({1: "1.0"}, "NANOCLOUD_CONTRACTS names the contract 1; expected a word such as 'runtime'"),
        ({"\x1b[2J": "1.0"}, "NANOCLOUD_CONTRACTS names the contract '\\x1b[2J'; expected a word such as 'runtime'"),
        ({"runtime": 10**5000}, "NANOCLOUD_CONTRACTS states runtime int; expected a version such as '1.0'"),
        ({"runtime": 1.0}, "NANOCLOUD_CONTRACTS states runtime 1.0; expected a version such as '1.0'"),
        ({"runtime": "1"}, "NANOCLOUD_CONTRACTS states runtime '1'; expected a version such as '1.0'"),
        ({"runtime": "1.0.0"}, "NANOCLOUD_CONTRACTS states runtime '1.0.0'; expected a version such as '1.0'"),
        ({"runtime": "1.x"}, "NANOCLOUD_CONTRACTS states runtime '1.x'; expected a version such as '1.0'"),
        ({"runtime": "1.0\n"}, "NANOCLOUD_CONTRACTS states runtime '1.0\\n'; expected a version such as '1.0'"),
        ({"runtime": "\u0661.0"}, "NANOCLOUD_CONTRACTS states runtime '\u0661.0'; expected a version such as '1.0'"),
    ],
)
def test_a_malformed_statement_has_one_clear_reason(stated: Any, reason: str) -> None:
    with pytest.raises(IncompatibleError) as caught:
        read_statement(stated)
    assert str(caught.value) == reason


def test_a_long_value_does_not_fill_the_reason() -> None:
    with pytest.raises(IncompatibleError) as caught:
        read_statement({"runtime": "1" * 10_000})
    assert len(str(caught.value)) < 200


def test_a_long_name_does_not_fill_the_reason() -> None:
    with pytest.raises(IncompatibleError) as caught:
        read_statement({"r" * 10_000: "1.0"})
    assert len(str(caught.value)) < 200


def test_any_mapping_is_a_statement() -> None:
    assert read_statement(MappingProxyType({"runtime": "1.0"})) == {"runtime": "1.0"}
    assert read_statement({}) == {}


def test_every_hook_belongs_to_a_contract_and_every_contract_has_a_hook() -> None:
    hooks = [name for name in vars(hookspecs) if name.startswith("nanocloud_")]
    assert {contract_of(hook) for hook in hooks} == set(CONTRACTS)
    assert {role: contract_of(ROLES[role].hook) for role in ROLES} == {role: role for role in ROLES}
    assert contract_of("nanocloud_commands") == contract_of("nanocloud_admission") == "extension"


def test_a_hook_whose_contract_is_not_stated_is_refused() -> None:
    check_hooks({"runtime": "1.0"}, ["nanocloud_runtime_providers"])
    with pytest.raises(IncompatibleError) as caught:
        check_hooks({"runtime": "1.0"}, ["nanocloud_runtime_providers", "nanocloud_volume_providers"])
    assert str(caught.value) == (
        "implements nanocloud_volume_providers but states no volume contract; this node speaks 1.0"
    )
