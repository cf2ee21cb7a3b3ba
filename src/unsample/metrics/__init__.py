"""Measuring: what a result is worth. Nothing here imports a method."""
