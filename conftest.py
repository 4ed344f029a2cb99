"""For all tests.

Generated examples are judged by what they show, not by how fast a shared machine is. Where tests run side by side
(``pytest -n``), those that change the machine run one after another: they look for what is left on it.
"""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

END_TO_END = Path(__file__).parent / "tests" / "e2e"

settings.register_profile("workspace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("workspace")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist looks at the groups in this hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items if config.pluginmanager.hasplugin("xdist") else ():
        changes_the_machine = item.get_closest_marker("root") is not None or END_TO_END in item.path.parents
        item.add_marker(pytest.mark.xdist_group("machine" if changes_the_machine else str(item.path)))
