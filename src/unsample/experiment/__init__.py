"""One experiment: invert, reconstruct from the record and from the noise alone, edit, measure. Nothing else does it.

`run_cells` (`cell.py`) is a pure function of model, items and `Setup`; bench, compare and studies call it.
"""
