"""Secrets at rest: envelope encryption under the node's key."""

from nanocloud.secrets.envelope import Envelope, create_key, load_envelope, new_key

__all__ = ["Envelope", "create_key", "load_envelope", "new_key"]
