-- identity.lua SECONDS
--
-- Run by start.sh: wait so long for the directory to take our account. A server that nobody can log in to must not look
-- as if it worked.
local lualdap = require "lualdap"
local socket = require "socket"

local function env(name)
	return assert(os.getenv("PROSODY_LDAP_" .. name), "PROSODY_LDAP_" .. name .. " is not in the environment")
end

local server = env("HOST") .. ":" .. env("PORT")
local account = "cn=" .. env("ACCOUNT") .. ",ou=services," .. env("BASE_DN")
local last = socket.gettime() + tonumber(arg[1])
repeat
	local connection, reason = lualdap.open_simple(server, account, env("PASSWORD"), env("TRANSPORT") == "tls")
	if connection then
		connection:close()
		os.exit(0)
	end
	if socket.gettime() >= last then
		io.stderr:write("prosody: no login to the directory ", server, " as ", account, ": ", tostring(reason), "\n")
		os.exit(1)
	end
	socket.sleep(1)
until false
