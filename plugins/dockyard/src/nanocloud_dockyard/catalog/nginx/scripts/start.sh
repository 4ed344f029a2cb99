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

# One of them at most has a value, by what was selected.
address=${NGINX_UPSTREAM_OTHER:-}${NGINX_UPSTREAM_PLAIN:-}${NGINX_UPSTREAM_TLS:-}
if [ -n "$address" ]; then
    check other_upstream "$address" '[A-Za-z0-9._-]+:[0-9]{1,5}' 'HOST:PORT, with a host name or an IPv4 address'
    check max_body_size "$NGINX_MAX_BODY_SIZE" '[0-9]{1,12}[kmgKMG]?' 'a number of bytes, or one that ends in k, m or g'
    [ "$NGINX_UPSTREAM_TRANSPORT" = tls ] && scheme=https || scheme=http
    # The node's name server, asked again after a second: then an upstream that moved is found.
    servers=$(sed -n -E 's/^nameserver ([0-9.]+)$/\1/p; s/^nameserver ([0-9a-f:]+)$/[\1]/p' /etc/resolv.conf)
    cat > /tmp/nginx/site.conf << CONF
resolver $(echo "$servers" | tr '\n' ' ') valid=1s;
client_max_body_size $NGINX_MAX_BODY_SIZE;
proxy_ssl_trusted_certificate $NGINX_TLS_CA;
proxy_ssl_name ${address%:*};
set \$upstream $scheme://$address;
include /etc/nginx/nanocloud/proxy.conf;
CONF
else
    echo 'include /etc/nginx/nanocloud/files.conf;' > /tmp/nginx/site.conf
    if [ -z "$(find /srv/www -mindepth 1 -maxdepth 1 ! -name lost+found -print -quit)" ]; then
        cp /usr/share/nanocloud/index.html /srv/www/.index.html
        mv /srv/www/.index.html /srv/www/index.html
    fi
fi
exec nginx -e stderr -c /etc/nginx/nanocloud/nginx.conf
