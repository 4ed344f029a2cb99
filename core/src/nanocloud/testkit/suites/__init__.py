"""What any provider of a contract must keep, as pytest classes; needs pytest and pytest-trio.

A provider's package subclasses the suite of its contract and says by one fixture how to build the provider:

    class TestLoopVolumes(VolumeProviderSuite):
        @pytest.fixture
        def make_provider(self, tmp_path: Path) -> Callable[[], LoopVolumes]:
            return lambda: LoopVolumes(tmp_path / "volumes")

``make_provider`` builds a provider that is not open; called again, one over the same folders, as a restarted node
has it. The tests get the fixture ``provider``, which is open. Each test quotes the sentence of the contract that it
checks. What one test makes in the world outside the folders (mounts, namespaces), it removes by the provider's own
methods; a suite calls ``purge`` at the end where the provider has it.
"""

import pytest

# Before they are imported, so that a failing assert in a suite shows its values as in any test file.
pytest.register_assert_rewrite(
    *(f"{__name__}.{contract}" for contract in ("base", "macro", "network", "runtime", "volume"))
)
