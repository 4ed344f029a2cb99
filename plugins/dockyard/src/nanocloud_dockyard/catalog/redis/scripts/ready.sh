#!/bin/sh
# redis-cli exits with 0 also when the answer is an error, such as LOADING.
REDISCLI_AUTH=$(cat /dev/shm/nanocloud-password) && export REDISCLI_AUTH
[ "$(redis-cli -s /tmp/redis.sock --user nanocloud ping)" = PONG ]
