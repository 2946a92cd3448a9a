"""Makes a picture of a report page: the result, the table with the best combination opened, and the examples.

    make demo
    python docs/report_picture.py results/minimal_example/report.html docs/report.png

It needs Playwright and an installed Chromium.
"""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

SHOWN = ("summary", "combinations", "examples")
WIDTH = 1160


def main() -> None:
    """Draws the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="the report.html to draw")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        # Headless machines may have no graphics card; then SwiftShader draws the hands.
        browser = playwright.chromium.launch(executable_path=chromium, args=["--enable-unsafe-swiftshader"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.goto(given.report.resolve().as_uri())
        page.evaluate(
            "shown => document.querySelectorAll('main > section').forEach(s => { s.hidden = !shown.includes(s.id); })",
            list(SHOWN),
        )
        page.locator("table.combinations tbody tr[data-key]").first.click()
        page.mouse.move(0, 0)
        page.locator("#viewer-example").select_option(index=1)
        page.evaluate("document.activeElement.blur()")
        page.wait_for_timeout(1000)
        content = page.screenshot(full_page=True)
        browser.close()
    # Fewer colours make a smaller file without a visible difference.
    Image.open(io.BytesIO(content)).convert("RGB").quantize(192).save(given.picture, optimize=True)


if __name__ == "__main__":
    main()
