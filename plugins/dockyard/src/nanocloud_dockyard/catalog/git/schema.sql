CREATE TABLE IF NOT EXISTS accounts (
    name VARCHAR(64) NOT NULL PRIMARY KEY,
    password VARCHAR(128) NOT NULL
);
CREATE TABLE IF NOT EXISTS rights (
    account VARCHAR(64) NOT NULL REFERENCES accounts (name) ON DELETE CASCADE,
    repository VARCHAR(64) NOT NULL,
    level VARCHAR(5) NOT NULL,
    PRIMARY KEY (account, repository)
);
