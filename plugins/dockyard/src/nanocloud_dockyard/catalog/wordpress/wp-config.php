<?php
// Read by Debian's /usr/share/wordpress/wp-config.php. Everything that differs between installations comes from the
// environment, which the options of the image fill.

function nanocloud_env(string $name): string
{
    $value = getenv('WORDPRESS_' . $name);
    if ($value === false) {
        error_log("WORDPRESS_$name is not in the environment");
        http_response_code(500);
        exit(1);
    }
    return $value;
}

define('DB_NAME', nanocloud_env('DB_NAME'));
define('DB_USER', nanocloud_env('DB_USER'));
define('DB_PASSWORD', nanocloud_env('DB_PASSWORD'));
define('DB_HOST', nanocloud_env('DB_HOST') . ':' . nanocloud_env('DB_PORT'));
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
if (nanocloud_env('DB_TRANSPORT') === 'tls') {
    // The server's certificate and name are checked against openssl.cafile, where start.sh put the node's authority.
    define('MYSQL_CLIENT_FLAGS', MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_VERIFY_SERVER_CERT);
}

foreach (['AUTH_KEY', 'SECURE_AUTH_KEY', 'LOGGED_IN_KEY', 'NONCE_KEY',
          'AUTH_SALT', 'SECURE_AUTH_SALT', 'LOGGED_IN_SALT', 'NONCE_SALT'] as $key) {
    define($key, hash_hmac('sha256', $key, nanocloud_env('SALT')));
}

// Without site_url the site answers under whatever name and port it is called by.
$nanocloud_url = nanocloud_env('URL');
if ($nanocloud_url === '') {
    $host = $_SERVER['HTTP_HOST'] ?? '';
    if (!preg_match('/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?$/', $host)) {
        $host = 'localhost:8080';
    }
    $nanocloud_url = (($_SERVER['HTTPS'] ?? '') === 'on' ? 'https' : 'http') . "://$host";
}
if (str_starts_with($nanocloud_url, 'https://')) {
    $_SERVER['HTTPS'] = 'on'; // something before this server ends TLS
}
define('WP_HOME', rtrim($nanocloud_url, '/'));
define('WP_SITEURL', WP_HOME);

define('WP_CONTENT_DIR', '/var/lib/wordpress/wp-content');
define('FS_METHOD', 'direct');
// WordPress itself is part of the image and is updated with it; plugins and themes live on the volume.
define('WP_AUTO_UPDATE_CORE', false);
// start.sh runs what is due. WordPress would call itself by its outer name, which need not resolve in here.
define('DISABLE_WP_CRON', true);
