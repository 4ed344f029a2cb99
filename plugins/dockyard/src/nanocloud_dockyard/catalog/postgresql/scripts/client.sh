#!/bin/sh
# For the other scripts, to be read with ".": how to reach this container's server, whatever its port is.
export LC_ALL=C PGHOST=/tmp/postgresql PGCONNECT_TIMEOUT=10
for socket in "$PGHOST"/.s.PGSQL.*; do
    case $socket in *.lock) ;; *) export PGPORT="${socket##*.}" ;; esac
done
PATH=/usr/lib/postgresql/15/bin:$PATH

fail() {
    echo "${0##*/}: $*" >&2
    exit 64
}

check_name() { # WHAT NAME
    case $2 in
        '' | -* | *[!A-Za-z0-9_-]*) fail "$1 '$2' must be made of letters, digits, _ and -, and not begin with -" ;;
        postgres | nobody | template0 | template1 | public | none | pg_* | nanocloud_*) fail "$1 '$2' belongs to the server" ;;
    esac
    [ ${#2} -le 63 ] || fail "$1 '$2' is longer than 63 characters"
}

# DATABASE USER PASSWORD_PATH [plain|tls] [LOCALE], the words of all binding commands.
check_words() {
    [ $# -ge 3 ] && [ $# -le 5 ] || fail "usage: ${0##*/} DATABASE USER PASSWORD_PATH [plain|tls] [LOCALE]"
    check_name database "$1"
    check_name user "$2"
    case ${4:-plain} in plain | tls) ;; *) fail "transport '$4' must be plain or tls" ;; esac
    case ${5:-C.UTF-8} in C | C.UTF-8) ;; *) fail "locale '$5' must be C or C.UTF-8" ;; esac
}

# Standard input, run as nobody; each statement is a transaction. Errors come without the statement, which may hold
# a password.
sql() {
    psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --set=VERBOSITY=terse --username=nobody \
        --dbname=postgres --output=/dev/null
}
