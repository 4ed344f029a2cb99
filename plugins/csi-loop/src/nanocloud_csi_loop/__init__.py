"""Volumes as loop-backed ext4 file systems; see ``provider.py``."""

from nanocloud_csi_loop.config import CsiLoopConfig
from nanocloud_csi_loop.provider import LoopVolumes

__all__ = ["CsiLoopConfig", "LoopVolumes"]
