"""What any provider of a contract must keep, as pytest classes; needs ``nanocloud[testkit]``.

A provider's package subclasses the suite of its contract and says by one fixture how to build the provider:

    class TestLoopVolumes(VolumeProviderSuite):
        @pytest.fixture
        def make_provider(self, tmp_path: Path) -> Callable[[], LoopVolumes]:
            return lambda: LoopVolumes(tmp_path / "volumes")

``make_provider`` builds a provider that is not open; called again, one over the same folders, as a restarted node
has it. The tests get the fixture ``provider``, which is open. The docstring of each test is the sentence of the
contract that it holds; ``pytest -p nanocloud.testkit.plugin`` shows it when the test fails. What one test makes in the
world outside the folders (mounts, namespaces), it removes by the provider's own methods; a suite calls ``purge`` at the
end where the provider has it.
"""

from nanocloud.testkit.suites.binding import BindingProviderSuite
from nanocloud.testkit.suites.image import ImageProviderSuite
from nanocloud.testkit.suites.macro import MacroProviderSuite
from nanocloud.testkit.suites.network import NetworkProviderSuite
from nanocloud.testkit.suites.runtime import RuntimeProviderSuite
from nanocloud.testkit.suites.storage import StorageProviderSuite
from nanocloud.testkit.suites.volume import VolumeProviderSuite

__all__ = [
    "BindingProviderSuite",
    "ImageProviderSuite",
    "MacroProviderSuite",
    "NetworkProviderSuite",
    "RuntimeProviderSuite",
    "StorageProviderSuite",
    "VolumeProviderSuite",
]
