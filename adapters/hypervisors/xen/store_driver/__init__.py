"""The driver of ``xenstore:///``: what xenstored alone tells of the domains, where there is no libxl."""
