#!/bin/sh
# The server and its database answer, and there is somebody who can log in.
curl --silent --show-error --fail --max-time 8 --cacert "${GITEA_TLS_CA:-/dev/null}" --output /dev/null \
    "$GITEA_PROTOCOL://localhost:3000/api/healthz" || exit 1
[ -e /var/lib/gitea/.administrator ] || {
    echo "the administrator's account is not set up yet"
    exit 1
}
