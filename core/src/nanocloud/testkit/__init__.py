"""In-memory providers that keep the contracts, for tests of everything that stands on providers.

The fakes need trio and nothing else: no root, no kernel, no pytest; with a ``MockClock`` hours of restarts take no
time. They are deterministic: addresses, process ids and times follow from the order of calls alone. ``suites`` holds
what any provider of a contract must keep, as pytest classes; the fakes pass them too.
"""

from nanocloud.testkit.binding import FakeBinding
from nanocloud.testkit.calls import Calls
from nanocloud.testkit.disk import FakeDisk
from nanocloud.testkit.faults import Call, CrashedError, Fault, FaultChances, FaultPlan, Faults
from nanocloud.testkit.images import FakeImages
from nanocloud.testkit.network import FakeNetwork
from nanocloud.testkit.runtime import FakeContainer, FakeExec, FakeProgram, FakeRuntime
from nanocloud.testkit.storage import FakeStorage
from nanocloud.testkit.volume import FakeVolume

__all__ = [
    "Call",
    "Calls",
    "CrashedError",
    "FakeBinding",
    "FakeContainer",
    "FakeDisk",
    "FakeExec",
    "FakeImages",
    "FakeNetwork",
    "FakeProgram",
    "FakeRuntime",
    "FakeStorage",
    "FakeVolume",
    "Fault",
    "FaultChances",
    "FaultPlan",
    "Faults",
]
