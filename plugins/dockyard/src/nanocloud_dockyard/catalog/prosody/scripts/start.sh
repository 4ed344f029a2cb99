#!/bin/sh
# Make the data folder, wait for the directory, then become the server.
set -eu
umask 027
export LDAPCONF=/usr/share/nanocloud/ldap.conf
printf '%s\n' "$PROSODY_DOMAIN" | grep -Eqx '[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?' || {
    echo "prosody: option domain is '$PROSODY_DOMAIN'; it must be a host name" >&2
    exit 64
}
# One level below the volume, whose top also holds lost+found.
mkdir -p /var/lib/prosody/data
[ "$PROSODY_IDENTITY" = local ] || lua5.4 /usr/share/nanocloud/identity.lua 30
exec prosody -F
