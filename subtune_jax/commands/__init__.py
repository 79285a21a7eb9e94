"""One file a command: arguments and messages only. Nothing else imports this wing.

`cli` has what they share; `configs` reads ml_collections files and completes them.
"""
