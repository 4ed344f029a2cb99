"""The contracts that plugins fulfil, one module each.

A provider is built without touching the host, opened once by the node (``async with``), and closed in reverse order.
Its methods are async under trio, safe to call concurrently for different objects, and cancellable at every await: a
cancelled call leaves nothing behind, or something that calling it again, ``list`` and ``remove`` put right.
"""

CONTRACT_VERSION = "1"
"""Version of every contract in this package; a plugin built for another one is refused by name."""
