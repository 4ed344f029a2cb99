"""Whether an image makes a good service: what its files say (``lint``), and what it does when installed (``trial``)."""
