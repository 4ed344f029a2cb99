#!/bin/sh
# Say where to listen and who may administrate, make the data folder if there is none, then become the server.
set -eu
umask 077
data=/var/lib/kafka/data
config=/dev/shm/server.properties

# Clients are told the name that is in the certificate, <bundle>.<namespace>.svc; the namespace's part is searched in.
domain=
[ ! -r /etc/resolv.conf ] || domain=$(sed -n 's/^search \([^ ]*\).*/\1/p' /etc/resolv.conf)
host=${KAFKA_BUNDLE:?}${domain:+.$domain}
port=${KAFKA_PORT:-9092}
tls_port=

# Binding commands, ready.sh and the server itself use the account nanocloud, whose password is new at every start, good
# for connections from this container alone, and lies on its own tmpfs.
password=$(head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1)
login="org.apache.kafka.common.security.plain.PlainLoginModule required username=\"nanocloud\" password=\"$password\""

listeners="LOCAL://127.0.0.1:19092,PLAIN://:$port"
advertised="LOCAL://127.0.0.1:19092,PLAIN://$host:$port"
if [ -r "${KAFKA_TLS_KEY:-}" ] && [ -r "${KAFKA_TLS_CERT:-}" ]; then
    tls_port=${KAFKA_TLS_PORT:-9093}
    listeners="$listeners,TLS://:$tls_port"
    advertised="$advertised,TLS://$host:$tls_port"
    cat "$KAFKA_TLS_KEY" "$KAFKA_TLS_CERT" > /dev/shm/keystore.pem
fi
{
    cat /usr/share/nanocloud/server.properties
    echo "listeners=$listeners,CONTROLLER://127.0.0.1:19093"
    echo "advertised.listeners=$advertised"
    echo "log.retention.hours=${KAFKA_RETENTION_HOURS:-168}"
    for listener in local controller; do
        echo "listener.name.$listener.plain.sasl.jaas.config=$login user_nanocloud=\"$password\";"
    done
    if [ -n "$tls_port" ]; then
        echo "listener.name.tls.ssl.keystore.type=PEM"
        echo "listener.name.tls.ssl.keystore.location=/dev/shm/keystore.pem"
    fi
} > "$config"
{
    echo "password=$password"
    echo "host=$host"
    echo "plain=$port"
    echo "tls=$tls_port"
    echo "ca=${KAFKA_TLS_CA:-}"
} > /dev/shm/nanocloud.properties
chmod 0444 /dev/shm/nanocloud.properties
unset password login

# Memory that the C library sets aside for each thread would never be used.
export MALLOC_ARENA_MAX=2
classpath="/usr/share/nanocloud:/opt/kafka/libs/*"

# Whole or not at all: the folder gets its name when it is complete.
if [ ! -d "$data" ]; then
    rm -rf "$data.new"
    sed "s|^log.dirs=.*|log.dirs=$data.new|" "$config" > /dev/shm/format.properties
    java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData -cp "$classpath" kafka.tools.StorageTool format \
        --config /dev/shm/format.properties \
        --cluster-id "$(head -c 16 /dev/urandom | base64 | tr +/ ab | cut -c 1-22)"
    rm /dev/shm/format.properties
    sync -f "$data.new"
    mv "$data.new" "$data"
    sync -f "$data"
fi

# The thresholds, three times the usual ones, keep Java from optimising what runs at the start only.
exec java -Xms64m -Xmx"${KAFKA_HEAP:-256m}" -XX:+UseSerialGC -XX:+ExitOnOutOfMemoryError -XX:-UsePerfData \
    -XX:Tier4InvocationThreshold=15000 -XX:Tier4MinInvocationThreshold=1800 -XX:Tier4CompileThreshold=45000 \
    -cp "$classpath" kafka.Kafka "$config"
