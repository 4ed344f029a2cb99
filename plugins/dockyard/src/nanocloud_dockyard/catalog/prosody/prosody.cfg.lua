-- Everything that differs between installations comes from the environment, which the options of the image fill.
data_path = "/var/lib/prosody/data"
pidfile = "/tmp/prosody.pid"
admin_socket = "/tmp/prosody.sock"
log = { { levels = { min = "info" }, to = "console" } }

modules_enabled = {
	"disco", "roster", "saslauth", "tls", "posix",
	"blocklist", "bookmarks", "carbons", "csi_simple", "limits", "mam", "pep", "ping", "private", "smacks", "time",
	"uptime", "vcard4", "vcard_legacy", "version", "admin_shell",
}
-- For the people of this directory; other servers are not talked to.
modules_disabled = { "s2s" }

component_ports = {}
c2s_direct_tls_ports = { 5223 }
c2s_require_encryption = true
ssl = { key = ENV_PROSODY_TLS_KEY, certificate = ENV_PROSODY_TLS_CERT }
limits = { c2s = { rate = "100kb/s" } }
archive_expires_after = "1y"

if ENV_PROSODY_IDENTITY == "local" then
	authentication = "internal_hashed"
else
	-- Who somebody is, the directory says at each login: it finds the person, then takes or refuses the password.
	authentication = "ldap"
	ldap_server = ENV_PROSODY_LDAP_HOST .. ":" .. ENV_PROSODY_LDAP_PORT
	ldap_tls = ENV_PROSODY_LDAP_TRANSPORT == "tls"
	ldap_rootdn = "cn=" .. ENV_PROSODY_LDAP_ACCOUNT .. ",ou=services," .. ENV_PROSODY_LDAP_BASE_DN
	ldap_password = ENV_PROSODY_LDAP_PASSWORD
	ldap_base = "ou=people," .. ENV_PROSODY_LDAP_BASE_DN
	ldap_scope = "onelevel"
	ldap_filter = "(&(objectClass=inetOrgPerson)(uid=$user))"
	ldap_mode = "bind"
end

VirtualHost(ENV_PROSODY_DOMAIN)

Component("rooms." .. ENV_PROSODY_DOMAIN, "muc")
modules_enabled = { "muc_mam" }
restrict_room_creation = "local"
