# Sourced by the binding commands *_account: what they have in common. They all take NAME PASSWORD_PATH [plain|tls].
set -eu
export LC_ALL=C LDAPCONF=/usr/share/nanocloud/ldap.conf
command=${0##*/}

fail() {
    echo "$command: $*" >&2
    exit 64
}

[ $# -eq 2 ] || [ $# -eq 3 ] || fail "usage: $command NAME PASSWORD_PATH [plain|tls]"
case $1 in
    '' | *[!A-Za-z0-9_-]*) fail "name '$1' must be made of letters, digits, _ and -" ;;
esac
[ ${#1} -le 64 ] || fail "name '$1' is longer than 64 characters"
transport=${3:-plain}
case $transport in
    plain | tls) ;;
    *) fail "transport '$3' must be plain or tls" ;;
esac
[ -r /tmp/openldap/settings ] || fail "the server has not started"
. /tmp/openldap/settings
account="cn=$1,ou=services,$base_dn"
