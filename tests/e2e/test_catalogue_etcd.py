"""etcd of the catalogue, used as its dependants use it: over TLS, with an account for keys of their own."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from catalogue import MINUTES, catalogue_fixture
from nodes import TestNode, is_ready
from tinyimages import Layout

pytestmark = pytest.mark.images
node = catalogue_fixture("etcd")
NAME = "etcd.default.svc"
CLIENT_OPTIONS = {
    "store=&etcd": ["*store_host", "*store_port", "&create_user $user $password $prefix"],
    "user": ["!bundle"],
    "password": ["!rand 24 alnum"],
    "prefix": ["*user", "/$user/"],
    "env_PASSWORD": ["*password", "$password"],
    "env_STORE": ["*store_host", "*store_port", "$store_host:$store_port"],
}


@pytest.fixture(scope="module")
def store(node: TestNode) -> TestNode:
    """etcd, and two installations of one application that keep their keys in it."""
    image = Layout(node.folder / "apps").add(
        "client", command=["sleep", "1000000"], labels={"io.nanocloud.options": CLIENT_OPTIONS}
    )
    for name in ("shop", "blog"):
        node.create(name, {"service": name, "image": image})
    for name in ("shop", "blog"):
        assert is_ready(node.until_settled(name)), node.bundle(name)["status"]
    return node


class RefusedError(Exception):
    """The server's answer was an error."""


def call(
    node: TestNode, method: str, body: dict[str, Any], *, token: str = "", ca: Path | None = None
) -> dict[str, Any]:
    """One call of etcd's JSON gateway, over TLS verified against ``ca``, the node's own without it."""
    address = node.pod("etcd")["status"]["podIP"]
    done = node.run(
        *("curl", "-sS", "--max-time", "20", "--resolve", f"{NAME}:2379:{address}"),
        *("--cacert", ca or node.state_dir / "secure_assets" / "ca.crt"),
        *(["-H", f"Authorization: {token}"] if token else []),
        *("--data", json.dumps(body), f"https://{NAME}:2379/v3/{method}"),
        code=None,
    )
    if done.returncode:
        raise RefusedError(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    if "error" in answer:
        raise RefusedError(answer["error"])
    return answer


def login(node: TestNode, user: str, password: str = "") -> str:
    wanted = {"name": user, "password": password or node.env_of(user)["PASSWORD"]}
    token: str = call(node, "auth/authenticate", wanted)["token"]
    return token


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def put(node: TestNode, token: str, key: str, value: str) -> None:
    call(node, "kv/put", {"key": b64(key), "value": b64(value)}, token=token)


def get(node: TestNode, token: str, key: str) -> str:
    (found,) = call(node, "kv/range", {"key": b64(key)}, token=token)["kvs"]
    return base64.b64decode(found["value"]).decode()


def test_each_dependant_reads_and_writes_its_own_keys_and_no_others(store: TestNode) -> None:
    shop, blog = login(store, "shop"), login(store, "blog")
    put(store, shop, "/shop/a", "one")
    assert get(store, shop, "/shop/a") == "one"
    for token, key in ((blog, "/shop/a"), (shop, "/blog/a"), (shop, "/shoq"), ("", "/shop/a")):
        with pytest.raises(RefusedError, match=r"permission denied|user name is empty"):
            put(store, token, key, "mine")
    with pytest.raises(RefusedError, match="authentication failed"):
        login(store, "shop", "wrong")


def test_the_session_is_encrypted_and_the_server_proves_who_it_is(store: TestNode, tmp_path: Path) -> None:
    address = store.pod("etcd")["status"]["podIP"]
    plain = store.run("curl", "-sS", "--max-time", "20", f"http://{address}:2379/version", code=None)
    assert "etcdserver" not in plain.stdout
    wrong = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-subj", "/CN=other", "-keyout", tmp_path / "key", "-out", tmp_path / "ca.crt")
    subprocess.run((*wrong, *files), check=True, capture_output=True)
    with pytest.raises(RefusedError, match="certificate"):
        call(store, "auth/authenticate", {"name": "shop", "password": "x"}, ca=tmp_path / "ca.crt")


def test_the_administrators_way_in_is_closed_to_other_pods(store: TestNode) -> None:
    address = store.pod("etcd")["status"]["podIP"]
    for port in (2389, 2390):
        done = store.run("curl", "-sS", "--max-time", "20", f"http://{address}:{port}/version", code=None)
        assert "Connection refused" in done.stderr or "Couldn't connect" in done.stderr


def test_accounts_and_keys_outlive_a_restart(store: TestNode) -> None:
    put(store, login(store, "shop"), "/shop/b", "two")
    store.cli("restart", "etcd", "--timeout", "2m", seconds=MINUTES)
    assert get(store, login(store, "shop"), "/shop/b") == "two"


def test_bindings_are_verified_and_can_be_repeated(store: TestNode) -> None:
    put(store, login(store, "shop"), "/shop/c", "three")
    verify = ("exec", "etcd", "--", "/usr/lib/nanocloud/bindings/verify_user", "shop")
    assert store.cli(*verify, "/dev/null", "/shop/", code=None).returncode != 0
    store.cli("install", "shop", "--force-bindings", seconds=MINUTES)
    assert get(store, login(store, "shop"), "/shop/c") == "three"


def test_a_dependant_that_goes_takes_its_account_only(store: TestNode) -> None:
    password, token = store.env_of("shop")["PASSWORD"], login(store, "shop")
    store.cli("uninstall", "shop", seconds=MINUTES)
    with pytest.raises(RefusedError, match="authentication failed"):
        login(store, "shop", password)
    with pytest.raises(RefusedError, match=r"invalid auth token|permission denied"):
        put(store, token, "/shop/a", "a session that was open")
    put(store, login(store, "blog"), "/blog/a", "stays")
    # Taken back once more, as after a crash: nothing there is no error.
    revoke = ("/usr/lib/nanocloud/bindings/revoke_user", "shop", "/dev/null", "/shop/")
    store.cli("exec", "etcd", "--", *revoke)
    for user in ("root", "nanocloud-x", "a b", "../root", ""):
        done = store.cli("exec", "etcd", "--", *revoke[:1], user, "/dev/null", "/x/", code=64)
        assert done.stderr.startswith("revoke_user: user")
