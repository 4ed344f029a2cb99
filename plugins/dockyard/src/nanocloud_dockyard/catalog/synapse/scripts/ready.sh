#!/bin/sh
# The server answers, which it does once it has its database; the first time, the administrator is made then.
set -eu
/usr/lib/nanocloud/http-answers /tmp/synapse/local.sock /health 200
made=/var/lib/synapse/administrator-made
if [ ! -e "$made" ]; then
    /usr/lib/nanocloud/administrator
    : > "$made"
fi
