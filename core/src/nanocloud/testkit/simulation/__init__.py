"""The whole control plane in one process on fakes, in virtual time: for single stories, and for random ones by seed."""

from nanocloud.testkit.simulation.machine import KEEP_IMAGES_SECONDS, Providers, Simulation
from nanocloud.testkit.simulation.server import PATIENCE_SECONDS, Server
from nanocloud.testkit.simulation.story import Broken, Told, replay_command, tell

__all__ = [
    "KEEP_IMAGES_SECONDS",
    "PATIENCE_SECONDS",
    "Broken",
    "Providers",
    "Server",
    "Simulation",
    "Told",
    "replay_command",
    "tell",
]
