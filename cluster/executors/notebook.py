"""An output of a notebook's running cell that changes while the cell runs; needs only the kernel of the notebook."""

import io
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, RenderableType
from rich.terminal_theme import DIMMED_MONOKAI

_INTERVAL_S = 0.25
_WIDTH = 110
"""Of the output, in characters: about that of a page with a notebook."""
_FORMAT = '<pre style="white-space: pre; overflow-x: auto; line-height: normal">{code}</pre>'


def kernel_shell() -> Any | None:
    """Returns the IPython shell of the notebook in which this process runs; None outside a notebook."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = None if ipython is None else ipython.get_ipython()
    return shell if hasattr(shell, "kernel") else None


class CellOutput:
    """An output of the running cell.

    Args:
        shell: What `kernel_shell` returned.
        render: Returns what to show now.
    """

    def __init__(self, shell: Any, render: Callable[[], RenderableType]) -> None:
        self.shell = shell
        self.render = render
        self.display_id = secrets.token_hex(8)
        self.shown: float | None = None
        """When it was last shown, in seconds of `time.monotonic`; None before."""

    def refresh(self) -> None:
        """Shows the present state, unless it was shown a moment ago."""
        now = time.monotonic()
        if self.shown is None or now - self.shown >= _INTERVAL_S:
            self._publish(as_html(self.render()))
            self.shown = now

    def clear(self) -> None:
        """Makes the output empty."""
        if self.shown is not None:
            self._publish("")

    def _publish(self, html: str) -> None:
        data = {"text/html": html, "text/plain": ""}
        transient = {"display_id": self.display_id}
        self.shell.display_pub.publish(data, transient=transient, update=self.shown is not None)


def as_html(content: RenderableType) -> str:
    """Returns what rich would show on a terminal as HTML; texts in it are escaped."""
    # Without colours of a terminal, rich would leave out the rest of a progress bar.
    console = Console(file=io.StringIO(), record=True, width=_WIDTH, color_system="truecolor", force_jupyter=False)
    console.print(content)
    # The colours of this theme can be read on a light and on a dark page.
    return console.export_html(theme=DIMMED_MONOKAI, inline_styles=True, code_format=_FORMAT)
