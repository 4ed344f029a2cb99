"""What the words are worth."""

import re

import pytest
from nanocloud.errors import InvalidError
from nanocloud.testkit.suites.macro import CONTEXT

from nanocloud_macro_passphrase.macro import PassphraseMacro
from nanocloud_macro_passphrase.words import word

WORD = "([bdfghjklmnprstvz][aiou]){2}[bdfghjklmnprstvz]"


def test_words_are_those_of_the_proposal() -> None:
    # 127.0.0.1, 63.84.220.193 and 147.67.119.2, as its table has them
    assert [word(number) for number in (0x7F00, 0x0001)] == ["lusab", "babad"]
    assert [word(number) for number in (0x3F54, 0xDCC1)] == ["gutih", "tugad"]
    assert [word(number) for number in (0x9343, 0x7702)] == ["natag", "lisaf"]


def test_every_number_has_a_word_of_its_own() -> None:
    words = {word(number) for number in range(1 << 16)}
    assert len(words) == 1 << 16
    assert all(re.fullmatch(WORD, each) for each in words)


@pytest.mark.parametrize(("arguments", "count"), [((), 5), (("4",), 4), (("12",), 12)])
async def test_passphrases_are_secret_and_differ(arguments: tuple[str, ...], count: int) -> None:
    made = [await PassphraseMacro().expand("passphrase", arguments, CONTEXT) for _ in range(50)]
    assert all(value.secret for value in made)
    assert len({value.value for value in made}) == 50
    for value in made:
        assert re.fullmatch(f"{WORD}(-{WORD}){{{count - 1}}}", value.value)


async def test_a_mistake_says_what_is_allowed() -> None:
    with pytest.raises(InvalidError, match=r"^!passphrase many is not !passphrase \[WORDS\]; words are 4 to 32"):
        await PassphraseMacro().expand("passphrase", ("many",), CONTEXT)
