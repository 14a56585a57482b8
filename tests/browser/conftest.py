"""A headless Chromium of the system, driven by its DevTools protocol through pipes."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
PATIENCE = 60.0
KEYS: dict[str, dict[str, Any]] = {
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Space": {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
}


class Browser:
    """One tab, and all that it has asked for or complained of since it was opened."""

    def __init__(self, command: str, home: Path) -> None:
        ours, self.write = _high(*os.pipe())
        self.read, theirs = _high(*os.pipe())

        def connect() -> None:
            os.dup2(ours, 3)
            os.dup2(theirs, 4)

        self.process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={home}"],
            pass_fds=(3, 4),
            preexec_fn=connect,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(ours)
        os.close(theirs)
        self.left, self.count, self.session = b"", 0, ""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Network", "Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.count += 1
        call: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if self.session:
            call["sessionId"] = self.session
        data = json.dumps(call).encode() + b"\0"
        while data:
            data = data[os.write(self.write, data) :]
        while (message := self.next()).get("id") != self.count:
            self.note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        found: dict[str, Any] = message["result"]
        return found

    def next(self) -> dict[str, Any]:
        """The next message."""
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.left:
            if not select.select([self.read], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer.")
            more = os.read(self.read, 1 << 16)
            if not more:
                raise RuntimeError("Chromium has ended.")
            self.left += more
        message, _, self.left = self.left.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def note(self, message: dict[str, Any]) -> None:
        """Keep what is asked of the network, and errors."""
        method, params = message.get("method", ""), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.complaints.append(json.dumps(params["args"]))

    def open(self, path: Path, width: int = 1280, dark: bool = False) -> None:
        """Show a file."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.requests, self.complaints = [], []
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while (message := self.next()).get("method") != "Page.loadEventFired":
            self.note(message)

    def value(self, code: str) -> Any:
        """What an expression in the page evaluates to, a promise once it is kept."""
        told = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise RuntimeError(json.dumps(told["exceptionDetails"]))
        return told["result"].get("value")

    def press(self, name: str) -> None:
        """Press and release a key."""
        self.ask("Input.dispatchKeyEvent", type="keyDown", **KEYS[name])
        up = {key: value for key, value in KEYS[name].items() if key != "text"}
        self.ask("Input.dispatchKeyEvent", type="keyUp", **up)

    def close(self) -> None:
        """End the browser."""
        self.process.terminate()
        self.process.wait(timeout=PATIENCE)
        os.close(self.read)
        os.close(self.write)


def _high(*descriptors: int) -> list[int]:
    """The same pipe away from the numbers that the browser wants."""
    moved = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 10) for number in descriptors]
    for number in descriptors:
        os.close(number)
    return moved


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser; without one its tests are skipped."""
    command = next(filter(None, map(shutil.which, NAMES)), None)
    if command is None:
        pytest.skip("found no Chromium")
    made = Browser(command, tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()
