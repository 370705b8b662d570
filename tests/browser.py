"""A real browser for tests: Chromium without a window, in a profile of its own, told to stay off the network."""

import json
import shutil
import subprocess
from html.parser import HTMLParser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1600",
)


def run(page, profile, *arguments):
    """Open a file; what the browser printed.

    Args:
        page: the file's path.
        profile: an empty folder; the browser's log of its network, `net.json`, is left in it.
        arguments: further ones, `--dump-dom`.
    """
    own = (f"--user-data-dir={profile}", f"--log-net-log={profile / 'net.json'}")
    command = [CHROMIUM, *FLAGS, *own, *arguments, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def requested(profile):
    """Every address that a page asked for, from the browser's own log; what the browser asks for itself has no page."""
    log = json.loads((profile / "net.json").read_text())
    asked = [event["params"] for event in log["events"] if "url" in event.get("params", {})]
    return {each["url"] for each in asked if each.get("initiator", "not an origin") != "not an origin"}


class Elements(HTMLParser):
    """The elements of a page: (name, attributes) in order, and their text."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def of_class(self, name):
        """Attributes of every element of a class."""
        return [attributes for _, attributes in self.found if attributes.get("class") == name]
