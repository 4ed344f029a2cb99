#!/bin/sh
. /usr/lib/nanocloud/client.sh
exec pg_isready --timeout=5
