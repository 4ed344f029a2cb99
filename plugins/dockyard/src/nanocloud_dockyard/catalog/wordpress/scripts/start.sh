#!/bin/bash
# Fill the volume, install the site, then run PHP, nginx and WordPress' timed work side by side.
set -euo pipefail
umask 022
rm -rf /tmp/wordpress
mkdir -m 0700 /tmp/wordpress

# Themes and plugins of the image are symbolic links; what somebody changed on the volume stays.
mkdir -p /var/lib/wordpress/wp-content
cp -RPn /usr/share/nanocloud-wp-content/. /var/lib/wordpress/wp-content/

cat /etc/ssl/certs/ca-certificates.crt > /tmp/wordpress/ca.pem
if [ -r "${WORDPRESS_TLS_CA:-}" ]; then
    cat "$WORDPRESS_TLS_CA" >> /tmp/wordpress/ca.pem
fi

/usr/lib/nanocloud/nginx-listen "${WORDPRESS_TLS_KEY:-}" "${WORDPRESS_TLS_CERT:-}" > /tmp/wordpress/listen.conf

php=(php8.2 -d openssl.cafile=/tmp/wordpress/ca.pem -d display_errors=stderr)
"${php[@]}" /usr/share/nanocloud/install.php

exec /usr/lib/nanocloud/run-together \
    php-fpm8.2 --nodaemonize --force-stderr --fpm-config /usr/share/nanocloud/php-fpm.conf -- \
    nginx -e stderr -c /etc/nginx/nanocloud/nginx.conf -- \
    sh -c 'while sleep 300; do "$@" /usr/share/wordpress/wp-cron.php; done' cron "${php[@]}"
