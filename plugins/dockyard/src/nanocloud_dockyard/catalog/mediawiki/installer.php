<?php
// Read by MediaWiki's installer. It would connect to MariaDB with TLS but without a look at the certificate, and write
// LocalSettings.php; that file is part of this image.

require_once '/usr/share/nanocloud/environment.php';

class NanocloudMysqlInstaller extends MysqlInstaller
{
    public function openConnection()
    {
        $server = ['dbname' => false, 'flags' => 0, 'tablePrefix' => ''] + nanocloud_database_server();
        try {
            return Status::newGood((new Wikimedia\Rdbms\DatabaseFactory())->create('mysql', $server));
        } catch (Wikimedia\Rdbms\DBConnectionError $error) {
            return Status::newFatal('config-connection-error', $error->getMessage());
        }
    }
}

class NanocloudInstaller extends CliInstaller
{
    public function getDBInstaller($type = false)
    {
        if (strtolower($type ?: $this->getVar('wgDBtype')) === 'mysql') {
            return $this->dbInstallers['mysql'] ??= new NanocloudMysqlInstaller($this);
        }
        return parent::getDBInstaller($type);
    }

    public function writeConfigurationFile($path)
    {
    }
}

$overrides['CliInstaller'] = NanocloudInstaller::class;
