"""``config`` and ``token``: how users and machines get in."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Annotated

import typer

from nanocloud.cli.options import Curl, api
from nanocloud.client.api import Api, UnreachableError
from nanocloud.client.endpoint import CONTEXT, Endpoint, local_address
from nanocloud.errors import NanocloudError

_SCRIPT = """\
#!/bin/sh
# Installs a kubeconfig for {server}; run it with: sh
set -eu
umask 077
file="${{KUBECONFIG:-$HOME/.kube/config}}"
mkdir -p "$(dirname "$file")"
[ ! -e "$file" ] || cp "$file" "$file.before-nanocloud"
cat > "$file.new" <<'KUBECONFIG'
{kubeconfig}KUBECONFIG
mv "$file.new" "$file"
echo "wrote $file; try: kubectl get bundles -A" >&2
"""


def config(
    user: Annotated[str, typer.Option(help="Name of the user in the kubeconfig.")] = "admin",
    server: Annotated[str | None, typer.Option(help="URL of the API server, as the client reaches it.")] = None,
    cluster: Annotated[str, typer.Option(help="Name of the cluster in the kubeconfig.")] = CONTEXT,
    token: Annotated[
        str | None, typer.Option(help="Single-use token; without it the node's own rights are used.")
    ] = None,
) -> None:
    """Print a shell script that installs a kubeconfig with a client certificate of its own."""
    from nanocloud.identity.authority import new_request

    url = server or _server()
    key, request = new_request(user)
    certificate, ca = _certify(url, user, token, request)
    encoded = {
        name: base64.b64encode(value).decode() for name, value in (("ca", ca), ("crt", certificate), ("key", key))
    }
    kubeconfig = (
        "apiVersion: v1\nkind: Config\n"
        f"clusters:\n- name: {cluster}\n  cluster:\n    server: {url}\n"
        f"    certificate-authority-data: {encoded['ca']}\n"
        f"users:\n- name: {user}\n  user:\n    client-certificate-data: {encoded['crt']}\n"
        f"    client-key-data: {encoded['key']}\n"
        f"contexts:\n- name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {user}\n"
        f"current-context: {cluster}\n"
    )
    typer.echo(_SCRIPT.format(server=url, kubeconfig=kubeconfig), nl=False)


def _server() -> str:
    return f"https://{local_address(os.environ)}"


def _certify(url: str, user: str, token: str | None, request: bytes) -> tuple[bytes, bytes]:
    """A client certificate and the CA, from the server; from the node's own CA while no server runs there."""
    body = {"spec": {"request": request.decode(), "user": user, "groups": ["system:masters"]}}
    local = _local_ca()
    try:
        if token is None:
            answer = api().request("POST", "/apis/nanocloud.io/v1/certificates", body=body)
        else:
            if local is None:
                raise NanocloudError(
                    "the node's CA certificate is needed to trust the server",
                    hint="run it on the node, or copy secure_assets/ca.crt and name it in NANOCLOUD_CA",
                )
            endpoint = Endpoint(url, ca=local, token=token)
            answer = Api(endpoint).request("POST", "/apis/nanocloud.io/v1/certificates", body=body)
    except UnreachableError:
        if token is None or os.geteuid() != 0:
            raise
        return _certify_locally(token, request)
    return answer["status"]["certificate"].encode(), answer["status"]["ca"].encode()


def _local_ca() -> Path | None:
    named = os.environ.get("NANOCLOUD_CA")
    path = Path(named) if named else _state_dir() / "secure_assets" / "ca.crt"
    return path if os.access(path, os.R_OK) else None


def _state_dir() -> Path:
    from nanocloud.config import load

    return load().state_dir


def _certify_locally(token: str, request: bytes) -> tuple[bytes, bytes]:
    """Before the server first runs, root redeems the token in the keyspace itself."""
    import trio

    from nanocloud.concurrency import unwrapped
    from nanocloud.config import load
    from nanocloud.setup import redeem_locally

    with unwrapped():
        return trio.run(redeem_locally, load(), token, request)


def token(
    user: Annotated[str, typer.Option(help="Who the holder becomes.")] = "admin",
    ttl: Annotated[str, typer.Option(help="How long it is good for: 15m, 24h.")] = "24h",
    qr: Annotated[bool, typer.Option("--qr", help="Also show it as a QR code.")] = False,
    curl: Curl = False,
) -> None:
    """Make a single-use token; it is exchanged for a client certificate by: nanocloud config --token TOKEN."""
    from nanocloud.cli.options import parse_duration

    body = {"spec": {"user": user, "ttlSeconds": round(parse_duration(ttl))}}
    answer = api(curl=curl).request("POST", "/apis/nanocloud.io/v1/tokens", body=body)
    secret = answer["status"]["token"]
    typer.echo(secret)
    if qr:
        import segno

        segno.make(secret).terminal(compact=True)
