"""The API as an ASGI application: who asks, what is asked for, may they, and the answer or the error."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import structlog
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.websockets import WebSocket

from nanocloud import __version__
from nanocloud.apiserver import actions, discovery, resources, transfer
from nanocloud.apiserver.auth import Authentication, authorize
from nanocloud.apiserver.channels import serve_exec
from nanocloud.apiserver.negotiation import flag
from nanocloud.apiserver.openapi import OpenApi
from nanocloud.apiserver.paths import Target, resolve
from nanocloud.apiserver.pods import LogStream
from nanocloud.apiserver.status import MethodNotAllowedError, error_response
from nanocloud.apiserver.watches import WatchStream
from nanocloud.concurrency import unwrapped
from nanocloud.errors import BadRequestError, NanocloudError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from nanocloud.apiserver.context import ApiContext

log = structlog.get_logger(__name__)
audit = structlog.get_logger("nanocloud.audit")

KUBERNETES_MINOR = "33"
"""The API dialect spoken here; kubectl's dispatcher and client libraries choose by it."""
_NO_PARAMETERS = QueryParams()
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_SUBRESOURCE_VERBS = {
    "status": ("get", "update", "patch"),
    "log": ("get",),
    "exec": ("create", "get"),
    "actions": ("create",),
    transfer.EXPORT: ("create",),
    transfer.IMPORT: ("create",),
}
_HANDLERS: Mapping[str, Callable[[ApiContext, Request, Target], Awaitable[ASGIApp]]] = {
    "get": resources.get,
    "list": resources.list_,
    "create": resources.create,
    "update": resources.update,
    "patch": resources.patch,
    "delete": resources.delete,
    "deletecollection": resources.delete_collection,
}


def build_app(context: ApiContext) -> ASGIApp:
    """The whole API server but its socket."""
    return _Errors(Authentication(_Api(context), context.authenticator, open_paths=context.open_paths))


class _Errors:
    """Turns every failure before the first byte of an answer into a Status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except (Exception, SystemExit) as exc:
            if has_started:
                if isinstance(exc, SystemExit):  # a plugin's handler ends its request, not the server
                    raise RuntimeError("a handler exited within its answer") from exc
                raise
            if not isinstance(exc, NanocloudError):
                log.exception("request failed", path=scope.get("path"), method=scope.get("method"))
            await _answer(error_response(exc), scope, receive, send)


async def _answer(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
    else:
        await response(scope, receive, send)


class _Api:
    """Finds what a path means and who answers it."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._routes = _Routes(context.routes)
        self._openapi = OpenApi(context.store.registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif scope["type"] == "http":
            answer = await self._http(_Request(scope, receive))
            await answer(scope, receive, send)

    async def _http(self, request: Request) -> ASGIApp:
        path: str = request.scope["path"]
        if (route := self._routes.find(request.scope)) is not None:
            if path not in self._context.open_paths:
                await authorize(self._context.authorizer, request.user, request.method.lower(), None, path)
            return route.handle
        if path.startswith(("/api/", "/apis/")) or path in ("/api", "/apis"):
            return await self._resource(request, path)
        return await self._fixed(request, path.rstrip("/") or "/")

    async def _fixed(self, request: Request, path: str) -> ASGIApp:
        if request.method not in ("GET", "HEAD"):
            raise MethodNotAllowedError("the server does not allow this method on the requested resource")
        if path == "/version":
            return JSONResponse(version())
        if path in ("/healthz", "/livez"):
            return PlainTextResponse("ok")
        if path == "/readyz":
            return self._readiness(request)
        await authorize(self._context.authorizer, request.user, "get", None, path)
        if path == "/openapi/v3":
            return self._openapi.index(request)
        if path.startswith("/openapi/v3/"):
            return self._openapi.document(request, path.removeprefix("/openapi/v3/"))
        if path == "/openapi/v2":
            return self._openapi.v2(request)
        if path == "/":
            return JSONResponse(
                {"paths": ["/api", "/apis", "/healthz", "/livez", "/openapi/v3", "/readyz", "/version"]}
            )
        raise NotFoundError("the server could not find the requested resource")

    def _readiness(self, request: Request) -> Response:
        problems = {name: check() for name, check in self._context.checks.items()}
        failed = {name: problem for name, problem in problems.items() if problem is not None}
        if not failed and not flag(request.query_params, "verbose"):
            return PlainTextResponse("ok")
        lines = [f"[{'-' if name in failed else '+'}]{name} {failed.get(name, 'ok')}" for name in problems]
        lines.append(f"readyz check {'failed' if failed else 'passed'}")
        return PlainTextResponse("\n".join(lines) + "\n", 503 if failed else 200)

    async def _resource(self, request: Request, path: str) -> ASGIApp:
        found = resolve(self._context.store.registry, path)
        if not isinstance(found, Target):
            if request.method not in ("GET", "HEAD"):
                raise MethodNotAllowedError("the server does not allow this method on the requested resource")
            await authorize(self._context.authorizer, request.user, "get", None, path)
            return discovery.respond(self._context.store.registry, request, found)
        try:
            verb = _verb(request, found)
            await authorize(self._context.authorizer, request.user, verb, found, path)
            answer = await self._handle(request, found, verb)
        except NanocloudError as exc:
            _audit(request, path, exc.reason)
            return error_response(exc, kind=found.kind, name=found.name or "")
        _audit(request, path, "OK")
        return _Named(answer, found) if isinstance(answer, LogStream) else answer

    async def _handle(self, request: Request, target: Target, verb: str) -> ASGIApp:
        if target.subresource == "log":
            return LogStream(self._context, request, target)
        if target.subresource == "exec":
            raise BadRequestError("Upgrade request required: exec is served over WebSocket")
        if target.subresource == "actions":
            return await actions.act(self._context, request, target)
        if target.subresource == transfer.EXPORT:
            return await transfer.export_profile(self._context, request, target)
        if target.subresource == transfer.IMPORT:
            return await transfer.import_profile(self._context, request, target)
        if verb == "watch":
            return WatchStream(self._context, request, target)
        return await _HANDLERS[verb](self._context, request, target)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.receive()  # websocket.connect
        target = resolve(self._context.store.registry, scope["path"])
        if not isinstance(target, Target) or target.subresource != "exec":
            raise NotFoundError("no WebSocket is served on this path")
        await authorize(self._context.authorizer, scope["user"], "create", target, scope["path"])
        audit.info("exec", user=scope["user"].name, path=scope["path"])
        await serve_exec(self._context, socket, target)


class _Routes:
    """Routes that are asked before the generic paths. A pattern costs a microsecond and most paths have nothing in
    common with any, so it is asked about those only that begin as it does."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self._routes = [(_beginning(route), route) for route in routes]
        self._beginnings = tuple({beginning for beginning, _ in self._routes})

    def find(self, scope: Scope) -> BaseRoute | None:
        """The first that fits path and method; what it found in the path is then in the scope."""
        path: str = scope["path"]
        if path.startswith(self._beginnings):
            for beginning, route in self._routes:
                if path.startswith(beginning):
                    match, found = route.matches(scope)
                    if match is Match.FULL:
                        scope.update(found)
                        return route
        return None


def _beginning(route: BaseRoute) -> str:
    """What every path of a route begins with."""
    return route.path.partition("{")[0] if type(route) is Route else ""


class _Request(Request):
    """Most requests have no query, and Starlette reads that as slowly as one."""

    @property
    def query_params(self) -> QueryParams:
        return super().query_params if self.scope["query_string"] else _NO_PARAMETERS


class _Named:
    """A stream whose failure to begin is answered with the name of what was asked for."""

    def __init__(self, stream: LogStream, target: Target) -> None:
        self._stream, self._target = stream, target

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_started = False

        async def watched_send(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            with unwrapped():
                await self._stream(scope, receive, watched_send)
        except NanocloudError as exc:
            if has_started:
                raise
            answer = error_response(exc, kind=self._target.kind, name=self._target.name or "")
            await answer(scope, receive, send)


def _verb(request: Request, target: Target) -> str:
    """Raises MethodNotAllowedError for a verb that the kind does not have, NotFoundError for a subresource."""
    verb = _VERBS.get(request.method, "")
    if target.subresource is not None:
        names = {sub.name for sub in target.kind.subresources} | ({"status"} if target.kind.has_status else set())
        if target.subresource not in names or target.name is None:
            raise NotFoundError("the server could not find the requested resource")
        if verb not in _SUBRESOURCE_VERBS.get(target.subresource, ()):
            raise _refused(target)
        if target.subresource == "status" and verb not in target.kind.verbs:
            raise _refused(target)
        return verb
    if target.name is None:
        verb = {"get": "list", "delete": "deletecollection"}.get(verb, verb)
        if verb in ("update", "patch") or (verb == "create" and target.kind.namespaced and target.namespace is None):
            raise _refused(target)
        if verb == "list" and flag(request.query_params, "watch"):
            verb = "watch"
    elif verb == "create":
        raise _refused(target)
    if verb not in target.kind.verbs:
        raise _refused(target)
    return verb


def _refused(target: Target) -> MethodNotAllowedError:
    verbs = ", ".join(sorted(target.kind.verbs))
    return MethodNotAllowedError(
        f"the server does not allow this method on the requested resource; {target.kind.plural} have the verbs {verbs}"
    )


def _audit(request: Request, path: str, outcome: str) -> None:
    if request.method not in ("GET", "HEAD"):
        audit.info("request", user=request.user.name, method=request.method, path=path, outcome=outcome)


def version() -> dict[str, str]:
    return {
        "major": "1",
        "minor": KUBERNETES_MINOR,
        "gitVersion": f"v1.{KUBERNETES_MINOR}.0+nanocloud-{__version__.replace('+', '.')}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": platform.python_implementation().lower(),
        "platform": f"linux/{ {'x86_64': 'amd64', 'aarch64': 'arm64'}.get(platform.machine(), platform.machine()) }",
    }
