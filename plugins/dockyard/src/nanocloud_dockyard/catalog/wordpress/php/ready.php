<?php
// 200 only when WordPress is installed and its database has just answered. The object cache lives for one request, so
// this reads the table.
define('WP_INSTALLING', true);
require '/usr/share/wordpress/wp-load.php';
if (!is_blog_installed()) {
    http_response_code(503);
}
