#!/bin/bash
# Every start: write the configuration from the environment, become the server's parent. First start: the account.
set -euo pipefail
umask 027
rm -rf /tmp/gitea
mkdir -m 0700 /tmp/gitea

cat /etc/ssl/certs/ca-certificates.crt > /tmp/gitea/ca.pem
if [ -r "${GITEA_TLS_CA:-}" ]; then
    cat "$GITEA_TLS_CA" >> /tmp/gitea/ca.pem
fi
/usr/lib/nanocloud/write-config > /tmp/gitea/app.ini

server=
trap '[ -z "$server" ] || kill -TERM "$server"' TERM INT
/usr/lib/nanocloud/gitea web &
server=$!
/usr/lib/nanocloud/set-up-admin "$server" &

# A signal ends wait before the server has ended.
code=0
while kill -0 "$server" 2> /dev/null; do
    code=0
    wait "$server" || code=$?
done
exit "$code"
