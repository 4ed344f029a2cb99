#!/bin/sh
# Give an empty volume its first page, say where to listen, then become the server.
set -eu
rm -rf /tmp/nginx
mkdir -p /tmp/nginx
/usr/lib/nanocloud/nginx-listen "${NGINX_TLS_KEY:-}" "${NGINX_TLS_CERT:-}" > /tmp/nginx/listen.conf
if [ -z "$(find /srv/www -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
    cp /usr/share/nanocloud/index.html /srv/www/.index.html
    mv /srv/www/.index.html /srv/www/index.html
fi
exec nginx -e stderr -c /etc/nginx/nanocloud.conf
