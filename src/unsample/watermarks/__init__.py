"""Watermarks that live in the noise of which a picture is made: their keys, how they are put in and found again.

A mark is put into the noise before sampling, and looked for in the noise that an inversion recovers. No torch at
import.
"""

from unsample.watermarks.gaussian_shading import GaussianShading
from unsample.watermarks.keys import load_key
from unsample.watermarks.tree_ring import TreeRing

__all__ = ["GaussianShading", "TreeRing", "load_key"]
