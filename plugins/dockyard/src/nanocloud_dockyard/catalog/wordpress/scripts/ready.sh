#!/bin/sh
# nginx, PHP and the database answer together.
exec /usr/lib/nanocloud/http-answers /tmp/wordpress/ready.sock /ready.php 200
