"""One file by HTTP, in pieces, the way the host reaches the network: its proxies, its authorities.

Redirects are followed here and not by the library: never from TLS to plain HTTP. A password in a URL goes to the host
that it stands for and stands in no message.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx2

from nanocloud import __version__
from nanocloud_dockyard.artifacts import UnusableError
from nanocloud_dockyard.limits import MAX_REDIRECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PIECE_BYTES = 1 << 20


def pieces(source: str) -> Iterator[bytes]:
    """The body of a 200.

    Raises:
        UnusableError: no answer, another one, or a redirect that must not be followed.
    """
    with httpx2.Client(
        verify=ssl.create_default_context(),
        timeout=_TIMEOUT,
        headers={"User-Agent": f"nanocloud/{__version__}", "Accept-Encoding": "identity"},
    ) as client:
        try:
            yield from _followed(client, source)
        except httpx2.InvalidURL as exc:
            raise UnusableError(f"is not a URL that can be fetched: {exc}") from exc
        except (httpx2.TransportError, httpx2.StreamError) as exc:
            raise UnusableError(f"cannot be fetched: {exc or type(exc).__name__}") from exc


def _followed(client: httpx2.Client, source: str) -> Iterator[bytes]:
    url = httpx2.URL(source)
    if url.scheme not in ("http", "https") or not url.host:
        raise UnusableError("is no http or https address")
    for _ in range(MAX_REDIRECTS + 1):
        with client.stream("GET", url) as response:
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                if response.status_code != 200:
                    raise UnusableError(f"cannot be fetched: {url.host} answered {response.status_code}")
                yield from response.iter_raw(_PIECE_BYTES)
                return
        target = url.join(location)
        if target.scheme != "https" and not target.scheme == url.scheme == "http":
            raise UnusableError(f"cannot be fetched: {url.host} redirects to {target.scheme}://, which is not https")
        url = target
    raise UnusableError(f"cannot be fetched: it redirects more than {MAX_REDIRECTS} times")
