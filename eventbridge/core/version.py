"""The version of eventbridge, which its package, its command and its drivers all say."""

VERSION = "0.1.0"
