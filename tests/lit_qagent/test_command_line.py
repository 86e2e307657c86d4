import argparse
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from lit_qagent.command_line import Parser, run_main, suggest
from lit_qagent.core.errors import ConfigError


def _parser() -> Parser:
    parser = Parser(prog="program", exit_on_error=False)
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--model.depth", type=int, default=1)
    return parser


def test_the_nearest_option_is_named() -> None:
    with pytest.raises(argparse.ArgumentError, match="did you mean 'learning_rate'"):
        _parser().parse_args(["--learnig_rate", "1"])
    with pytest.raises(argparse.ArgumentError, match=r"did you mean 'model.depth'"):
        _parser().parse_args(["--model.dept=1"])


def test_abbreviations_are_refused() -> None:
    with pytest.raises(argparse.ArgumentError, match="unrecognized arguments: --learning"):
        _parser().parse_args(["--learning", "1"])


def test_nothing_is_suggested_where_nothing_is_near() -> None:
    assert suggest("unrecognized arguments: --zzz 3", _parser()) == []


def test_keys_of_classes_match_options_without_them() -> None:
    assert suggest("does not accept option 'model.init_args.deph'", _parser()) == [
        "did you mean 'model.depth' instead of 'model.init_args.deph'?"
    ]


def test_a_wrong_command_is_matched_with_the_commands() -> None:
    message = "argument command: invalid choice: 'fitt' (choose from 'fit', 'predict')"
    assert suggest(message, _parser()) == ["did you mean 'fit'?"]


def test_an_error_of_the_user_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: Sequence[str]) -> int:
        raise ConfigError("depth must be >= 1, got 0")

    assert run_main(main, [], "program") == 1
    assert capsys.readouterr().err == "error: depth must be >= 1, got 0\n"


def test_a_file_that_cannot_be_used_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(argv: Sequence[str]) -> int:
        return len((tmp_path / "none").read_text())

    assert run_main(main, [], "program") == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'none'}: No such file or directory\n"


def test_other_errors_keep_their_traceback() -> None:
    def main(argv: Sequence[str]) -> int:
        raise ConnectionResetError("a defect")

    with pytest.raises(ConnectionResetError, match="a defect"):
        run_main(main, [], "program")


def test_exit_codes_are_handed_on() -> None:
    assert run_main(lambda argv: None, [], "program") == 0
    assert run_main(lambda argv: len(argv), ["a", "b"], "program") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_prints_the_command_that_goes_on(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def main(argv: Sequence[str]) -> int:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal did not come")

    assert run_main(main, ["fit", "--name", "two words"], "program") == 130
    assert "python -m program fit --name 'two words'" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_command_that_goes_on_has_what_it_needs_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def main(argv: Sequence[str]) -> int:
        raise KeyboardInterrupt

    for argv in (["fit"], ["fit", "--ckpt_path", "last"]):
        assert run_main(main, argv, "program", ["--ckpt_path", "last"]) == 130
        assert capsys.readouterr().err.endswith("python -m program fit --ckpt_path last\n")


def test_a_key_given_twice_in_a_config_is_refused(tmp_path: Path) -> None:
    parser = _parser()
    parser.add_argument("--config", action="config")
    config = tmp_path / "config.yaml"
    config.write_text("learning_rate: 1.0\nmodel:\n  depth: 2\n  depth: 3\n")
    with pytest.raises(argparse.ArgumentError, match="'depth' is given twice, on lines 3 and 4"):
        parser.parse_args(["--config", str(config)])
    config.write_text("learning_rate: 1.0\nmodel: {depth: 2}\n")
    assert parser.parse_args(["--config", str(config)]).model.depth == 2
