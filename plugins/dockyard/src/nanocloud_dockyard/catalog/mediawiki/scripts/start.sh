#!/bin/bash
# Fill the volume, install the wiki or bring it up to date, then run PHP and nginx side by side.
set -euo pipefail
umask 022
rm -rf /tmp/mediawiki
mkdir -m 0700 /tmp/mediawiki /tmp/mediawiki/cache
volume=/var/lib/mediawiki

# Extensions of the image are symbolic links; what somebody put beside them stays.
mkdir -p "$volume/images" "$volume/extensions" "$volume/settings"
cp -RPn /usr/share/nanocloud-extensions/. "$volume/extensions/"

cat /etc/ssl/certs/ca-certificates.crt > /tmp/mediawiki/ca.pem
if [ -r "${MEDIAWIKI_TLS_CA:-}" ]; then
    cat "$MEDIAWIKI_TLS_CA" >> /tmp/mediawiki/ca.pem
fi
/usr/lib/nanocloud/nginx-listen "${MEDIAWIKI_TLS_KEY:-}" "${MEDIAWIKI_TLS_CERT:-}" > /tmp/mediawiki/listen.conf

php=(php8.2 -d openssl.cafile=/tmp/mediawiki/ca.pem -d display_errors=stderr)
maintenance=/usr/share/mediawiki/maintenance
work=$("${php[@]}" /usr/share/nanocloud/database.php begin)
if [ "$work" = install ]; then
    if [ "$MEDIAWIKI_DB" = postgresql ]; then
        where=(--dbtype postgres --dbserver "$MEDIAWIKI_DB_HOST" --dbport "$MEDIAWIKI_DB_PORT" --dbschema mediawiki)
    else
        where=(--dbtype mysql --dbserver "$MEDIAWIKI_DB_HOST:$MEDIAWIKI_DB_PORT")
    fi
    # The installer refuses to work where there are settings. Passwords go through pipes, never through arguments.
    MW_CONFIG_FILE=/nonexistent "${php[@]}" "$maintenance/install.php" "${where[@]}" \
        --dbname "$MEDIAWIKI_DB_NAME" --dbuser "$MEDIAWIKI_DB_USER" \
        --dbpassfile php://fd/3 --passfile php://fd/4 --server http://localhost:8080 --scriptpath '' \
        --extensions "$(tr -s ' ' , <<< "$MEDIAWIKI_EXTENSIONS")" \
        -- "$MEDIAWIKI_TITLE" "$MEDIAWIKI_ADMIN_USER" \
        3< <(printf %s "$MEDIAWIKI_DB_PASSWORD") 4< <(printf %s "$MEDIAWIKI_ADMIN_PASSWORD")
    "${php[@]}" /usr/share/nanocloud/database.php end
fi

# An image with another MediaWiki, or other extensions, may want other tables.
made_for="$(cat /usr/share/nanocloud-version) $MEDIAWIKI_EXTENSIONS"
if [ "$work" = update ] && [ "$(cat "$volume/.made-for" 2> /dev/null)" != "$made_for" ]; then
    "${php[@]}" "$maintenance/update.php" --quick
    [ -e "$volume/.made-for" ] || "${php[@]}" /usr/share/nanocloud/administrator.php
fi
printf %s "$made_for" > "$volume/.made-for.new"
mv "$volume/.made-for.new" "$volume/.made-for"

exec /usr/lib/nanocloud/run-together \
    php-fpm8.2 --nodaemonize --force-stderr --fpm-config /usr/share/nanocloud/php-fpm.conf -- \
    nginx -e stderr -c /etc/nginx/nanocloud/nginx.conf
