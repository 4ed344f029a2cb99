"""The pytest plugin for conformance suites: ``pytest -p nanocloud.testkit.plugin``.

A test of a suite that fails names the sentence of the contract that it holds, in its report and in the summary. Tests
that are marked ``root`` change the machine, and are skipped for other users. The suites run under trio without any
configuration, some in virtual time. Asserts in suites show their values as those of any test file.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

from nanocloud.testkit.sentences import quoted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from trio.abc import Clock

    from nanocloud.testkit.sentences import Sentence

pytest.register_assert_rewrite("nanocloud.testkit.suites")

SECTION = "contract"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: changes the machine (mounts, namespaces, containers); skips without root")
    if not config.pluginmanager.has_plugin("trio"):
        raise pytest.UsageError("the conformance suites need pytest-trio: pip install 'nanocloud[testkit]'")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if (suite := suite_of(item)) is not None and inspect.iscoroutinefunction(getattr(item, "function", None)):
            run = trio.run if suite.virtual_time is None else partial(_run_in_virtual_time, suite.virtual_time)
            item.add_marker(pytest.mark.trio(run=run), append=False)  # before what a trio_mode of the user's adds


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.skip("changes the machine: needs root")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if suite_of(item) is not None and call.excinfo is not None:
        call.excinfo = _alone(call.excinfo)
    report = yield
    # What fails before or after is a fixture: that says nothing about the sentence.
    if report.when == "call" and report.failed and (sentence := sentence_of(item)) is not None:
        report.sections.insert(0, (SECTION, str(sentence)))
        # What the summary shows of a failure. A report without it (an error of pytest itself) has the section.
        if (crash := getattr(report.longrepr, "reprcrash", None)) is not None:
            shown: Any = report.longrepr
            shown.reprcrash = dataclasses.replace(crash, message=f"{sentence} - {crash.message}")
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every broken sentence once: the lines of pytest's own summary end where the terminal does."""
    failed = terminalreporter.getreports("failed")
    broken = dict.fromkeys(text for report in failed for name, text in report.sections if name == SECTION)
    if broken:
        terminalreporter.section("sentences of contracts that do not hold")
        for sentence in broken:
            terminalreporter.line(sentence)


def suite_of(item: pytest.Item) -> Any:
    """The class of a test if it is a suite's."""
    # By name: importing the suites here would be too early for their asserts.
    bases = inspect.getmro(getattr(item, "cls", None) or object)
    return bases[0] if any(base.__name__ == "ProviderSuite" for base in bases) else None


def sentence_of(item: pytest.Item) -> Sentence | None:
    """The words of the contract that a suite's test holds; None for other tests, also those added in a subclass."""
    # Of the class: pytest-trio puts a function of its own into the item.
    suite = suite_of(item)
    quote = inspect.getdoc(getattr(suite, getattr(item, "originalname", ""), None))
    if suite is None or quote is None:
        return None
    try:
        first, *more = quoted(suite.contract, quote)
    except LookupError:
        return None
    return first._replace(text=" ".join(sentence.text for sentence in (first, *more)))


def _alone(caught: pytest.ExceptionInfo[BaseException]) -> pytest.ExceptionInfo[BaseException]:
    """An exception that trio's nurseries wrapped, without its groups: it is shown with its lines and values then."""
    exception = caught.value
    while isinstance(exception, BaseExceptionGroup) and len(exception.exceptions) == 1:
        exception = exception.exceptions[0]
    return pytest.ExceptionInfo.from_exception(exception)


def _run_in_virtual_time(
    pause_seconds: float, test: Callable[[], Awaitable[None]], *, clock: Clock | None, instruments: Any
) -> None:
    trio.run(test, clock=clock or MockClock(autojump_threshold=pause_seconds), instruments=instruments)
