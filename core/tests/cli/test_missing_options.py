"""What is said of required options where nobody can be asked; typing at a terminal is tested on a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nanocloud.cli.prompts import MissingOptionsError, missing_options, supply
from nanocloud.cli.services import parse_options
from nanocloud.client.api import ApiError
from nanocloud.errors import UsageError
from nanocloud.planning import options_schema
from nanocloud.testkit.planning import contract_of

SCHEMA = options_schema(contract_of({"domain": [], "pin": [], "secret_1": ["pin"], "port_1": []}))


class Catalogue:
    """An API that knows the service ``app`` and the image ``reg.example/app``."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []

    def request(self, method: str, path: str, *, body: Any = None) -> Any:
        self.asked.append((method, path, body))
        if path.endswith("/nope"):
            raise ApiError(404, {}, path)
        return {"status": {"schema": SCHEMA}}


def refusal(*causes: tuple[str, str]) -> ApiError:
    details = {"causes": [{"field": field, "reason": reason, "message": "..."} for field, reason in causes]}
    return ApiError(422, {"details": details}, "/plan")


def test_options_are_missing_when_nothing_else_is_wrong() -> None:
    one, other = ("spec.options.a", "FieldValueRequired"), ("spec.options.b", "FieldValueRequired")
    assert missing_options(refusal(one, other)) == ["a", "b"]
    assert missing_options(refusal(one, ("spec.options.b", "FieldValueInvalid"))) == []
    assert missing_options(refusal(("spec.service", "FieldValueRequired"))) == []
    assert missing_options(ApiError(503, {}, "/plan")) == []


def test_the_error_lists_every_option_with_what_is_allowed() -> None:
    with pytest.raises(MissingOptionsError) as caught:
        supply(Catalogue(), "app", None, ["domain", "pin", "port_1"])  # type: ignore[arg-type]
    assert str(caught.value).startswith(
        "app needs 3 options that have no default: domain (any text), pin (secret), port_1 (port[/proto], or "
    )
    assert caught.value.hint == "add --option domain=VALUE --option-file pin=FILE --option port_1=VALUE"


def test_an_image_is_asked_for_its_own_options() -> None:
    api = Catalogue()
    with pytest.raises(MissingOptionsError, match=r"domain \(any text\)"):
        supply(api, "app", "reg.example/app", ["domain"])  # type: ignore[arg-type]
    assert api.asked == [("POST", "/apis/nanocloud.io/v1/catalogue", {"spec": {"image": "reg.example/app"}})]


def test_what_nobody_describes_is_taken_for_a_secret() -> None:
    with pytest.raises(MissingOptionsError, match=r"pin \(secret\)"):
        supply(Catalogue(), "nope", None, ["pin"])  # type: ignore[arg-type]


def test_options_from_words_and_files(tmp_path: Path) -> None:
    (tmp_path / "pin").write_text("12=34\n")
    assert parse_options(["a=1=2", "b="], [f"pin={tmp_path}/pin"]) == {"a": "1=2", "b": "", "pin": "12=34"}


@pytest.mark.parametrize(
    ("words", "files", "said"),
    [
        (["a"], [], "--option 'a' is not KEY=VALUE"),
        (["=a"], [], "--option '=a' is not KEY=VALUE"),
        ([], ["a="], "--option-file 'a=' is not KEY=FILE"),
        (["pin=1234"], ["pin=x"], "option pin is given twice"),
        ([], ["pin=/nonexistent"], "--option-file pin: cannot read /nonexistent: No such file or directory"),
        ([], ["pin=/bin/true"], "--option-file pin: /bin/true is not text"),
    ],
)
def test_words_that_are_no_options_are_refused(words: list[str], files: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_options(words, files)
    assert str(caught.value) == said
