"""The whole life of a binding with an image that has a command of its own for every part of it."""

from __future__ import annotations

from nodes import TestNode, is_gone
from tinyimages import APP_FILES, APP_OPTIONS, DATABASE_EXPORTS, DATABASE_FILES, DATABASE_OPTIONS

FOLDER = "/usr/lib/nanocloud/bindings"
# users: one line each, the name and what the password hashes to; log: what ran, in order.
WRITE = (
    '#!/bin/sh\nsum=$(md5sum < "$2")\ngrep -v "^$1 " /data/users > /tmp/users\n'
    'echo "$1 $sum" >> /tmp/users\ncat /tmp/users > /data/users\necho "{verb} $1" >> /data/log\n'
)
COMMANDS = {
    f"{FOLDER}/create_user": WRITE.format(verb="create"),
    f"{FOLDER}/rotate_user": WRITE.format(verb="rotate"),
    f"{FOLDER}/verify_user": '#!/bin/sh\necho "verify $1" >> /data/log\n'
    'grep -q "^$1 $(md5sum < "$2")" /data/users || { echo "no such password"; exit 1; }\n',
    f"{FOLDER}/revoke_user": '#!/bin/sh\ngrep -v "^$1 " /data/users > /tmp/users\ncat /tmp/users > /data/users\n'
    'echo "revoke $1 $2" >> /data/log\n',
}
SERVE = DATABASE_FILES["/serve.sh"].replace("chmod 666 /data/users", "touch /data/log\nchmod 666 /data/users /data/log")


def read(node: TestNode, file: str) -> list[str]:
    return node.cli("exec", "vault", "--", "cat", f"/data/{file}").stdout.splitlines()


def test_a_binding_is_made_verified_rotated_and_revoked(node: TestNode) -> None:
    node.layout.add(
        "vault",
        command=["/serve.sh"],
        files={**DATABASE_FILES, **COMMANDS, "/serve.sh": SERVE},
        labels={
            "io.nanocloud.options": DATABASE_OPTIONS,
            "io.nanocloud.exports": {
                **DATABASE_EXPORTS,
                "bindings": ["create_user", "rotate_user", "verify_user", "revoke_user"],
                "owned": {"create_user": [1]},
            },
        },
    )
    options = {key.replace("tinydb", "vault"): value for key, value in APP_OPTIONS.items()}
    node.layout.add("client", command=["/serve.sh"], files=APP_FILES, labels={"io.nanocloud.options": options})
    node.cli("install", "vault")
    node.cli("install", "client")
    before = read(node, "users")
    assert read(node, "log") == ["create app", "verify app"]

    # Only the secret differs: rotated, verified, and the dependant starts anew with it.
    node.cli("install", "client", "--option", "password=another")
    assert read(node, "log")[2:] == ["rotate app", "verify app"]
    assert len(read(node, "users")) == 1
    assert read(node, "users") != before
    assert node.env_of("client")["DB_PASSWORD"] == "another"

    # The account itself differs: the old one goes before the new one is made.
    node.cli("install", "client", "--option", "user=app2")
    assert read(node, "log")[4:] == ["revoke app /dev/null", "create app2", "verify app2"]
    assert [line.split()[0] for line in read(node, "users")] == ["app2"]

    node.cli("uninstall", "client")
    assert read(node, "log")[7:] == ["revoke app2 /dev/null"]
    assert read(node, "users") == []
    node.cli("uninstall", "vault")
    node.until("bundles", "vault", is_gone)
