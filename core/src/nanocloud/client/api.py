"""Requests to the API over one connection, for commands that start and end."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from nanocloud.client.endpoint import Endpoint
from nanocloud.client.errors import ApiError, CurlPrinted, UnreachableError, unreachable
from nanocloud.client.http import ClosedError, Connection, ProtocolError, Response
from nanocloud.client.paths import CATALOGUE_PATH, bundles_path, core_path

__all__ = ["CATALOGUE_PATH", "Api", "ApiError", "CurlPrinted", "UnreachableError", "bundles_path", "core_path"]

_TIMEOUT_SECONDS = 60.0


class Api:
    """One server. With ``show`` nothing is sent: the equivalent curl command goes there."""

    def __init__(self, endpoint: Endpoint, *, show: Callable[[str], None] | None = None) -> None:
        self.endpoint = endpoint
        self._show = show
        self._connection: Connection | None = None

    @property
    def is_live(self) -> bool:
        """False where requests are only shown."""
        return self._show is None

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        """Send and return the JSON answer.

        Raises:
            ApiError: the server said no.
            UnreachableError: nobody answers there.
        """
        return _json(self._content(method, path, query, body, content_type))

    def content(self, method: str, path: str, *, query: Mapping[str, str] | None = None) -> bytes:
        """Like ``request``, for an answer that is not JSON."""
        return self._content(method, path, query, None, "application/json")

    def _content(self, method: str, path: str, query: Mapping[str, str] | None, body: Any, content_type: str) -> bytes:
        response = self._send(method, path, query, body, content_type)
        try:
            content = response.read()
        except (OSError, ProtocolError) as exc:
            raise unreachable(self.endpoint.server, exc) from exc
        if response.status >= 400:
            data = _json(content)
            raise ApiError(response.status, data if isinstance(data, dict) else {}, path)
        return content

    def stream(self, path: str, *, query: Mapping[str, str] | None = None) -> Generator[bytes, None, None]:
        """Lines as they come, until the server ends the stream; on a connection of its own, without a time limit."""
        other = Api(self.endpoint, show=self._show)
        response = other._send("GET", path, query, None, "application/json", timeout=None)
        if response.status >= 400:
            data = _json(response.read())
            raise ApiError(response.status, data if isinstance(data, dict) else {}, path)
        try:
            while line := response.readline():
                yield line
        except (OSError, ProtocolError) as exc:
            raise UnreachableError(f"the connection to {self.endpoint.server} broke: {exc}") from exc
        finally:
            other.close()

    def watch(
        self, path: str, *, query: Mapping[str, str] | None = None
    ) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """Watch events as (type, object)."""
        for line in self.stream(path, query={**(query or {}), "watch": "true"}):
            event = json.loads(line)
            if event["type"] == "ERROR":
                raise ApiError(int(event["object"].get("code", 500)), event["object"], path)
            yield event["type"], event["object"]

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        *,
        timeout: float | None = _TIMEOUT_SECONDS,
    ) -> Response:
        target = path + (f"?{urlencode(query)}" if query else "")
        payload = None if body is None else json.dumps(body).encode()
        headers = {"Accept": "application/json"}
        if payload is not None:
            headers["Content-Type"] = content_type
        if self.endpoint.token:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        if self._show is not None:
            self._show(self._curl(method, target, payload, headers))
            raise CurlPrinted
        parts = urlsplit(self.endpoint.server)
        for attempt in (1, 2):
            try:
                connection = self._connect(timeout)
                return connection.request(method, parts.path + target, host=parts.netloc, headers=headers, body=payload)
            except (ClosedError, BrokenPipeError, ConnectionResetError) as exc:
                # A kept connection that the server closed meanwhile; a fresh one tells whether it is there at all.
                self.close()
                if attempt == 2 or method not in ("GET", "PUT", "DELETE"):
                    raise unreachable(self.endpoint.server, exc) from exc
            except (OSError, ProtocolError) as exc:
                self.close()
                raise unreachable(self.endpoint.server, exc) from exc
        raise AssertionError("unreachable")

    def _connect(self, timeout: float | None) -> Connection:
        if self._connection is None:
            parts = urlsplit(self.endpoint.server)
            context = self.endpoint.ssl_context()
            self._connection = Connection(parts.hostname or "", parts.port or 443, context, timeout=timeout)
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _curl(self, method: str, target: str, payload: bytes | None, headers: Mapping[str, str]) -> str:
        words = ["curl"]
        for option, value in (
            ("--cacert", self.endpoint.ca),
            ("--cert", self.endpoint.certificate),
            ("--key", self.endpoint.key),
        ):
            if isinstance(value, Path):
                words += [option, str(value)]
            elif value is not None:
                words += [option, f"<{option[2:]}.pem from the kubeconfig>"]
        words += ["-X", method]
        for name, text in headers.items():
            shown = "Bearer $TOKEN" if name == "Authorization" else text
            words += ["-H", f"{name}: {shown}"]
        if payload is not None:
            words += ["-d", payload.decode()]
        return shlex.join([*words, f"{self.endpoint.server}{target}"])


def _json(content: bytes) -> Any:
    try:
        return json.loads(content) if content else None
    except ValueError:
        return {"message": content.decode(errors="replace")[:300]}
