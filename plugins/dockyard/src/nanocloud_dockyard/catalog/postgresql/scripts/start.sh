#!/bin/sh
# First start: make the data folder, whole or not at all. Every start: become the server.
set -eu
umask 077
version=15
data=/var/lib/postgresql/$version
config=/etc/postgresql/postgresql.conf
accounts=/usr/share/nanocloud/accounts.sql

run_accounts() { # FOLDER
    sum=$(sha256sum < "$accounts")
    [ "$(cat "$1/nanocloud-accounts" 2> /dev/null)" != "$sum" ] || return 0
    postgres --single -j -D "$1" -c config_file="$config" -c exit_on_error=on postgres < "$accounts" > /dev/null
    printf '%s\n' "$sum" > "$1/nanocloud-accounts"
}

if [ ! -d "$data" ]; then
    rm -rf "$data.new"
    # No password: the administrator is whoever runs as the system user postgres.
    initdb --pgdata="$data.new" --username=postgres --encoding=UTF8 --locale=C.UTF-8 --auth=peer --no-sync \
        --no-instructions > /dev/null
    # Those of the image are used.
    rm "$data.new/postgresql.conf" "$data.new/pg_hba.conf" "$data.new/pg_ident.conf"
    run_accounts "$data.new"
    # Of the volume alone: a plain sync would wait for everything that is being written on the machine.
    sync --file-system "$data.new"
    mv "$data.new" "$data"
    sync --file-system "$data"
else
    run_accounts "$data"
fi

rm -rf /tmp/postgresql
install -d -m 0755 /tmp/postgresql
set -- -c config_file="$config" -c port="${PGPORT:-5432}" -c max_connections="${POSTGRESQL_MAX_CONNECTIONS:-100}"
if [ -r "${POSTGRESQL_TLS_KEY:-}" ] && [ -r "${POSTGRESQL_TLS_CERT:-}" ]; then
    # The server takes no key that others may read; this folder is in memory and of this container alone.
    cat "$POSTGRESQL_TLS_KEY" > /dev/shm/postgresql-tls.key
    set -- "$@" -c ssl=on -c ssl_key_file=/dev/shm/postgresql-tls.key -c ssl_cert_file="$POSTGRESQL_TLS_CERT"
fi
exec postgres -D "$data" "$@"
