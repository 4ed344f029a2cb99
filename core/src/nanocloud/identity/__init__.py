"""Who is who: the node's certificate authority, its secure assets, tokens."""
