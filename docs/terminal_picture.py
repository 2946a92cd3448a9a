"""Runs a command and draws its output as an SVG picture that looks like a terminal.

    python docs/terminal_picture.py docs/nyu_backbones.svg -- python tune_runs/nyu_backbones.py

With --from, only the output from the last line that starts with this text is drawn.
"""

import argparse
import io
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

# Rich's default template loads a font from the network; a picture in a repository should not.
TEMPLATE = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="the SVG file to write")
    parser.add_argument("--from", dest="first", default="", help="the start of the first line to draw")
    parser.add_argument("command", nargs="+", metavar="-- COMMAND", help="the command and its arguments")
    given = parser.parse_args()
    output = subprocess.run(given.command, stdout=subprocess.PIPE, text=True, check=True).stdout
    lines = output.rstrip().split("\n")
    starts = [number for number, line in enumerate(lines) if line.startswith(given.first)]
    if not starts:
        sys.exit(f"no line starts with {given.first!r}")
    shown = lines[starts[-1] if given.first else 0 :]
    console = Console(record=True, width=max(map(len, shown)) + 1, file=io.StringIO())
    for line in shown:
        console.print(Text(line), soft_wrap=True)
    title = " ".join([Path(given.command[0]).name, *given.command[1:]])
    picture = console.export_svg(title=title, code_format=TEMPLATE, unique_id="posetune")
    given.picture.write_text(picture + "\n")


if __name__ == "__main__":
    main()
