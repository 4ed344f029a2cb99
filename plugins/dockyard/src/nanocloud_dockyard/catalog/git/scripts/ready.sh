#!/bin/sh
# An unknown account is refused by a server whose database answers; without the database the server can only fail.
status=$(curl --silent --show-error --max-time 8 --cacert "$GIT_TLS_CA" --user ready:ready --output /dev/null \
    --write-out '%{http_code}' https://localhost:8443/.ready) || exit 1
[ "$status" = 401 ] || {
    echo "the server answers $status"
    exit 1
}
