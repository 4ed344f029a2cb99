<?php
// What the options of the image say, for MediaWiki's settings and for the scripts of the first start.

function nanocloud_env(string $name): string
{
    $value = getenv('MEDIAWIKI_' . $name);
    if ($value === false) {
        throw new RuntimeException("MEDIAWIKI_$name is not in the environment");
    }
    return $value;
}

function nanocloud_on_postgresql(): bool
{
    return nanocloud_env('DB') === 'postgresql';
}

/**
 * The database as MediaWiki's classes take it.
 *
 * MariaDB: a server's certificate and name are verified only if an authority is named here. PostgreSQL: the client
 * library is told by its variables; with 'ssl' MediaWiki would ask for sslmode "require", which takes any certificate.
 */
function nanocloud_database_server(): array
{
    $server = [
        'host' => nanocloud_env('DB_HOST'),
        'user' => nanocloud_env('DB_USER'),
        'password' => nanocloud_env('DB_PASSWORD'),
        'dbname' => nanocloud_env('DB_NAME'),
    ];
    $tls = nanocloud_env('DB_TRANSPORT') === 'tls';
    if (nanocloud_on_postgresql()) {
        putenv('PGSSLMODE=' . ($tls ? 'verify-full' : 'disable'));
        putenv('PGSSLROOTCERT=' . nanocloud_env('TLS_CA'));
        return ['type' => 'postgres', 'port' => (int) nanocloud_env('DB_PORT'), 'schema' => 'mediawiki'] + $server;
    }
    $server['host'] .= ':' . nanocloud_env('DB_PORT');
    return ['type' => 'mysql'] + ($tls ? ['ssl' => true, 'sslCAFile' => nanocloud_env('TLS_CA')] : []) + $server;
}
