"""xenstored, Xen's database and the announcer of its domains, through libxenstore or its wire protocol.

`opening.open_store` connects; what a connection can do is `store.Store`, and `source.WatchSource` has its watches
served by a bridge.  ``xenstore:///`` is `driver`'s.
"""

from .opening import open_store
from .store import Store, Watched, atomically

__all__ = ["Store", "Watched", "atomically", "open_store"]
