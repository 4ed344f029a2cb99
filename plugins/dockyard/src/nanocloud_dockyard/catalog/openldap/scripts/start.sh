#!/bin/sh
# First start: make the directory, whole or not at all. Every start: make the configuration and become the server.
set -eu
umask 077
run=/tmp/openldap
data=/var/lib/ldap/data
base_dn=$OPENLDAP_BASE_DN

fail() {
    echo "openldap: $*" >&2
    exit 64
}

# It goes into rules and patterns, so only names of which no character is special.
printf '%s\n' "$base_dn" | grep -Eqx 'dc=[A-Za-z0-9-]+(,dc=[A-Za-z0-9-]+)*' ||
    fail "option base_dn is '$base_dn'; it must have the form dc=example,dc=org"
if [ -d "$data" ] && [ "$(cat "$data/base_dn")" != "$base_dn" ]; then
    fail "option base_dn is '$base_dn', but the volume holds the directory $(cat "$data/base_dn")"
fi

rm -rf "$run"
mkdir -m 0755 "$run"
mkdir -m 0700 "$run/private"
printf %s "$OPENLDAP_ADMIN_PASSWORD" > "$run/private/password"
admin_hash=$(slappasswd -o module-path=/usr/lib/ldap -o module-load=argon2 -h '{ARGON2}' -T "$run/private/password")
rm "$run/private/password"
# The database is a sparse file that grows up to this size; the rest of the volume is for growing files beside it.
max_size=$(($(df --block-size=1 --output=size /var/lib/ldap | tail -n 1) * 9 / 10))

configure() { # DATA_FOLDER
    rm -rf "$run/private/slapd.d"
    mkdir "$run/private/slapd.d"
    sed -e "s|@RUN@|$run|" -e "s|@DATA@|$1|" -e "s|@MAX_SIZE@|$max_size|" -e "s|@BASE_DN@|$base_dn|g" \
        -e "s|@TLS_KEY@|$OPENLDAP_TLS_KEY|" -e "s|@TLS_CERT@|$OPENLDAP_TLS_CERT|" \
        -e "s|@TLS_CA@|$OPENLDAP_TLS_CA|" -e "s|@ADMIN_HASH@|$admin_hash|" \
        /usr/share/nanocloud/config.ldif > "$run/private/config.ldif"
    slapadd -n 0 -F "$run/private/slapd.d" -l "$run/private/config.ldif"
}

if [ ! -d "$data" ]; then
    rm -rf "$data.new"
    mkdir "$data.new"
    configure "$data.new"
    dc=${base_dn%%,*}
    sed -e "s|@BASE_DN@|$base_dn|" -e "s|@DC@|${dc#dc=}|" \
        -e "s|@ORGANIZATION@|$(printf %s "$OPENLDAP_ORGANIZATION" | base64 -w 0)|" \
        /usr/share/nanocloud/base.ldif > "$run/private/base.ldif"
    slapadd -F "$run/private/slapd.d" -b "$base_dn" -l "$run/private/base.ldif"
    printf %s "$base_dn" > "$data.new/base_dn"
    sync --file-system /var/lib/ldap
    mv "$data.new" "$data"
    sync --file-system /var/lib/ldap
fi
configure "$data"

# For the scripts beside this one: a binding command knows nothing of the options.
umask 022
printf '%s\n' "base_dn='$base_dn'" "port='$OPENLDAP_PORT'" > "$run/settings"
case $OPENLDAP_LOG in
    operations) debug=stats ;;
    *) debug=none ;;
esac
unset OPENLDAP_ADMIN_PASSWORD
exec slapd -F "$run/private/slapd.d" -d "$debug" \
    -h "ldapi://%2Ftmp%2Fopenldap%2Fsocket ldap://:$OPENLDAP_PORT ldaps://:$OPENLDAP_TLS_PORT"
