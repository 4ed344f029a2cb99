from __future__ import annotations

import pytest

from nanocloud.objects import ObjectStore
from nanocloud.testkit.api import ApiClient


@pytest.fixture
def api(store: ObjectStore) -> ApiClient:
    return ApiClient.over(store)
