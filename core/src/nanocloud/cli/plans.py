"""Plans on the terminal: what a change would do, as text or JSON, and the exit status that says whether it does any.

The status of every command that only shows a plan: 0 nothing to do, 2 changes, 1 an error of any kind. ``main`` sees
to the last, so that an error is never taken for a change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from nanocloud.errors import UsageError
from nanocloud.output import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Output = Annotated[str, typer.Option(help="Of the plan: text or json.")]
NOTHING, CHANGES = 0, 2


def check_output(output: str) -> None:
    if output not in ("text", "json"):
        raise UsageError(f"--output is {output!r}; allowed: text, json")


def show(bundles: Sequence[Mapping[str, Any]], output: str) -> int:
    """Print planned bundles, in order; returns the exit status."""
    if output == "json":
        from nanocloud.output import dump

        typer.echo(dump(list(bundles), "json"))
    else:
        for planned in bundles:
            why = f": {printable(planned['reason'])}" if planned.get("reason") else ""
            typer.echo(f"{planned['action']} {printable(planned['name'])} ({printable(planned['service'])}){why}")
            for line in planned["text"].splitlines():
                typer.echo(f"  {printable(line)}")
    return CHANGES if any(planned["changes"] for planned in bundles) else NOTHING


def tell_what_stays_behind(planned: Mapping[str, Any]) -> None:
    """Of a change that is about to be made: what it means for data and access that exist."""
    for change, line in zip(planned["changes"], planned["text"].splitlines(), strict=False):
        if change.get("note") and change["section"] != "pod":
            typer.echo(f"note: {printable(line[2:])}", err=True)
