"""`make test` in a Debian 13 of its own, on any Debian machine: see ``__main__``."""
