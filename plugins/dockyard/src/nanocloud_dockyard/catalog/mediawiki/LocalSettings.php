<?php
// The settings of MediaWiki. Everything that differs between installations comes from the environment, which the
// options of the image fill; what the owner of this wiki adds stands in /var/lib/mediawiki/settings/*.php.

require_once '/usr/share/nanocloud/environment.php';

$wgSitename = nanocloud_env('TITLE');
$wgMetaNamespace = 'Project'; // otherwise made of the title, and pages would change their names with it

// Without site_url the wiki answers under whatever name and port it is called by.
$wgServer = nanocloud_env('URL');
if ($wgServer === '') {
    $wgServer = 'http://localhost:8080';
    $nanocloudHost = $_SERVER['NANOCLOUD_HOST'] ?? '';
    if (preg_match('/^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?$/', $nanocloudHost)) {
        // A server before this one knows how the visitor came.
        $nanocloudScheme = $_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '';
        if (!in_array($nanocloudScheme, ['http', 'https'], true)) {
            $nanocloudScheme = ($_SERVER['HTTPS'] ?? '') === 'on' ? 'https' : 'http';
        }
        $wgServer = "$nanocloudScheme://$nanocloudHost";
    }
}
$wgServer = rtrim($wgServer, '/');
$wgScriptPath = '';
$wgArticlePath = '/wiki/$1';

$wgDBname = nanocloud_env('DB_NAME'); // also names this wiki in caches and jobs
if (nanocloud_on_postgresql()) {
    $wgDBmwschema = 'mediawiki'; // MariaDB has no schemas; this is part of the name as well
}
$wgDBservers = [nanocloud_database_server() + ['load' => 1]];
$wgSecretKey = nanocloud_env('SECRET_KEY');
$wgUpgradeKey = nanocloud_env('UPGRADE_KEY');

$wgEnableUploads = true;
$wgUploadDirectory = '/var/lib/mediawiki/images';
$wgUploadPath = '/images';
$wgUseInstantCommons = false;
$wgPingback = false;

// APCu is shared by all requests and gone with the container; sessions must outlive it. Jobs run at the end of
// requests, not in a process of their own, which would not see this cache.
$wgMainCacheType = CACHE_ACCEL;
$wgSessionCacheType = CACHE_DB;
// New with each container: the cache notices changes by the times of files, and in images these are all the same.
$wgCacheDirectory = '/tmp/mediawiki/cache';

$wgEmergencyContact = $wgPasswordSender = 'wiki@localhost';
$wgEnableEmail = false; // until its owner sets a mail server up
// Visitors see the number of an exception only; what it was stands in the log.
$wgDebugLogGroups = array_fill_keys(['exception', 'error', 'fatal'], 'php://stderr');
$wgDiff3 = '/usr/bin/diff3';

foreach (['MinervaNeue', 'MonoBook', 'Timeless', 'Vector'] as $nanocloudName) {
    wfLoadSkin($nanocloudName);
}
$wgDefaultSkin = 'vector';
foreach (preg_split('/[\s,]+/', nanocloud_env('EXTENSIONS'), -1, PREG_SPLIT_NO_EMPTY) as $nanocloudName) {
    wfLoadExtension($nanocloudName);
}

foreach (glob('/var/lib/mediawiki/settings/*.php') as $nanocloudName) {
    require $nanocloudName;
}
