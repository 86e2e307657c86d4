"""What the commands of both programs share: clear messages for wrong options, errors and Ctrl-C."""

import argparse
import difflib
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, get_loader, set_loader

from lit_qagent.core.errors import QAgentError

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

_WRONG_OPTIONS = (
    re.compile(r"unrecognized arguments: (--?[\w.\-]+)"),
    re.compile(r"does not accept option '([\w.\-]+)'"),
    re.compile(r"Option '([\w.\-]+)' is not accepted"),
)
_WRONG_CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)")


_load_yaml = get_loader("yaml")


def load_yaml(stream: str) -> Any:  # noqa: ANN401 (whatever the text holds)
    """Load YAML as jsonargparse does, except that a key given twice is refused.

    PyYAML keeps the last of two equal keys, so that settings would be lost without a word.

    Raises:
        yaml.YAMLError: The text is not YAML, or a mapping holds a key twice.
    """
    _refuse_duplicate_keys(yaml.compose(stream, Loader=yaml.SafeLoader))
    return _load_yaml(stream)


set_loader("yaml", load_yaml, exceptions=(yaml.YAMLError,))


def _refuse_duplicate_keys(node: yaml.Node | None) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                first, second = seen[name].start_mark.line + 1, key.start_mark.line + 1
                raise yaml.YAMLError(
                    f"key {name!r} is given twice, on lines {first} and {second}; keep one"
                )
            seen[name] = key
            _refuse_duplicate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicate_keys(item)


class Suggestions:
    """Mixin for jsonargparse parsers: one short message that names the nearest right option.

    It goes before the parser class among the bases, and fits Lightning's parser as well.
    """

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message, the nearest right options and where help is; exit with 2.

        Raises:
            argparse.ArgumentError: The parser was made with ``exit_on_error=False``.
        """
        parser: Any = self
        text = message + "".join(f"\n  {hint}" for hint in suggest(message, parser, ex))
        if not parser.exit_on_error:
            raise argparse.ArgumentError(None, text) from ex
        program = getattr(ex, "subcommand_parser", None) or parser
        name = program.prog.replace(" [options]", "")
        sys.stderr.write(f"{name}: error: {text}\n  all options: {name} --help\n")
        sys.exit(EXIT_USAGE)


class Parser(Suggestions, ArgumentParser):
    """A jsonargparse parser with suggestions; abbreviated options are refused."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (handed on as they are)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)


def suggest(message: str, parser: ArgumentParser, ex: Exception | None = None) -> list[str]:
    """Return a hint for each wrong option or choice in a parser's message, if one is near.

    Args:
        message: The parser's message.
        parser: The parser that failed.
        ex: What it failed with; jsonargparse hangs the subcommand's parser on it.
    """
    known = sorted(_known_options(getattr(ex, "subcommand_parser", None) or parser))
    wrong = [name.lstrip("-") for pattern in _WRONG_OPTIONS for name in pattern.findall(message)]
    hints = []
    for value, choices in _WRONG_CHOICE.findall(message):
        near = difflib.get_close_matches(value, re.findall(r"[\w.\-]+", choices), n=1)
        hints += [f"did you mean {near[0]!r}?"] if near else []
    for name in dict.fromkeys(wrong):
        # Names in configs carry the keys of classes, which options on the command line leave out.
        plain = name.replace(".init_args.", ".")
        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
        if near:
            hints.append(f"did you mean {near[0]!r} instead of {name!r}?")
    return hints


def run_main(
    main: Callable[[Sequence[str]], int | None],
    argv: Sequence[str],
    module: str,
    resume: Sequence[str] = (),
) -> int:
    """Run a program: errors of users become one message, Ctrl-C and SIGTERM end it in order.

    Args:
        main: Takes the arguments; returns the exit code, None for 0.
        argv: The arguments, without the program's name.
        module: What follows ``python -m`` in the command that resumes.
        resume: What that command needs behind the arguments.

    Returns:
        The exit code: 1 for an error, 130 if interrupted.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return main(argv) or 0
    except (QAgentError, ValueError) as error:
        cause = own_error(error)
        if cause is None:
            raise
        sys.stderr.write(f"error: {cause}\n")
        return EXIT_ERROR
    except OSError as error:
        # A full disk or a path that cannot be read is for the user; any other is a defect.
        if error.filename is None:
            raise
        sys.stderr.write(f"error: {error.filename}: {error.strerror}\n")
        return EXIT_ERROR
    except KeyboardInterrupt:
        missing = () if list(argv[-len(resume) :]) == list(resume) else resume
        command = shlex.join(["python", "-m", module, *argv, *missing])
        sys.stderr.write(f"\ninterrupted; everything finished is kept. To go on:\n  {command}\n")
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


def own_error(error: BaseException | None) -> QAgentError | None:
    """Return our error behind the ones that jsonargparse wraps around it, if there is one."""
    while error is not None and not isinstance(error, QAgentError):
        error = error.__cause__
    return error


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _known_options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Return the options of a parser and of its subcommands, without dashes."""
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith("--"):
                yield option.removeprefix("--")
        below = getattr(action, "_name_parser_map", None)
        if isinstance(below, dict):
            for subparser in below.values():
                yield from _known_options(subparser)
