"""The packages here have tests of their own, which run where they are installed (test_third_party.py)."""

collect_ignore = ["tinyloop"]
