"""One file a command: arguments and messages only. Nothing else imports this wing.

`cli` and `study_export` have what they share; `configs` reads ml_collections files and
completes them.
"""
