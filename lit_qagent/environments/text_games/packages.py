"""Finding what a world needs, and saying clearly what is not there."""

import difflib
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lit_qagent.core.errors import ConfigError, MissingPackage


def package_version(package: str, *, world: str, how: str) -> str:
    """Return the installed version of a package without importing it.

    Args:
        package: Its name in the package index.
        world: Who needs it.
        how: How to get it.

    Raises:
        MissingPackage: It is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        raise MissingPackage(
            f"{world} needs the package {package}, which is not installed; {how}"
        ) from None


def package_file(module: str, name: str, *, world: str) -> Path:
    """Return a file that a package brings, without importing the package.

    Raises:
        MissingPackage: There is no such file.
    """
    spec = importlib.util.find_spec(module)
    path = Path(spec.origin).parent / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise MissingPackage(f"{world} needs the file {name} of the package {module}; reinstall it")
    return path


def known_name(name: str, known: Iterable[str], what: str) -> str:
    """Return a name if it is known.

    Raises:
        ConfigError: It is not; the message names the nearest and all others.
    """
    names = list(known)
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"no {what} is called {name!r}{hint} There are: {', '.join(names)}")


@contextmanager
def known_to_work() -> Iterator[None]:
    """Silence the interpreter's warning that it does not know a game: TextWorld follows it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Game .* is not fully supported")
        yield
