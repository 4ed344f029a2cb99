"""The fakes pass the suites that the real providers pass."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the module beside this one

from subjects import BindingSubject, ImageSubject, NetworkSubject, RuntimeSubject, StorageSubject, VolumeSubject


class TestFakeStorage(StorageSubject):
    pass


class TestFakeRuntime(RuntimeSubject):
    pass


class TestFakeNetwork(NetworkSubject):
    pass


class TestFakeVolume(VolumeSubject):
    pass


class TestFakeImages(ImageSubject):
    pass


class TestFakeBinding(BindingSubject):
    pass
