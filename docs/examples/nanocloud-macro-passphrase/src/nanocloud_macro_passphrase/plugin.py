"""Registers what this package provides and does nothing else."""

from nanocloud import hookimpl

from nanocloud_macro_passphrase.macro import PassphraseMacro

NANOCLOUD_CONTRACTS = {"macro": "1.0"}


@hookimpl
def nanocloud_macro_providers() -> list[PassphraseMacro]:
    return [PassphraseMacro()]
