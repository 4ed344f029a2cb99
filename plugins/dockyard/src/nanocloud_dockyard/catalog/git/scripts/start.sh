#!/bin/bash
# Every start: write how the database is reached, bring its tables about, become the server. First start: the account.
set -euo pipefail
umask 027
rm -rf /tmp/git
mkdir -m 0700 /tmp/git
export HOME=/tmp/git PGSERVICEFILE=/tmp/git/pg_service.conf

fail() {
    echo "git: $*" >&2
    exit 64
}

# Between the quotes of neither file has anything in these values a meaning.
case $GIT_DB_PASSWORD in
    *[!][A-Za-z0-9_.:,/+=@%^*?~!-]* | '') fail "database_password may hold letters, digits and ][_.:,/+=@%^*?~!- only" ;;
esac
case $GIT_DB_KIND:$GIT_DB_TRANSPORT in
    postgresql:plain) security=sslmode=disable ;;
    postgresql:tls) security=$(printf 'sslmode=verify-full\nsslrootcert=%s' "$GIT_TLS_CA") ;;
    mariadb:plain) security= ;;
    mariadb:tls) security=$(printf 'ssl-ca=%s\nssl-verify-server-cert' "$GIT_TLS_CA") ;;
    *) fail "there is no transport $GIT_DB_TRANSPORT to $GIT_DB_KIND" ;;
esac
if [ "$GIT_DB_KIND" = postgresql ]; then
    printf '[git]\nhost=%s\nport=%s\ndbname=%s\nuser=%s\npassword=%s\nconnect_timeout=10\n%s\n' "$GIT_DB_HOST" \
        "$GIT_DB_PORT" "$GIT_DB_NAME" "$GIT_DB_USER" "$GIT_DB_PASSWORD" "$security" > "$PGSERVICEFILE"
    printf 'DBDriver pgsql\nDBDParams "service=git"\n' > /tmp/git/database.conf
else
    printf '[client]\nhost=%s\nport=%s\ndatabase=%s\nuser=%s\npassword="%s"\nconnect-timeout=10\n%s\n' "$GIT_DB_HOST" \
        "$GIT_DB_PORT" "$GIT_DB_NAME" "$GIT_DB_USER" "$GIT_DB_PASSWORD" "$security" > /tmp/git/.my.cnf
    printf 'DBDriver mysql\nDBDParams "group=client"\n' > /tmp/git/database.conf
fi

mkdir -p /var/lib/git/repositories
/usr/lib/nanocloud/sql < /usr/share/nanocloud/schema.sql
if [ "$(echo 'SELECT COUNT(*) FROM accounts;' | /usr/lib/nanocloud/sql)" = 0 ]; then
    printf %s "$GIT_ADMIN_PASSWORD" | /usr/lib/nanocloud/repositories add-account "$GIT_ADMIN_USER" '*'
fi
unset GIT_DB_PASSWORD GIT_ADMIN_PASSWORD
exec apache2 -f /usr/share/nanocloud/apache.conf -D FOREGROUND
