"""Envelope encryption: each sealed value has a data key of its own, wrapped by the node's key.

Format of a sealed value, version 1 (lengths in bytes)::

    "NCE1" | node key id (8) | nonce (12) | wrapped data key (32 + 16) | nonce (12) | ciphertext + tag (n + 16)

Both layers are AES-256-GCM. The context (where the value belongs, such as a keyspace key) is authenticated with both,
so that a sealed value moved elsewhere does not open. The node key id is the start of the key's SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nanocloud.errors import CorruptError, NotFoundError
from nanocloud.files import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"NCE1"
_ID, _NONCE, _KEY, _TAG = 8, 12, 32, 16
_WRAPPED = _KEY + _TAG
_HEAD = len(_MAGIC) + _ID + _NONCE + _WRAPPED + _NONCE


class Envelope:
    """Seals and opens values under one node key of 32 bytes."""

    def __init__(self, node_key: bytes) -> None:
        if len(node_key) != _KEY:
            raise CorruptError(f"the node key has {len(node_key)} bytes instead of {_KEY}")
        self._id = hashlib.sha256(node_key).digest()[:_ID]
        self._cipher = AESGCM(node_key)
        self._digest_key = hmac.digest(node_key, b"nanocloud digest", "sha256")
        self._signing_key = hmac.digest(node_key, b"nanocloud signature", "sha256")

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Encrypt; ``context`` must be given again to open."""
        data_key, wrap_nonce, nonce = AESGCM.generate_key(256), os.urandom(_NONCE), os.urandom(_NONCE)
        bound = context.encode()
        wrapped = self._cipher.encrypt(wrap_nonce, data_key, bound)
        return _MAGIC + self._id + wrap_nonce + wrapped + nonce + AESGCM(data_key).encrypt(nonce, plaintext, bound)

    def digest(self, value: bytes, context: str) -> str:
        """32 hex digits that tell whether a value changed, and nothing about it to those without the node's key."""
        return hmac.digest(self._digest_key, context.encode() + b"\0" + value, "sha256").hex()[:32]

    def sign(self, message: bytes, context: str) -> str:
        """64 hex digits that only a holder of the node's key can make for that message and context."""
        return hmac.digest(self._signing_key, context.encode() + b"\0" + message, "sha256").hex()

    @property
    def key_id(self) -> str:
        """16 hex digits that tell one node key from another, and nothing else about it."""
        return self._id.hex()

    def unseal(self, sealed: bytes, context: str) -> bytes:
        """Decrypt what ``seal`` made.

        Raises:
            CorruptError: not a sealed value, another node's, another context's, or changed.
        """
        if len(sealed) < _HEAD + _TAG or not sealed.startswith(_MAGIC):
            raise CorruptError(f"{context}: not a sealed value")
        at = len(_MAGIC)
        if sealed[at : at + _ID] != self._id:
            raise CorruptError(f"{context}: sealed under another node key")
        at += _ID
        wrap_nonce, at = sealed[at : at + _NONCE], at + _NONCE
        wrapped, at = sealed[at : at + _WRAPPED], at + _WRAPPED
        nonce, at = sealed[at : at + _NONCE], at + _NONCE
        bound = context.encode()
        try:
            data_key = self._cipher.decrypt(wrap_nonce, wrapped, bound)
            return AESGCM(data_key).decrypt(nonce, sealed[at:], bound)
        except InvalidTag:
            raise CorruptError(f"{context}: the sealed value was changed or belongs elsewhere") from None


def new_key() -> bytes:
    """A key for an ``Envelope``."""
    return os.urandom(_KEY)


def create_key(path: Path) -> None:
    """Make the node key unless it is there; a lost key loses every secret, so it is never replaced."""
    if not path.exists():
        write_durably(path, new_key())


def load_envelope(path: Path) -> Envelope:
    """Raises NotFoundError where the node was not set up."""
    try:
        return Envelope(path.read_bytes())
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist", hint="run: nanocloud setup") from None
