#!/bin/sh
# First start: make the data folder with accounts switched on, whole or not at all. Every start: become the server.
set -eu
umask 077
: "${KV_ROOT_PASSWORD:?}" "${KV_TLS_KEY:?}" "${KV_TLS_CERT:?}" "${KV_TLS_CA:?}"
port=${KV_PORT:-2379} quota=${KV_QUOTA_BYTES:-536870912} key=$KV_TLS_KEY cert=$KV_TLS_CERT ca=$KV_TLS_CA
data=/var/lib/etcd/data
printf %s "$KV_ROOT_PASSWORD" > /dev/shm/etcd-root
printf 'https://127.0.0.1:%s %s' "$port" "$ca" > /dev/shm/etcd-public
chmod 0444 /dev/shm/etcd-root /dev/shm/etcd-public
unset KV_ROOT_PASSWORD KV_PORT KV_QUOTA_BYTES KV_TLS_KEY KV_TLS_CERT KV_TLS_CA
. /usr/lib/nanocloud/admin.sh

# One member: its peer port is on the loopback and stays unused.
set -- --name nanocloud --initial-cluster nanocloud=http://127.0.0.1:2390 --listen-peer-urls http://127.0.0.1:2390 \
    --initial-advertise-peer-urls http://127.0.0.1:2390 --logger zap --log-level warn --quota-backend-bytes "$quota" \
    --auto-compaction-mode periodic --auto-compaction-retention 1h

if [ ! -d "$data" ]; then
    rm -rf "$data.new"
    etcd "$@" --data-dir "$data.new" --listen-client-urls "$ETCDCTL_ENDPOINTS" \
        --advertise-client-urls "$ETCDCTL_ENDPOINTS" &
    until etcdctl endpoint health > /dev/null 2>&1; do
        kill -0 $! # the server ended: its last words are in the log
        sleep 0.1
    done
    etcdctl user add root --interactive=false < /dev/shm/etcd-root
    etcdctl user grant-role root root
    etcdctl auth enable
    kill $!
    wait $! || true
    sync
    mv "$data.new" "$data"
    sync
fi

exec etcd "$@" --data-dir "$data" --listen-client-urls "https://[::]:$port,$ETCDCTL_ENDPOINTS" \
    --advertise-client-urls "https://localhost:$port" --cert-file "$cert" --key-file "$key"
