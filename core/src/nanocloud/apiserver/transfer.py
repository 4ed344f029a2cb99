"""``POST .../bundles/{name}/exportProfile`` and ``.../importProfile``: a profile as an archive, and back.

An import takes the archive itself (``application/x-tar``), or, where options are given besides, JSON:
``{"spec": {"archive": "<base64>", "options": {"admin_token": "..."}}}``.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import attrs
from starlette.responses import JSONResponse, Response

from nanocloud.apiserver import negotiation
from nanocloud.apiserver.bodies import as_object, content_type, parse_json, read_bytes
from nanocloud.apiserver.resources import admit
from nanocloud.apiserver.status import UnsupportedMediaTypeError
from nanocloud.controllers.transfer import bundle_of
from nanocloud.errors import InvalidError, UnavailableError
from nanocloud.models.converter import structure

if TYPE_CHECKING:
    from starlette.requests import Request

    from nanocloud.apiserver.context import ApiContext
    from nanocloud.apiserver.paths import Target
    from nanocloud.controllers.transfer import ProfileTransfer

EXPORT, IMPORT = "exportProfile", "importProfile"
TAR = "application/x-tar"


@attrs.frozen(kw_only=True)
class ImportSpec:
    archive: str = attrs.field(repr=False)
    options: dict[str, str] = attrs.field(factory=dict, repr=False)


async def export_profile(context: ApiContext, request: Request, target: Target) -> Response:
    secrets = negotiation.flag(request.query_params, "includeSecrets")
    archive = await _transfer(context).export(target.where, target.name or "", secrets=secrets)
    headers = {
        "Content-Disposition": f'attachment; filename="{target.name}.profile.tar"',
        "Cache-Control": "no-store",
    }
    return Response(archive, media_type=TAR, headers=headers)


async def import_profile(context: ApiContext, request: Request, target: Target) -> Response:
    """Raises InvalidError for an archive that is not as this node made it, AlreadyExistsError for a taken name."""
    transfer, (archive, given) = _transfer(context), await _body(request)
    dry_run = negotiation.dry_run(request.query_params)
    imported = transfer.read(archive)
    bundle = bundle_of(imported, target.where, target.name or "", given)
    bundle = admit(context, request, "create", target.kind, bundle, None)
    made = await transfer.restore(bundle, imported, dry_run=dry_run)
    anew = [option for option in imported.anew if option not in given]
    status = {"service": imported.profile.service, "image": imported.profile.image, "decidedAnew": anew}
    answer = {
        "apiVersion": target.kind.api_version,
        "kind": "ProfileImport",
        "metadata": {key: made["metadata"][key] for key in ("namespace", "name", "uid")},
        "status": status,
    }
    return JSONResponse(answer, status_code=201)


async def _body(request: Request) -> tuple[bytes, dict[str, str]]:
    kind, body = content_type(request), await read_bytes(request)
    if kind == TAR:
        return body, {}
    if kind != "application/json":
        raise UnsupportedMediaTypeError(f"the body is {kind[:80]!r}; accepted are {TAR} and application/json")
    spec = structure(as_object(parse_json(body)).get("spec", {}), ImportSpec, path="spec", what="ProfileImport")
    try:
        return base64.b64decode(spec.archive, validate=True), spec.options
    except binascii.Error:
        raise InvalidError("spec.archive is not base64") from None


def _transfer(context: ApiContext) -> ProfileTransfer:
    if context.transfer is None:
        raise UnavailableError("profiles cannot be exported or imported here")
    return context.transfer
