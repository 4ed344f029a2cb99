<?php
// database.php begin|end
//
// begin: wait for the database and say on standard output what is to be done with it, "install" or "update". An
// installation is not one transaction: a table marks one that has begun, and one that was broken off is taken away.
// Only tables that came after that mark are ever dropped, so a wiki that is there stays, whatever the volume holds.
// end: the installation is whole.

require_once '/usr/share/nanocloud/environment.php';

const MARK = 'nanocloud_installing';

interface Database
{
    /** Whether there is no wiki, or only one whose installation was broken off. */
    public function isFree(): bool;

    /** Leave the mark and nothing else. */
    public function clear(): void;

    public function removeMark(): void;
}

class MariaDb implements Database
{
    private mysqli $link;

    public function __construct()
    {
        mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
        $server = nanocloud_database_server();
        $this->link = mysqli_init();
        $flags = 0;
        if (isset($server['ssl'])) {
            $this->link->ssl_set(null, null, $server['sslCAFile'], null, null);
            $flags = MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_VERIFY_SERVER_CERT;
        }
        $this->link->real_connect(nanocloud_env('DB_HOST'), $server['user'], $server['password'], $server['dbname'],
            (int) nanocloud_env('DB_PORT'), null, $flags);
    }

    public function isFree(): bool
    {
        $tables = $this->tables();
        return !$tables || in_array(MARK, $tables, true);
    }

    public function clear(): void
    {
        $this->link->query('CREATE TABLE IF NOT EXISTS ' . MARK . ' (i INT)');
        foreach (array_diff($this->tables(), [MARK]) as $table) {
            $this->link->query('DROP TABLE `' . str_replace('`', '``', $table) . '`');
        }
    }

    public function removeMark(): void
    {
        $this->link->query('DROP TABLE IF EXISTS ' . MARK);
    }

    private function tables(): array
    {
        return array_column($this->link->query('SHOW TABLES')->fetch_all(), 0);
    }
}

class PostgreSql implements Database
{
    private PgSql\Connection $link;

    public function __construct()
    {
        $server = nanocloud_database_server();
        $words = ['host' => $server['host'], 'port' => (string) $server['port'], 'dbname' => $server['dbname'],
                  'user' => $server['user'], 'password' => $server['password'], 'connect_timeout' => '5'];
        $text = '';
        foreach ($words as $name => $value) {
            $text .= "$name='" . addcslashes($value, "\\'") . "' ";
        }
        set_error_handler(fn (int $level, string $message) => throw new RuntimeException($message));
        $this->link = pg_connect($text);
    }

    public function isFree(): bool
    {
        $tables = pg_query($this->link, "SELECT tablename FROM pg_tables WHERE schemaname = 'mediawiki'");
        $names = pg_fetch_all_columns($tables);
        return !$names || in_array(MARK, $names, true);
    }

    public function clear(): void
    {
        pg_query($this->link, 'BEGIN; SET LOCAL client_min_messages = warning; DROP SCHEMA IF EXISTS mediawiki CASCADE; '
            . 'CREATE SCHEMA mediawiki; CREATE TABLE mediawiki.' . MARK . ' (i int); COMMIT');
    }

    public function removeMark(): void
    {
        pg_query($this->link, 'DROP TABLE IF EXISTS mediawiki.' . MARK);
    }
}

function nanocloud_connect(int $seconds): Database
{
    for ($left = $seconds; ; $left--) {
        try {
            return nanocloud_on_postgresql() ? new PostgreSql() : new MariaDb();
        } catch (RuntimeException $error) { // of which mysqli's own is one
            if ($left <= 0) {
                fwrite(STDERR, 'mediawiki: no connection to the database: ' . $error->getMessage() . "\n");
                exit(1);
            }
            sleep(1);
        }
    }
}

if ($argv[1] === 'begin') {
    $database = nanocloud_connect(30);
    $free = $database->isFree();
    if ($free) {
        $database->clear();
    }
    echo $free ? "install\n" : "update\n";
} else {
    nanocloud_connect(0)->removeMark();
}
