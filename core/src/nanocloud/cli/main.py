"""``nanocloud``: finds the command, runs it, turns errors into one or two lines and an exit status.

Exit status: 0 done, 1 the operation failed, 2 usage or fatal; of a command that shows a plan 0 nothing to do,
2 changes, 1 any error. A traceback appears only with ``--debug``.

Typer takes longer to import than the quick commands take to run: what is plain goes around it.
"""

from __future__ import annotations

import os
import sys

from nanocloud.cli.words import asks_for_a_plan, asks_for_help, leaves_nothing, quick_call
from nanocloud.client.errors import ApiError, CurlPrinted, UnreachableError
from nanocloud.errors import ConfigError, NanocloudError, PluginError, UnauthorizedError, UsageError

FATAL = (UsageError, ConfigError, PluginError, UnreachableError, UnauthorizedError)
_UNAUTHORIZED = 401


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; the exit status is returned."""
    words = sys.argv[1:] if arguments is None else arguments
    fatal = 1 if asks_for_a_plan(words) else 2  # where 2 means that there are changes
    debug = "--debug" in words[: words.index("--")] if "--" in words else "--debug" in words
    try:
        return _run(words, usage=fatal)
    except CurlPrinted:
        return 0
    except KeyboardInterrupt:
        print("aborted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except NanocloudError as exc:
        if debug:
            raise
        print_error(exc)
        return fatal if isinstance(exc, FATAL) or (isinstance(exc, ApiError) and exc.code == _UNAUTHORIZED) else 1
    except Exception as exc:
        if debug:
            raise
        _print_error(f"internal error: {type(exc).__name__}: {exc}", "run it again with --debug for the traceback")
        return fatal


def _run(words: list[str], *, usage: int) -> int:
    if asks_for_help(words):
        from nanocloud.cli.summary import summary

        print(summary())
        return 0
    if call := quick_call(words):
        return call() or 0
    from nanocloud.cli.app import run_words

    return run_words(words, usage=usage)


def print_error(exc: NanocloudError) -> None:
    """One line what is wrong, one line what to do."""
    _print_error(str(exc), exc.hint)


def _print_error(message: str, hint: str) -> None:
    from nanocloud.output import harmless  # most commands end well

    print(f"error: {harmless(message)}", file=sys.stderr)  # it may quote the server, and the server a container
    if hint:
        print(f"  {harmless(hint)}", file=sys.stderr)


def run() -> None:
    """The console script. A command that leaves nothing does without the interpreter's dismantling, which takes as long
    as its request."""
    code = main()
    if leaves_nothing(sys.argv[1:]) and _flushed():
        os._exit(code)
    sys.exit(code)


def _flushed() -> bool:
    """False where something did not arrive: the interpreter's own end says so."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return False
    return True
