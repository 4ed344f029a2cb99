"""The pod network of a Nanocloud node: a bridge, addresses, host ports and names."""
