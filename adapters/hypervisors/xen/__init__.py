"""What all of Xen's libraries have in common: finding them, the lives of domains, their reasons and their consoles.

The libraries themselves are beside this: ``libxl`` (4.2 and later), ``libxl41``, ``xenstore``.
"""
