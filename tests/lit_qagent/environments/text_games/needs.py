"""Skips tests whose package or program is not installed, with the reason."""

import shutil
from importlib.metadata import PackageNotFoundError, version

import pytest


def need_package(package: str) -> None:
    """Skip the module or test if the package is not installed."""
    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed", allow_module_level=True)


def need_java(package: str) -> None:
    """Skip the module or test if Java or the package that runs in it is not installed."""
    need_package(package)
    if shutil.which("java") is None:
        pytest.skip("Java is not installed", allow_module_level=True)
