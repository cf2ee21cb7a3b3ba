"""Data sets. `scenes` is built in: `unsample.datasets.scenes`."""

from __future__ import annotations

from unsample.datasets.scenes import Scene, Scenes, draw_scene, render

__all__ = ["Scene", "Scenes", "draw_scene", "render"]
