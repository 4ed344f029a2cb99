#!/bin/sh
exec mariadb --user=mysql --batch --skip-column-names --connect-timeout=5 --execute='SELECT 1'
