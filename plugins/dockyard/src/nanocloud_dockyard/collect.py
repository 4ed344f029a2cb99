"""Removes what no image in use needs: image records, documents, layers, and blobs of the layout that nothing names.

The layout's own images stay: they are the catalogue. Blocks.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nanocloud.errors import NanocloudError
from nanocloud.providers.image import Digest
from nanocloud_dockyard.assembly import parents_layer
from nanocloud_dockyard.layout import LayoutSource
from nanocloud_dockyard.media import INDEX_TYPES, media_type_of, parse_index, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from nanocloud_dockyard.store import Store


def collect(store: Store, keep: Set[Digest]) -> list[Digest]:
    """Remove images that are not in ``keep`` and what only they needed; ``keep`` may name layers too.

    Layers are only taken out of sight; ``Store.sweep`` removes them, which takes longer.

    Returns:
        The manifest digests that went.
    """
    images = store.images()
    gone = sorted(images.keys() - keep)
    for digest in gone:
        store.drop_image(digest)
    remaining = [record for digest, record in images.items() if digest in keep]
    layers = {layer for record in remaining for layer in (*record.layers, parents_layer(record.layers))}
    documents = {document for record in remaining for document in record.documents}
    store.drop_layers(lambda diff_id: diff_id in layers or diff_id in keep)
    store.drop_documents(lambda digest: digest in documents)
    _collect_layout(store, documents)
    return gone


def _collect_layout(store: Store, documents: Set[Digest]) -> None:
    folder = store.layout / "blobs" / "sha256"
    if not folder.is_dir():
        return
    with _locked(store):
        source = LayoutSource(store.layout, None)
        try:
            named = {d.digest for d in source.descriptors()}
            needed = set(documents)
            for digest in named | documents:
                needed |= _reached(source, digest)
        except NanocloudError:
            return  # a layout that cannot be read says nothing about what it needs
        for path in folder.iterdir():
            if Digest(f"sha256:{path.name}") not in needed:
                path.unlink(missing_ok=True)


def _reached(source: LayoutSource, digest: Digest) -> set[Digest]:
    """``digest`` and what it names, if it is in the layout and an index or manifest."""
    data = source.blob(digest)
    if data is None:
        return {digest}
    try:
        kind = media_type_of(data, "", str(digest))
    except NanocloudError:
        return {digest}  # a configuration
    if kind in INDEX_TYPES:
        inner = (_reached(source, d.digest) for d in parse_index(data, str(digest)))
        return {digest}.union(*inner)
    manifest = parse_manifest(data, str(digest))
    return {digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)}


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    """The lock of ``layout_writer``: an image that is being added names its blobs last."""
    fd = os.open(store.layout.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
