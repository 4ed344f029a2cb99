#!/bin/sh
# Log in, subscribe and leave.
XDG_CONFIG_HOME=/dev/shm/mosquitto exec mosquitto_sub -E -W 5 -t '$CONTROL/dynamic-security/v1/response'
