"""Headless Chromium through chromedriver's HTTP, without a library."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
KEYS = {"left": "\ue012", "right": "\ue014"}


def is_installed():
    return all(map(shutil.which, ("chromium", "chromedriver")))


class Browser:
    """One window."""

    def __init__(self, port, profile):
        self._root = f"http://127.0.0.1:{port}"
        options = {"binary": shutil.which("chromium"), "args": [*ARGUMENTS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = ""
        self._session = self._send("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _send(self, method, path, body=None):
        address = self._root + (f"/session/{self._session}{path}" if self._session else path)
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(json.load(error)["value"]["message"]) from None

    def go(self, address):
        """Open an address."""
        self._send("POST", "/url", {"url": address})

    def open(self, page):
        """Open a file and wait until it has drawn itself."""
        self.go(Path(page).resolve().as_uri())
        self.wait("return document.querySelector('#curves h2') !== null")

    def run(self, script, *arguments):
        """The value that a script returns."""
        return self._send("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script):
        """What a script gives to the function that is its argument."""
        return self._send("POST", "/execute/async", {"script": script, "args": []})

    def wait(self, script, seconds=20):
        end = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < end, f"never true: {script}, errors: {self.errors()}"
            time.sleep(0.02)

    def settle(self):
        """Wait for what was asked of the next frame."""
        self.run_async(FRAMES)

    def press(self, key, selector="body"):
        """One key, typed into an element."""
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        (identifier,) = found.values()
        self._send("POST", f"/element/{identifier}/value", {"text": KEYS[key]})
        self.settle()

    def errors(self):
        """What the console was told since the last time."""
        return self._send("POST", "/se/log", {"type": "browser"})

    def cdp(self, command, **parameters):
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def resize(self, width, height, scheme="light"):
        """The size of the view, which a window has not below 500 pixels, and light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.cdp("Emulation.setDeviceMetricsOverride", **size)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.settle()

    def screenshot(self):
        """The view as PNG."""
        return base64.b64decode(self._send("GET", "/screenshot"))

    def close(self):
        self._send("DELETE", "")


FRAMES = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(null)))"


@contextmanager
def browsing(profile):
    """A browser with an empty profile."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL) as driver:
        try:
            _wait_for(port)
            browser = Browser(port, profile)
            try:
                yield browser
            finally:
                browser.close()
        finally:
            driver.terminate()


def _wait_for(port):
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("chromedriver did not start")
