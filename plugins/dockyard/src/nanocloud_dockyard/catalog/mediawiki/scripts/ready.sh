#!/bin/sh
# nginx, PHP and the database answer together.
exec /usr/lib/nanocloud/http-answers /tmp/mediawiki/ready.sock /ready.php 200
