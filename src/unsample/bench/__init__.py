"""The benchmark: a plan is a product of items, methods, models, steps and guidance; a run of it survives anything.

`plan` says what to run, `work` does one batch of cells, an engine (`local`, `ray_engine`) does many, `run` drives them
and is the only writer of the `ledger`.
"""
