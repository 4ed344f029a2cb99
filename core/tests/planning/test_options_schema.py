from __future__ import annotations

from nanocloud.planning import options_schema
from nanocloud.testkit.planning import WORDPRESS, contract_of


def test_the_schema_of_wordpress() -> None:
    schema = options_schema(contract_of(WORDPRESS))
    properties = schema["properties"]
    assert properties["database"] == {
        "type": "string",
        "enum": ["mariadb"],
        "default": "mariadb",
        "x-nanocloud-selects-service": ["mariadb"],
    }
    assert properties["database_transport"] == {"type": "string", "enum": ["plain", "tls", ""]}
    assert properties["database_password"] == {
        "type": "string",
        "maxLength": 32768,
        "x-nanocloud-macro": "!rand 32 alnum",
        "x-nanocloud-secret": True,
        "writeOnly": True,
    }
    assert properties["volume_size_1"] == {
        "type": "string",
        "maxLength": 32768,
        "default": "1Gi",
        "x-nanocloud-requires": ["volume_1"],
    }
    assert schema["additionalProperties"] is False
    assert "required" not in schema


def test_an_option_that_must_be_given_is_required() -> None:
    assert options_schema(contract_of({"domain": [], "?mail": []}))["required"] == ["domain"]
