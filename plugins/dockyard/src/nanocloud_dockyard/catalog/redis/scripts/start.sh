#!/bin/sh
# Write the accounts, then become the server. Passwords are stored as SHA-256 only, which is redis' own form.
set -eu
umask 077
: "${REDIS_PASSWORD:?}"
accounts=/var/lib/redis/users.acl
sha256() { sha256sum | cut -d ' ' -f 1; }

# Binding commands and ready.sh have no way to know REDIS_PASSWORD. They use the account nanocloud, whose password is
# new at every start and lies on this container's own tmpfs, where only this container's processes can read it.
head -c 32 /dev/urandom | sha256 > /dev/shm/nanocloud-password
chmod 0444 /dev/shm/nanocloud-password

{
    printf 'user default on #%s ~* &* +@all\n' "$(printf %s "$REDIS_PASSWORD" | sha256)"
    printf 'user nanocloud on #%s resetkeys resetchannels -@all +acl +ping\n' \
        "$(tr -d '\n' < /dev/shm/nanocloud-password | sha256)"
    if [ -e "$accounts" ]; then
        grep -v -e '^user default ' -e '^user nanocloud ' "$accounts" || [ $? -eq 1 ]
    fi
} > "$accounts.new"
mv "$accounts.new" "$accounts"
unset REDIS_PASSWORD

set -- --port "${REDIS_PORT:-6379}" --maxmemory "${REDIS_MAX_MEMORY:-0}"
if [ -r "${REDIS_TLS_KEY:-}" ] && [ -r "${REDIS_TLS_CERT:-}" ]; then
    set -- "$@" --tls-port "${REDIS_TLS_PORT:-6380}" --tls-key-file "$REDIS_TLS_KEY" \
        --tls-cert-file "$REDIS_TLS_CERT" --tls-ca-cert-file "$REDIS_TLS_CA"
fi
# A socket of its own, so that commands in this container need not know the port.
exec redis-server /etc/redis/nanocloud.conf --unixsocket /tmp/redis.sock --unixsocketperm 777 "$@"
