"""The command ``eventbridge``: one file a subcommand."""
