#!/bin/sh
# For the binding commands, to be read with ".".
export LC_ALL=C
run=/dev/shm/mosquitto

fail() {
    echo "${0##*/}: $*" >&2
    exit 64
}

# USER PASSWORD_PATH [TOPIC_PREFIX], the words of all binding commands. Sets topics: what USER may use.
check_words() {
    [ $# -eq 2 ] || [ $# -eq 3 ] || fail "usage: ${0##*/} USER PASSWORD_PATH [TOPIC_PREFIX]"
    case $1 in
        '' | *[!A-Za-z0-9_-]*) fail "user '$1' must be made of letters, digits, _ and -" ;;
        nanocloud) fail "user '$1' belongs to the broker" ;;
    esac
    [ ${#1} -le 64 ] || fail "user '$1' is longer than 64 characters"
    topics=${3:-}
    topics=${topics%/}
    case $topics in
        /* | *//* | *[!A-Za-z0-9_./-]*)
            fail "topic prefix '$3' must be made of letters, digits, _ . and -, in levels with / between them"
            ;;
    esac
    [ ${#topics} -le 256 ] || fail "topic prefix '$3' is longer than 256 characters"
    topics=${topics:+$topics/}#
}
