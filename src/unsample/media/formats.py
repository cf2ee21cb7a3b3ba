"""Which pictures are read: said once, without importing Pillow."""

from __future__ import annotations

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "JPEG2000")  # Pillow's names
SPOKEN = "PNG, JPEG, GIF, BMP, WEBP, TIFF, AVIF or JPEG 2000"
SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"),
    *(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
)
MAX_PIXELS = 64_000_000
