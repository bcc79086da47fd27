"""The dispatcher: one fd, one thread, every registration of every library.

    add_handle    Bridge -> Registry (ids, lock) -> FdTable (masks) -> Poller -> epoll
    a pass        the host calls the dispatcher when the bridge's fd is readable; `dispatcher` says what happens then
    a move        `binding` ties a bridge to its host loop, and `transfer` takes what is registered to another

The core knows no hypervisor, and of the host loops their names alone.
"""
