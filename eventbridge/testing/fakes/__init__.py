"""Stand-ins whose every step is the test's: a clock, a host loop, an fd."""
