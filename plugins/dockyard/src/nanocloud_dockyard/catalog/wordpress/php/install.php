<?php
// Run by start.sh before the first request: wait for the database, then bring the site to "installed" from whatever
// state it is in, also from a half made installation.

$_SERVER['HTTP_HOST'] = 'localhost:8080';
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['REQUEST_METHOD'] = 'GET';
define('WP_INSTALLING', true);

// Mail is the site's own matter, once somebody has set it up; core would try to send one now.
function wp_new_blog_notification(...$ignored): void
{
}

function nanocloud_wait_for_database(int $seconds): void
{
    mysqli_report(MYSQLI_REPORT_OFF);
    $flags = getenv('WORDPRESS_DB_TRANSPORT') === 'tls'
        ? MYSQLI_CLIENT_SSL | MYSQLI_CLIENT_SSL_VERIFY_SERVER_CERT : 0;
    for ($left = $seconds; ; $left--) {
        $link = mysqli_init();
        if (@$link->real_connect(
            getenv('WORDPRESS_DB_HOST'), getenv('WORDPRESS_DB_USER'), getenv('WORDPRESS_DB_PASSWORD'),
            getenv('WORDPRESS_DB_NAME'), (int) getenv('WORDPRESS_DB_PORT'), null, $flags
        )) {
            $link->close();
            return;
        }
        if ($left <= 0) {
            fwrite(STDERR, 'wordpress: no connection to the database: ' . mysqli_connect_error() . "\n");
            exit(1);
        }
        sleep(1);
    }
}

nanocloud_wait_for_database(30);
require '/usr/share/wordpress/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';

$user = nanocloud_env('ADMIN_USER');
$password = nanocloud_env('ADMIN_PASSWORD');
$email = nanocloud_env('ADMIN_EMAIL');
if (!is_blog_installed()) {
    wp_install(nanocloud_env('TITLE'), $user, $email, true, '', wp_slash($password));
    echo "wordpress: installed\n";
} else {
    // An image with a newer WordPress may want other tables; does nothing when they fit.
    wp_upgrade();
}
if (!get_users(['role' => 'administrator', 'number' => 1])) {
    $id = wp_create_user($user, wp_slash($password), $email);
    if (is_wp_error($id)) {
        fwrite(STDERR, 'wordpress: the administrator cannot be created: ' . $id->get_error_message() . "\n");
        exit(1);
    }
    (new WP_User($id))->set_role('administrator');
}
