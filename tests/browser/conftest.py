"""Real browsers and real servers for the pages of `ftjax/people/`: Debian's Chromium, driven by Playwright."""

import os
from pathlib import Path
import re
import shutil
import signal
import time

import pytest

from tests import processes, review_pages

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/\S*")


@pytest.fixture(scope="session")
def chromium():
    """The browser; without one these tests skip, and say why."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if found is None:
        pytest.skip("no Chromium on the path (Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (the extra browser)")
    with playwright.sync_playwright() as driver:
        words = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium has no sandbox for root
        browser = driver.chromium.launch(executable_path=found, args=words)
        yield browser
        browser.close()


class Browser:
    """Windows of one test; what a page does that it must not is noted in `wrong`."""

    def __init__(self, chromium):
        self.chromium, self.contexts, self.wrong = chromium, [], []

    def window(self, address, *, width=1280, height=900):
        """Returns a page in a browser profile of its own, with patience for a machine that is busy."""
        context = self.chromium.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(20_000)
        self.contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("console", lambda line: self._noted(line))
        page.on("request", lambda request: self._asked(request, address))
        page.goto(address)
        return page

    def _noted(self, line):
        expected = "Failed to load resource" in line.text  # a server that was killed, an answer that is refused
        if line.type == "error" and not expected:
            self.wrong.append(f"console: {line.text}")

    def _asked(self, request, address):
        if not request.url.startswith(address.partition("#")[0]):
            self.wrong.append(f"asked {request.url}")


@pytest.fixture
def browser(chromium):
    """The browser for one test, which fails where a page raised, opened a dialog or asked another server."""
    made = Browser(chromium)
    yield made
    for context in made.contexts:
        context.close()
    assert made.wrong == []


class Served:
    """A command that serves a page; it can be killed and started again at the same address."""

    def __init__(self, words, folder: Path):
        self.words, self.folder, self.port = words, folder, 0
        self.start()

    def start(self):
        """Starts it, and waits until it has said its address."""
        folder = self.folder / f"served-{time.monotonic_ns()}"
        folder.mkdir()
        self.process = processes.Process([*self.words, "--port", self.port], folder)
        assert self.process.until(lambda: "Ctrl-C stops" in self.process.said()[0]), self.process.said()
        self.addresses = ADDRESS.findall(self.process.said()[0])
        self.address = self.addresses[0]
        self.port = int(re.search(r":(\d+)/", self.address)[1])

    def kill(self):
        """Ends it as a power cut does."""
        self.process.kill()

    def stop(self):
        """Ends it as Ctrl-C does, and returns its exit status."""
        if self.process.popen.poll() is None:
            self.process.send(signal.SIGINT)
        return self.process.ends(30)


@pytest.fixture
def served(tmp_path):
    """Returns a function: words of a command that serves a page -> it, running; it is ended after the test."""
    running = []

    def start(*words):
        running.append(Served(words, tmp_path))
        return running[-1]

    yield start
    for one in running:
        if one.process.popen.poll() is None:
            one.kill()


@pytest.fixture
def reviewed(tmp_path, served):
    """Returns a function: rows and words of the command -> a review of them, served."""
    return lambda rows, *words, **more: review_pages.Reviewed(tmp_path, served, rows, *words, **more)
