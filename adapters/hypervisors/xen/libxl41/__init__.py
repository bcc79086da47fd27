"""libxl 4.1, through the direct-fd model: one fd to wait on, one waiter for all domains.

``libxl:///`` finds out by itself which generation is here (`eventbridge.adapters.hypervisors.xen.driver`).  A `Context`
is for what is asked of the domains besides: ``list``, ``info``, and the requests of `Context.request`.
"""

from .context import Context

__all__ = ["Context"]
