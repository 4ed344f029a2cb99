"""Which names resolve to which pods; pure.

A bundle's pod is ``<bundle>.<namespace>.svc``, and ``<bundle>.nanocloud.local`` where no other namespace came first:
``default`` wins, then the first by name.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from nanocloud.kubelet.translate import CLUSTER_DOMAIN
from nanocloud.models.bundle import BUNDLE_LABEL
from nanocloud.models.meta import is_deleting, labels_of, namespace_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nanocloud.models.meta import Object
    from nanocloud.providers.network import IPAddress


def published_names(pods: Iterable[Object]) -> dict[str, tuple[IPAddress, ...]]:
    """Lower-case names without a final dot, each with the addresses of its pods."""
    names: dict[str, tuple[IPAddress, ...]] = {}
    for pod in sorted(pods, key=lambda pod: (namespace_of(pod) != "default", namespace_of(pod))):
        bundle, namespace = labels_of(pod).get(BUNDLE_LABEL), namespace_of(pod)
        addresses = tuple(ip_address(entry["ip"]) for entry in (pod.get("status") or {}).get("podIPs") or [])
        if not bundle or not addresses or is_deleting(pod):
            continue
        full = f"{bundle}.{namespace}.svc"
        names[full] = names.get(full, ()) + addresses
        names.setdefault(f"{bundle}.{CLUSTER_DOMAIN}", addresses)
    return names
