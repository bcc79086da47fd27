"""Connections: the calls, the events, the resync after a loss, migration and consoles.

`connection` is what a program holds.  `supervisor` opens its session, and opens it again after a loss; `inventory`
remembers the domains, so that `resync` can tell what changed meanwhile; `invocation` is one call's way from the program
to the driver and back.
"""
