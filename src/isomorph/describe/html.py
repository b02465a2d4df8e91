"""How objects show themselves in notebooks: their own text, kept in its columns."""

from __future__ import annotations

import html


def preformatted(text: str) -> str:
    """The text as one scrolling block; everything in it is escaped."""
    return f'<pre style="white-space: pre; overflow-x: auto; line-height: 1.3">{html.escape(text)}</pre>'
