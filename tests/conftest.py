"""What every test has."""

pytest_plugins = ["eventbridge.testing.plugin"]
