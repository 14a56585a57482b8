"""What a record says of where it was made: versions, hardware, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pbnn

PACKAGES = ("torch", "numpy", "scipy", "pandas", "matplotlib", "scikit-learn", "distributed")


def environment() -> dict[str, dict[str, Any]]:
    """What a record says of where it was made: ``versions`` and ``hardware``, no names or paths.

    Examples
    --------
    >>> sorted(environment())
    ['hardware', 'versions']
    """
    versions: dict[str, Any] = {"python": platform.python_version(), "pbnn": pbnn.__version__}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    versions["commit"] = _commit()
    # Whoever runs without torch is not made to wait for its import.
    torch = sys.modules.get("torch")
    hardware = {
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and torch.cuda.is_available() else None,
    }
    return {"versions": versions, "hardware": hardware}


def _cpu() -> str:
    """Model of the processor, as its system names it."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def _commit() -> str | None:
    """Commit of the checkout we run from; None elsewhere, even inside somebody else's checkout."""
    root = Path(__file__).resolve().parents[1]
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != root:
        return None
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    # A study describes itself after it wrote its files, which are no change of the code.
    changes = _output("git", "-C", str(root), "diff", "--stat", "HEAD", "--", ".", ":!reports")
    return f"{commit}-dirty" if commit and changes else commit


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
