#!/bin/sh
# First start: make the data folder, whole or not at all. Every start: become the server.
set -eu
umask 027
data=/var/lib/mysql/data

if [ ! -d "$data" ]; then
    rm -rf "$data.new"
    # Administrator is whoever runs as the system user mysql; there is no password, no anonymous user, no test database.
    mariadb-install-db --datadir="$data.new" --skip-name-resolve --skip-test-db --rpm \
        --auth-root-authentication-method=socket --auth-root-socket-user=mysql
    sync --file-system "$data.new"
    mv "$data.new" "$data"
    sync --file-system "$data"
fi

set -- --port="${MARIADB_PORT:-3306}"
if [ -r "${MARIADB_TLS_KEY:-}" ] && [ -r "${MARIADB_TLS_CERT:-}" ]; then
    set -- "$@" --ssl-key="$MARIADB_TLS_KEY" --ssl-cert="$MARIADB_TLS_CERT" --ssl-ca="$MARIADB_TLS_CA" \
        --tls-version=TLSv1.2,TLSv1.3
fi
exec mariadbd "$@"
