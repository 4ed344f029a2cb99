#!/bin/sh
# Write what depends on options, then become the broker.
set -eu
umask 077
accounts=/var/lib/mosquitto/accounts.json
run=/dev/shm/mosquitto

if [ ! -e "$accounts" ]; then
    # Who has no role may neither send nor receive anything.
    printf '%s\n' '{"defaultACLAccess": {"publishClientSend": false, "publishClientReceive": false,' \
        '"subscribe": false, "unsubscribe": true}}' > "$accounts.first"
    sync "$accounts.first"
    mv "$accounts.first" "$accounts"
fi

# Binding commands and ready.sh use the account nanocloud, whose password is new at every start and lies on this
# container's own tmpfs, where only this container's processes can read it.
rm -rf "$run"
mkdir -m 0755 "$run"
password=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
printf 'nanocloud:%s\n' "$password" > "$run/password"
mosquitto_passwd -U "$run/password"
umask 022
printf '%s\n' "$password" > "$run/nanocloud"
# The client's own file of options, so that no password is an argument.
printf '%s\n' '--host 127.0.0.1' "--port $MOSQUITTO_PORT" '--username nanocloud' "--pw $password" \
    > "$run/mosquitto_sub"
printf '%s\n' "$MOSQUITTO_PORT" > "$run/port"

{
    cat /etc/mosquitto/mosquitto.conf
    case $MOSQUITTO_TRANSPORT in
        tls) echo "listener $MOSQUITTO_PORT 127.0.0.1" ;; # for the commands in this container
        *) echo "listener $MOSQUITTO_PORT" ;;
    esac
    if [ -r "${MOSQUITTO_TLS_KEY:-}" ] && [ -r "${MOSQUITTO_TLS_CERT:-}" ]; then
        echo "listener $MOSQUITTO_TLS_PORT"
        echo "keyfile $MOSQUITTO_TLS_KEY"
        echo "certfile $MOSQUITTO_TLS_CERT"
        printf '%s\n' "$MOSQUITTO_TLS_PORT" > "$run/tls_port"
    fi
} > "$run/mosquitto.conf"
exec mosquitto -c "$run/mosquitto.conf"
