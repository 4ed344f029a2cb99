"""Workers that turn objects into plans; one module a kind."""
