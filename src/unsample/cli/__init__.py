"""The command line: one file per verb, no logic of the field. `main` is the entry point."""
