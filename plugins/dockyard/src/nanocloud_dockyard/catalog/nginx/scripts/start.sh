#!/bin/sh
# Give an empty volume its first page, say where to listen, then become the server.
set -eu
rm -rf /tmp/nginx
mkdir -p /tmp/nginx
{
    echo 'listen 8080;'
    [ ! -e /proc/net/if_inet6 ] || echo 'listen [::]:8080;'
    if [ -r "${NGINX_TLS_KEY:-}" ] && [ -r "${NGINX_TLS_CERT:-}" ]; then
        echo 'listen 8443 ssl;'
        [ ! -e /proc/net/if_inet6 ] || echo 'listen [::]:8443 ssl;'
        echo "ssl_certificate $NGINX_TLS_CERT;"
        echo "ssl_certificate_key $NGINX_TLS_KEY;"
    fi
} > /tmp/nginx/listen.conf
if [ -z "$(find /srv/www -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
    cp /usr/share/nanocloud/index.html /srv/www/.index.html
    mv /srv/www/.index.html /srv/www/index.html
fi
exec nginx -e stderr -c /etc/nginx/nanocloud.conf
