#!/bin/sh
# The directory answers, not only listens.
set -eu
. /tmp/openldap/settings
export LDAPCONF=/usr/share/nanocloud/ldap.conf
exec ldapsearch -Q -LLL -Y EXTERNAL -s base -b "ou=people,$base_dn" 1.1
