"""How a notebook shows what a command tells. Pure: text in, HTML out."""

import html
from typing import Final

STYLE: Final = "white-space: pre-wrap; line-height: 1.4"


def html_of(text: str) -> str:
    """The text as it stands: no sign in it is HTML, so that no cell and no message brings a link or a script along."""
    return f'<pre style="{STYLE}">{html.escape(text)}</pre>'
