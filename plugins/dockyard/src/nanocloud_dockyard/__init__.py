"""Images for Nanocloud: references, registries, OCI layout folders and the store of unpacked layers."""
