"""A real browser without a window."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Error, sync_playwright


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # without its sandbox, which does not run as root, as in containers; it opens pages of this project alone
        options = {"executable_path": os.environ.get("BROWSER_EXECUTABLE"), "args": ["--no-sandbox"]}
        try:
            browser = playwright.chromium.launch(**options)
        except Error as error:
            pytest.fail(
                f"no browser to drive: put chromium on PATH, or run playwright install chromium ({error.message})",
                pytrace=False,
            )
        yield browser
        browser.close()
