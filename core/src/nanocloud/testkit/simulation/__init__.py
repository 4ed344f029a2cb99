"""The whole control plane in one process on fakes, in virtual time: for single stories, and for random ones by seed."""

from nanocloud.testkit.simulation.machine import KEEP_IMAGES_SECONDS, Providers, Simulation
from nanocloud.testkit.simulation.server import PATIENCE_SECONDS, Server

__all__ = ["KEEP_IMAGES_SECONDS", "PATIENCE_SECONDS", "Providers", "Server", "Simulation"]
