"""Debian's real xenstored and libxl, run privately by a test with only the hypercalls replaced by a stand-in."""
