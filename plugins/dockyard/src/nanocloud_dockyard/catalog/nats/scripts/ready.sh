#!/bin/bash
# The server's own judgement, which also covers its streams; and binding commands find the keeper.
[ -S /dev/shm/nats/keeper ] || { echo "the keeper of accounts is not there" && exit 1; }
exec 3<> /dev/tcp/127.0.0.1/8222 || exit 1
printf 'GET /healthz HTTP/1.0\r\n\r\n' >&3
read -r -t 5 -u 3 status
case $status in
    *" 200 "*) ;;
    *) echo "the server is not well: $status" && exit 1 ;;
esac
