#!/bin/sh
# First start: the key by which other servers know this one. Every start: write the settings, become the server.
set -eu
umask 077
volume=/var/lib/synapse
if [ ! -e "$volume/signing.key" ]; then
    rm -f "$volume/signing.key.new"
    /opt/synapse/bin/generate_signing_key -o "$volume/signing.key.new"
    sync
    mv "$volume/signing.key.new" "$volume/signing.key"
    sync
fi
mkdir -p "$volume/media" "$volume/settings"
rm -rf /tmp/synapse
mkdir /tmp/synapse

# They hold secrets, so they are kept in memory, where only this container sees them.
/usr/lib/nanocloud/settings > /dev/shm/synapse.yaml
cd /tmp/synapse
exec /usr/lib/nanocloud/homeserver --config-path=/dev/shm/synapse.yaml --config-path="$volume/settings"
