#!/bin/sh
# Read by the scripts of this folder: how they reach the server as root.
#
# They have no way to know KV_ROOT_PASSWORD. start.sh leaves it on this container's own tmpfs, where only this
# container's processes can read it. The listener is on the pod's loopback, which no other pod can reach.
export LC_ALL=C
export ETCDCTL_ENDPOINTS=http://127.0.0.1:2389
admin() {
    ETCDCTL_USER=root ETCDCTL_PASSWORD=$(cat /dev/shm/etcd-root) etcdctl "$@"
}

# public USER PASSWORD_PATH WORD...: as a dependant does it, over TLS.
public() {
    ETCDCTL_USER=$1 ETCDCTL_PASSWORD=$(cat "$2")
    shift 2
    read -r ETCDCTL_ENDPOINTS ETCDCTL_CACERT < /dev/shm/etcd-public || [ -n "$ETCDCTL_CACERT" ]
    export ETCDCTL_USER ETCDCTL_PASSWORD ETCDCTL_CACERT
    etcdctl "$@"
}

# usage NAME USER PREFIX: what every binding command takes, checked.
check_names() {
    case $2 in
        '' | *[!A-Za-z0-9_-]*) refuse "$1: user '$2' must be made of letters, digits, _ and -" ;;
        root | nanocloud-*) refuse "$1: user '$2' belongs to the server" ;;
    esac
    case $3 in
        '' | *[!A-Za-z0-9_./:-]*) refuse "$1: prefix '$3' must be made of letters, digits, _ . / : and -" ;;
    esac
}

refuse() {
    echo "$*" >&2
    exit 64
}
