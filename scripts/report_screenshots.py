"""Take the screenshots of docs/images from a report.html: light, dark, phone, print.

python scripts/report_screenshots.py models/report/report.html docs/images
"""

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

WIDE, PHONE = {"width": 1280, "height": 960}, {"width": 375, "height": 1100}


def take(browser: Browser, page_path: Path, out: Path) -> None:
    """Write report-{light,dark,phone,print}.png."""
    shots = {
        "light": (WIDE, "light", "screen", "body"),
        "dark": (WIDE, "dark", "screen", "#targets .plots"),
        "phone": (PHONE, "light", "screen", "body"),
        "print": ({"width": 1032, "height": 730}, "light", "print", "body"),
    }
    for name, (viewport, scheme, media, top) in shots.items():
        context = browser.new_context(viewport=viewport, color_scheme=scheme)
        page = context.new_page()
        page.goto(page_path.resolve().as_uri())
        page.emulate_media(media=media, reduced_motion="reduce")
        if top != "body":
            page.locator(top).last.evaluate("e => e.closest('section').scrollIntoView()")
        page.screenshot(path=out / f"report-{name}.png")
        context.close()


def main() -> None:
    """Read the page and the folder from the command line."""
    page_path, out = map(Path, sys.argv[1:])
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        take(browser, page_path, out)
        browser.close()


if __name__ == "__main__":
    main()
