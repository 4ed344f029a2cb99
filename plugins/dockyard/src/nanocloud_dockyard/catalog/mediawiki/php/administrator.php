<?php
// Run when the volume is new: the account of the options exists, may administrate, and has the password of the
// options. The database may be older than the volume, with an administrator whose password nobody knows any more.

require_once '/usr/share/nanocloud/environment.php';
require_once '/usr/share/mediawiki/maintenance/Maintenance.php';

class NanocloudAdministrator extends Maintenance
{
    public function execute(): void
    {
        $name = nanocloud_env('ADMIN_USER');
        $user = User::newFromName($name, 'creatable');
        if (!$user) {
            $this->fatalError("mediawiki: admin_user '$name' cannot be the name of a user");
        }
        if (!$user->isRegistered()) {
            $user->addToDatabase();
        }
        $password = nanocloud_env('ADMIN_PASSWORD');
        $status = $user->changeAuthenticationData(
            ['username' => $user->getName(), 'password' => $password, 'retype' => $password]
        );
        if (!$status->isGood()) {
            $this->fatalError('mediawiki: admin_password: ' . $status->getMessage(false, false, 'en')->text());
        }
        \MediaWiki\MediaWikiServices::getInstance()->getUserGroupManager()
            ->addUserToMultipleGroups($user, ['sysop', 'bureaucrat', 'interface-admin']);
    }
}

$maintClass = NanocloudAdministrator::class;
require_once RUN_MAINTENANCE_IF_MAIN;
