#!/bin/sh
# Write what depends on options, then become the server, with the keeper of its accounts beside it.
set -eu
umask 077
run=/dev/shm/nats
rm -rf "$run"
mkdir -m 0755 "$run"
{
    cat /etc/nats/nanocloud.conf
    echo "port: ${NATS_PORT:-4222}"
    echo "jetstream { store_dir: /var/lib/nats, max_memory_store: ${NATS_MAX_MEMORY:-64MB} }"
    if [ -r "${NATS_TLS_KEY:-}" ] && [ -r "${NATS_TLS_CERT:-}" ]; then
        echo "tls { key_file: \"$NATS_TLS_KEY\", cert_file: \"$NATS_TLS_CERT\", timeout: 5 }"
        [ "${NATS_TRANSPORT:-tls}" = tls ] || echo "allow_non_tls: true"
    fi
} > "$run/nats.conf"
/usr/lib/nanocloud/keeper write
printf '%s\n' "${NATS_PORT:-4222}" > "$run/port"
chmod 0644 "$run/port"
/usr/lib/nanocloud/keeper &
exec nats-server --config "$run/nats.conf"
