<?php
// 200 only when MediaWiki starts and its database has just answered.
$_SERVER['REMOTE_ADDR'] = '127.0.0.1'; // a Unix socket has none, and MediaWiki wants one
define('MW_NO_SESSION', 1);
define('MW_ENTRY_POINT', 'ready');
require '/usr/share/mediawiki/includes/WebStart.php';
wfGetDB(DB_PRIMARY)->selectField('site_stats', 'ss_row_id', [], 'ready.php');
