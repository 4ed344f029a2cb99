"""HTTP to registries: TLS, tokens, redirects. One attempt each; ``registry`` repeats what may succeed later.

Plain HTTP is spoken only to hosts that the configuration names. Redirects are followed here and not by the library:
what proves who we are goes to the host it is for and to no other, and nothing goes from TLS to plain HTTP.

Source: distribution specification 1.1; "Token Authentication" for the bearer flow; RFC 9110, 15.4 (redirects).
"""

from __future__ import annotations

import ssl
import time
from collections import defaultdict
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import httpx2
import orjson
import trio

from nanocloud import __version__
from nanocloud.errors import ConfigError, ImageError, NotFoundError
from nanocloud_dockyard.auth import CredentialFile, Credentials, parse_challenges
from nanocloud_dockyard.bodies import read_body, within
from nanocloud_dockyard.limits import MAX_REDIRECTS, MAX_TOKEN_BYTES
from nanocloud_dockyard.retry import TransientError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
    from pathlib import Path

    from nanocloud_dockyard.settings import DockyardConfig

_DOCKER_HUB_API = "registry-1.docker.io"
_TIMEOUT = httpx2.Timeout(60.0, connect=10.0)
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_METHOD = frozenset({307, 308})
_HEADERS_SECONDS = 90.0
"""A server that drips its headers is as good as none."""
_LATE = f"no answer within {_HEADERS_SECONDS:.0f} s"
_MAX_RETRY_AFTER_SECONDS = 60.0
_TOKEN_SLACK_SECONDS = 10.0
_HINT_AUTH = "credentials stand in the file that dockyard.auth_file names"


@attrs.frozen(kw_only=True)
class Endpoint:
    """A host that serves repositories: a registry, or a mirror of one below a prefix."""

    host: str
    prefix: str = ""
    plain: bool = False

    def url(self, repository: str, path: str) -> str:
        host = _DOCKER_HUB_API if self.host == "docker.io" else self.host
        name = f"{self.prefix}/{repository}" if self.prefix else repository
        return f"{'http' if self.plain else 'https'}://{host}/v2/{name}/{path}"

    def scope(self, repository: str, actions: str) -> str:
        return f"repository:{self.prefix + '/' if self.prefix else ''}{repository}:{actions}"


@attrs.frozen(kw_only=True)
class Ask:
    """One request, which can be sent again: after a challenge, or along a redirect."""

    url: httpx2.URL
    method: str = "GET"
    headers: dict[str, str] = attrs.field(factory=dict, repr=False)
    content: Callable[[], AsyncGenerator[bytes, None]] | None = None
    """Makes the body; ``headers`` say its length."""
    accepted: frozenset[int] = frozenset({200, 206})
    """Every other answer is an error."""
    actions: str = "pull"
    """What a token has to permit."""


@attrs.frozen
class _Token:
    authorization: str = attrs.field(repr=False)
    expires_at: float


class Transport:
    """Clients and tokens for all registries of the node. Use as an async context manager."""

    def __init__(self, config: DockyardConfig, *, wire: httpx2.AsyncBaseTransport | None = None) -> None:
        self._config, self._wire = config, wire
        self._credentials = CredentialFile(config.auth_file)
        self._clients: dict[object, httpx2.AsyncClient] = {}
        self._tokens: dict[tuple[str, str], _Token] = {}
        self._asking: defaultdict[tuple[str, str], trio.Lock] = defaultdict(trio.Lock)

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.aclose()

    def endpoint(self, address: str) -> Endpoint:
        """``host[:port][/prefix]`` as the configuration says it is to be spoken to."""
        host, _, prefix = address.partition("/")
        return Endpoint(host=host, prefix=prefix.strip("/"), plain=host in self._config.plain_http)

    @asynccontextmanager
    async def get(
        self, endpoint: Endpoint, repository: str, path: str, headers: dict[str, str]
    ) -> AsyncIterator[httpx2.Response]:
        """The answer, status 200 or 206, its body still to be read with ``aiter_raw``.

        Raises:
            TransientError: no answer, or one that asks to come again; from reading the body too.
            NotFoundError: 404.
            ImageError: any other answer, or a redirect that must not be followed.
        """
        ask = Ask(url=httpx2.URL(endpoint.url(repository, path)), headers=headers)
        async with self.request(endpoint, repository, ask, f"{endpoint.host}/{repository} {path}") as response:
            yield response

    @asynccontextmanager
    async def request(self, endpoint: Endpoint, repository: str, ask: Ask, what: str) -> AsyncIterator[httpx2.Response]:
        """The answer to ``ask``, which is about ``repository``; messages begin with ``what``. Raises like ``get``."""
        with _as_transient(what):
            response = await self._authorized(endpoint, repository, ask)
            try:
                _check_status(response, what, ask.accepted)
                yield response
            finally:
                await response.aclose()

    def check_address(self, endpoint: Endpoint, location: str) -> httpx2.URL:
        """``location`` as the endpoint wrote it, made whole; refused if we would have to leave TLS for it."""
        url = httpx2.URL(endpoint.url("", ""))
        target = _joined(url, location)
        self._check_redirect(url, target)
        return target

    async def _authorized(self, endpoint: Endpoint, repository: str, ask: Ask) -> httpx2.Response:
        scope, home = endpoint.scope(repository, ask.actions), _origin(httpx2.URL(endpoint.url("", "")))
        if _origin(ask.url) != home:  # it named this address, but who we are is nobody else's business
            return await self._follow(ask)
        key = endpoint.host, scope
        known = self._tokens.get(key)
        if known and known.expires_at > time.monotonic():
            ask = _with(ask, known)
        response = await self._follow(ask)
        if response.status_code == 401 and _origin(response.url) == home:
            challenge = response.headers.get("WWW-Authenticate", "")
            await response.aclose()
            async with self._asking[key]:
                token = self._tokens.get(key)
                if token is None or token is known:  # else somebody else fetched one while we waited
                    token = self._tokens[key] = await self._answer(endpoint, scope, challenge)
            response = await self._follow(_with(ask, token))
        return response

    async def _follow(self, ask: Ask) -> httpx2.Response:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._send(ask)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or not location:
                return response
            await response.aclose()
            if ask.method not in ("GET", "HEAD") and response.status_code not in _SAME_METHOD:
                raise ImageError(f"{ask.url.host} redirects a {ask.method}, with status {response.status_code}")
            target = _joined(ask.url, location)
            self._check_redirect(ask.url, target)
            if _origin(target) != _origin(ask.url):
                kept = {name: value for name, value in ask.headers.items() if name != "Authorization"}
                ask = attrs.evolve(ask, headers=kept)
            ask = attrs.evolve(ask, url=target)
        raise ImageError(f"{ask.url.host} redirects more than {MAX_REDIRECTS} times")

    def _check_redirect(self, url: httpx2.URL, target: httpx2.URL) -> None:
        if target.scheme == "https" or (target.scheme == "http" and self._is_plain(target)):
            return
        raise ImageError(f"{url.host} redirects to {target.scheme}://{target.host}, which is not https")

    def _is_plain(self, url: httpx2.URL) -> bool:
        return url.netloc.decode() in self._config.plain_http

    async def _send(self, ask: Ask) -> httpx2.Response:
        client = await self._client(ask.url)
        headers = {"Accept-Encoding": "identity"} | ask.headers
        if ask.content:  # as long as the body takes; the library bounds each write and read
            async with aclosing(ask.content()) as content:
                request = client.build_request(ask.method, ask.url, headers=headers, content=content)
                return await client.send(request, stream=True)
        request = client.build_request(ask.method, ask.url, headers=headers)
        with within(_HEADERS_SECONDS, _LATE):
            return await client.send(request, stream=True)

    async def _client(self, url: httpx2.URL) -> httpx2.AsyncClient:
        """One client for each set of trusted authorities; local plain registries are never asked through a proxy."""
        host = url.netloc.decode()
        settings = self._config.registries.get("docker.io" if host == _DOCKER_HUB_API else host)
        ca_file = settings.ca_file if settings else None
        plain = self._is_plain(url)
        key = (ca_file, plain)
        if key not in self._clients:
            context = await trio.to_thread.run_sync(_tls, ca_file)
            self._clients.setdefault(
                key,
                httpx2.AsyncClient(
                    verify=context,
                    transport=self._wire,
                    proxy=None if plain or self._wire else self._config.proxy,
                    trust_env=False,  # the node's configuration is the only place that says how
                    timeout=_TIMEOUT,
                    headers={"User-Agent": f"nanocloud/{__version__}"},
                ),
            )
        return self._clients[key]

    async def _answer(self, endpoint: Endpoint, scope: str, header: str) -> _Token:
        """Exchange the challenge for what the ``Authorization`` header must say."""
        credentials = await trio.to_thread.run_sync(self._credentials.of, endpoint.host)
        for challenge in parse_challenges(header):
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                return await self._bearer(endpoint, scope, challenge.parameters, credentials)
            if challenge.scheme == "basic" and credentials:
                return _Token(credentials.basic, time.monotonic() + 3600)
        raise ImageError(f"{endpoint.host} asks for credentials", hint=_HINT_AUTH)

    async def _bearer(
        self, endpoint: Endpoint, scope: str, parameters: dict[str, str], credentials: Credentials | None
    ) -> _Token:
        realm = _joined(httpx2.URL(endpoint.url("", "")), parameters["realm"])
        if realm.scheme != "https" and not (realm.scheme == "http" and (endpoint.plain or self._is_plain(realm))):
            raise ImageError(f"{endpoint.host} names a token server that is not https: {realm.scheme}://{realm.host}")
        query = {"scope": scope} | ({"service": parameters["service"]} if "service" in parameters else {})
        headers = {"Authorization": credentials.basic} if credentials and credentials.username else {}
        if credentials and credentials.identity_token:
            return await self._refresh(endpoint, realm, query, credentials.identity_token)
        response = await self._follow(Ask(url=realm.copy_merge_params(query), headers=headers))
        return await self._token(endpoint, response)

    async def _refresh(self, endpoint: Endpoint, realm: httpx2.URL, query: dict[str, str], token: str) -> _Token:
        """OAuth 2 for an identity token, which stands for a password that the file does not hold."""
        client = await self._client(realm)
        form = query | {"grant_type": "refresh_token", "refresh_token": token, "client_id": "nanocloud"}
        request = client.build_request("POST", realm, data=form)
        with within(_HEADERS_SECONDS, _LATE):
            response = await client.send(request, stream=True)
        return await self._token(endpoint, response)

    async def _token(self, endpoint: Endpoint, response: httpx2.Response) -> _Token:
        what = f"the token server of {endpoint.host}"
        try:
            if response.status_code in (401, 403):
                raise ImageError(f"{what} refuses the credentials ({response.status_code})", hint=_HINT_AUTH)
            _check_status(response, what, Ask(url=response.url).accepted)
            answer = orjson.loads(await read_body(response, MAX_TOKEN_BYTES, what))
        except orjson.JSONDecodeError:
            raise ImageError(f"{what} answered no JSON") from None
        finally:
            await response.aclose()
        token, seconds = _token_fields(answer)
        if not token:
            raise ImageError(f"{what} answered without a token")
        return _Token(f"Bearer {token}", time.monotonic() + max(seconds, 60.0) - _TOKEN_SLACK_SECONDS)


def _token_fields(answer: Any) -> tuple[str, float]:
    if not isinstance(answer, dict):
        return "", 0.0
    token, seconds = answer.get("token") or answer.get("access_token"), answer.get("expires_in")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        return "", 0.0
    return token, float(seconds) if isinstance(seconds, int | float) else 60.0


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as exc:
            raise ConfigError(f"dockyard.registries: ca_file {ca_file} cannot be used: {exc.strerror or exc}") from exc
    return context


def _joined(url: httpx2.URL, location: str) -> httpx2.URL:
    try:
        target = url.join(location)
    except httpx2.InvalidURL as exc:
        raise ImageError(f"{url.host} names an address that cannot be read: {exc}") from exc
    if not target.host:
        raise ImageError(f"{url.host} names an address without a host")
    return target


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _with(ask: Ask, token: _Token) -> Ask:
    return attrs.evolve(ask, headers=ask.headers | {"Authorization": token.authorization})


def _check_status(response: httpx2.Response, what: str, accepted: frozenset[int]) -> None:
    status = response.status_code
    if status in accepted:
        return
    if status == 404:
        raise NotFoundError(f"{what} does not exist")
    if status in (401, 403):
        raise ImageError(f"{what}: access is refused ({status})", hint=_HINT_AUTH)
    if status in _TRANSIENT:
        raise TransientError(f"{what}: the server answered {status}", _retry_after(response))
    raise ImageError(f"{what}: the server answered {status}")


def _retry_after(response: httpx2.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MAX_RETRY_AFTER_SECONDS) if text.isascii() and text.isdigit() else 0.0


@contextmanager
def _as_transient(what: str) -> Iterator[None]:
    """Failures of the connection become TransientError; one that repeating cannot mend becomes ImageError."""
    try:
        yield
    except (httpx2.TransportError, httpx2.StreamError) as exc:
        cause: BaseException | None = exc
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ImageError(
                    f"{what}: the server's certificate is not trusted: {cause.verify_message}",
                    hint="a local authority stands in dockyard.registries.<host>.ca_file",
                ) from exc
            cause = cause.__cause__ or cause.__context__
        raise TransientError(f"{what}: {exc or type(exc).__name__}") from exc
