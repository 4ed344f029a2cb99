#!/bin/sh
# Give an empty volume its first page, say where to listen and what to serve, then become the server.
set -eu

fail() {
    echo "nginx: $*" >&2
    exit 64
}

check() { # OPTION VALUE PATTERN WHAT
    printf '%s\n' "$2" | grep -Eqx "$3" || fail "option $1 is '$2'; it must be $4"
}

rm -rf /tmp/nginx
mkdir -p /tmp/nginx
/usr/lib/nanocloud/nginx-listen "${NGINX_TLS_KEY:-}" "${NGINX_TLS_CERT:-}" > /tmp/nginx/listen.conf

if [ -n "${NGINX_UPSTREAM_HOST:-}" ]; then
    check upstream_host "$NGINX_UPSTREAM_HOST" '[A-Za-z0-9._-]+' 'a host name or an IPv4 address'
    check upstream_port "$NGINX_UPSTREAM_PORT" '[0-9]{1,5}' 'a port'
    check max_body_size "$NGINX_MAX_BODY_SIZE" '[0-9]{1,12}[kmgKMG]?' 'a number of bytes, or one that ends in k, m or g'
    {
        # The node's name server, asked again after a second: then an upstream that moved is found.
        servers=$(sed -n -E 's/^nameserver ([0-9.]+)$/\1/p; s/^nameserver ([0-9a-f:]+)$/[\1]/p' /etc/resolv.conf)
        echo "resolver $(echo "$servers" | tr '\n' ' ') valid=1s;"
        echo "client_max_body_size $NGINX_MAX_BODY_SIZE;"
        echo "proxy_ssl_trusted_certificate $NGINX_TLS_CA;"
        echo "proxy_ssl_name $NGINX_UPSTREAM_HOST;"
        if [ -n "${NGINX_UPSTREAM_TLS_PORT:-}" ]; then
            check upstream_tls_port "$NGINX_UPSTREAM_TLS_PORT" '[0-9]{1,5}' 'a port'
            echo "set \$upstream https://$NGINX_UPSTREAM_HOST:$NGINX_UPSTREAM_TLS_PORT;"
        else
            echo "set \$upstream http://$NGINX_UPSTREAM_HOST:$NGINX_UPSTREAM_PORT;"
        fi
        echo 'include /etc/nginx/nanocloud/proxy.conf;'
    } > /tmp/nginx/site.conf
else
    echo 'include /etc/nginx/nanocloud/files.conf;' > /tmp/nginx/site.conf
    if [ -z "$(find /srv/www -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
        cp /usr/share/nanocloud/index.html /srv/www/.index.html
        mv /srv/www/.index.html /srv/www/index.html
    fi
fi
exec nginx -e stderr -c /etc/nginx/nanocloud/nginx.conf
