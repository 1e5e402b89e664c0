"""What a lesson needs on Colab beyond what is there: checked versions, and never torch or numpy."""

import importlib
import importlib.metadata
import subprocess
import sys

from packaging.version import Version

# For each package the oldest version that works, and the one that is installed.
WANTED = {"opacus": ("1.5.4", "1.6.0"), "opt_einsum": ("3.3.0", "3.4.0")}


def install_missing() -> None:
    """Install what is missing or too old. Without a package index most lessons still run."""
    missing = [f"{name}=={new}" for name, (old, new) in WANTED.items() if not has(name, old)]
    if not missing:
        return
    print("Installing", ", ".join(missing))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
    try:
        subprocess.run([*pip, *missing], check=True)
    except subprocess.CalledProcessError:
        print("That did not work. What has to do with gradient shaping, as in lesson 10, needs it.")
    importlib.invalidate_caches()


def has(name: str, oldest: str) -> bool:
    """Whether a package is installed, in this version or a newer one."""
    try:
        return Version(importlib.metadata.version(name)) >= Version(oldest)
    except importlib.metadata.PackageNotFoundError:
        return False
