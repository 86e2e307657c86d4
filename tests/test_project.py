"""The project's own files agree with each other."""

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def locked() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split(";")[0].split("==") for line in lines if "==" in line and line[0] != "#"]
    return {canonicalize_name(name): version.strip() for name, version in pins}


@pytest.mark.parametrize(
    "text", [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
)
def test_the_lock_satisfies_every_requirement(text: str) -> None:
    requirement = Requirement(text)
    version = locked()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(version, prereleases=True), f"{text}, locked {version}"
