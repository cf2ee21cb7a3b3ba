"""The prompt alone is swapped."""

from __future__ import annotations

from unsample.edits.base import Editor
from unsample.methods.settings import configured


@configured
def none() -> Editor:
    """No editor: the record is played back under the other prompt.

    Example:
        >>> import unsample
        >>> unsample.edits.none().steer is None
        True
    """
    return Editor()
