-- Run at every start, before the first client is let in. Binding commands run as the system user nobody and prove it
-- by the socket, so there is no administrator's password. Nobody can make accounts and databases and grant rights on
-- databases, and end sessions; but it cannot read files of the server, see what others run, or stop it.
CREATE USER IF NOT EXISTS nobody@localhost IDENTIFIED VIA unix_socket;
GRANT CREATE USER, SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER, DELETE HISTORY, CONNECTION ADMIN ON *.* TO nobody@localhost WITH GRANT OPTION;
