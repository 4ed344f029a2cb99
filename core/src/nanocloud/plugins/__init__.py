"""Finding plugins, asking them, and outliving those that misbehave."""

from nanocloud.plugins.host import PATIENCE_SECONDS, ROLES, Offer, PluginConflictError, PluginHost
from nanocloud.plugins.records import PluginInfo, PluginState

__all__ = ["PATIENCE_SECONDS", "ROLES", "Offer", "PluginConflictError", "PluginHost", "PluginInfo", "PluginState"]
