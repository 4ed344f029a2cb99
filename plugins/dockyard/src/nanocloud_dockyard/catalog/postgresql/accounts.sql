-- What binding commands can do: no more than these functions. They run as the system user nobody, which proves itself
-- by the socket. A role with CREATEROLE could grant itself the reading of the server's files and the running of
-- programs, so nobody has no such right and may only make databases, that nobody can enter before they have an owner.
-- Run while no server runs, on the first start and whenever this file has changed. One empty line ends a statement.

DO $$
DECLARE role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['nobody', 'nanocloud_dependant', 'nanocloud_plain'] LOOP
        IF to_regrole(role) IS NULL THEN
            EXECUTE format('CREATE ROLE %I', role);
        END IF;
    END LOOP;
END $$;

ALTER ROLE nobody LOGIN CREATEDB;

-- Its statements hold passwords. No one who makes the server say more about others shall find them in the log.
ALTER ROLE nobody SET log_statement = 'none';

ALTER ROLE nobody SET log_min_duration_statement = -1;

ALTER ROLE nobody SET log_min_error_statement = 'panic';

ALTER ROLE nobody SET log_error_verbosity = 'terse';

REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC;

GRANT CONNECT ON DATABASE postgres TO nobody;

CREATE SCHEMA IF NOT EXISTS nanocloud;

GRANT USAGE ON SCHEMA nanocloud TO nobody;

CREATE OR REPLACE FUNCTION nanocloud.check_account(account text) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
-- Whether there is this account; an error if somebody else made it.
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = account) THEN
        RETURN false;
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_auth_members WHERE member = quote_ident(account)::regrole AND roleid = 'nanocloud_dependant'::regrole
    ) THEN
        RAISE EXCEPTION 'user "%" exists, and create_user did not make it', account;
    END IF;
    RETURN true;
END $$;

CREATE OR REPLACE FUNCTION nanocloud.end_sessions(account text, only_clear boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF nanocloud.check_account(account) THEN
        PERFORM pg_terminate_backend(pid, 10000) FROM pg_stat_activity LEFT JOIN pg_stat_ssl USING (pid)
            WHERE usename = account AND NOT (only_clear AND coalesce(ssl, false));
    END IF;
END $$;

CREATE OR REPLACE FUNCTION nanocloud.make_account(account text, password text, clear boolean) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NOT clear AND NOT current_setting('ssl')::boolean THEN
        RAISE EXCEPTION 'this server has no certificate, so it cannot require TLS';
    END IF;
    IF NOT nanocloud.check_account(account) THEN
        EXECUTE format('CREATE ROLE %I IN ROLE nanocloud_dependant', account);
    END IF;
    EXECUTE format('ALTER ROLE %I NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS LOGIN PASSWORD %L',
        account, password);
    IF clear THEN
        EXECUTE format('GRANT nanocloud_plain TO %I', account);
    ELSE
        EXECUTE format('REVOKE nanocloud_plain FROM %I', account);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION nanocloud.give_database(name text, account text, locale text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- Give a database that nobody made, or that the account has already.
DECLARE found pg_database;
BEGIN
    SELECT * INTO STRICT found FROM pg_database WHERE datname = name;
    IF found.datdba NOT IN ('nobody'::regrole, quote_ident(account)::regrole) THEN
        RAISE EXCEPTION 'database "%" belongs to the user "%"', name, pg_get_userbyid(found.datdba);
    END IF;
    IF found.datcollate <> locale THEN
        RAISE EXCEPTION 'database "%" has the locale %, which cannot be changed to %', name, found.datcollate, locale;
    END IF;
    PERFORM nanocloud.check_account(account);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', name);
    EXECUTE format('ALTER DATABASE %I OWNER TO %I', name, account);
    EXECUTE format('ALTER DATABASE %I ALLOW_CONNECTIONS true', name);
END $$;

CREATE OR REPLACE FUNCTION nanocloud.revoke_account(account text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
-- The role stays, as the owner of its data that no one can be: so make_account gives all of it back.
BEGIN
    IF nanocloud.check_account(account) THEN
        EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', account);
        EXECUTE format('REVOKE nanocloud_plain FROM %I', account);
    END IF;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA nanocloud FROM PUBLIC;

GRANT EXECUTE ON FUNCTION nanocloud.make_account, nanocloud.give_database, nanocloud.revoke_account,
    nanocloud.end_sessions TO nobody;
