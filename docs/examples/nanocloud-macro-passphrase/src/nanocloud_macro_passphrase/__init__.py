"""The macro ``!passphrase [WORDS]`` for Nanocloud: secrets that people can read out, write down and type."""
