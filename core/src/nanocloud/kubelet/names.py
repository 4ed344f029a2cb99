"""Which names resolve to which pods.

A bundle's pod is ``<bundle>.<namespace>.svc``, and ``<bundle>.nanocloud.local`` where no other namespace came first:
``default`` wins, then the first by name.
"""

from __future__ import annotations

from collections import defaultdict
from ipaddress import ip_address
from typing import TYPE_CHECKING

from nanocloud.kubelet.translate import CLUSTER_DOMAIN
from nanocloud.models.bundle import BUNDLE_LABEL
from nanocloud.models.meta import is_deleting, labels_of, namespace_of, uid_of

if TYPE_CHECKING:
    from nanocloud.models.meta import Object
    from nanocloud.providers.network import IPAddress

_Addresses = tuple["IPAddress", ...]


class NameTable:
    """Kept pod by pod: a change costs what its bundle has, not what there is."""

    def __init__(self) -> None:
        self.names: dict[str, _Addresses] = {}
        """Lower-case names without a final dot, each with the addresses of its pods."""
        self._owners: dict[str, tuple[str, str]] = {}  # by uid of the pod: bundle and namespace
        self._pods: defaultdict[str, defaultdict[str, dict[str, _Addresses]]] = defaultdict(lambda: defaultdict(dict))

    def put(self, pod: Object) -> bool:
        """Take in a pod as it is now; True where a name changed."""
        bundle, namespace, uid = labels_of(pod).get(BUNDLE_LABEL), namespace_of(pod), uid_of(pod)
        addresses = tuple(ip_address(entry["ip"]) for entry in (pod.get("status") or {}).get("podIPs") or [])
        if not bundle or not addresses or is_deleting(pod):
            return self.drop(uid)
        if self._pods[bundle][namespace].get(uid) == addresses:
            return False
        self._owners[uid] = bundle, namespace
        self._pods[bundle][namespace][uid] = addresses
        self._write(bundle, namespace)
        return True

    def drop(self, uid: str) -> bool:
        """Take out a pod; True where a name changed."""
        if uid not in self._owners:
            return False
        bundle, namespace = self._owners.pop(uid)
        del self._pods[bundle][namespace][uid]
        self._write(bundle, namespace)
        return True

    def _write(self, bundle: str, namespace: str) -> None:
        """Both names of a bundle whose pods changed."""
        places = self._pods[bundle]
        self._set(f"{bundle}.{namespace}.svc", sum(places[namespace].values(), ()))
        if not places[namespace]:
            del places[namespace]
        first = min(places, key=lambda place: (place != "default", place), default=None)
        self._set(f"{bundle}.{CLUSTER_DOMAIN}", next(iter(places[first].values())) if first is not None else ())
        if not places:
            del self._pods[bundle]

    def _set(self, name: str, addresses: _Addresses) -> None:
        if addresses:
            self.names[name] = addresses
        else:
            self.names.pop(name, None)
