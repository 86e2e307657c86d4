import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from data_collection.cli import main, make_parser
from lit_qagent.environments.toy import ToyWorld
from tests.fault_server import FaultServer, completion, fault_server

REPOSITORY = Path(__file__).parents[2]
LETTERS = "tests.data_collection.parts.LetterWorld"
SEEDED = "tests.data_collection.parts.SeededPolicy"


def _config(folder: Path, **changes: object) -> Path:
    config = {
        "environment": {
            "class_path": LETTERS,
            "init_args": {"rewards": {"ab": 0.5, "ba": 0.25, "aa": 0.0}, "num_tasks": 4},
        },
        "policy": {"class_path": SEEDED, "init_args": {"actions": ["a", "b"]}},
        "search": {"num_iterations": 8, "stop_at_success": False},
        "prompt": {"think": False, "num_examples": 0},
        "store": str(folder / "trees"),
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def _seconds_of_children() -> float:
    """CPU time, which a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.integration
def test_collect_then_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["collect", "--config", str(_config(tmp_path))]) == 0
    assert "mean best reward" in capsys.readouterr().out
    ids = tmp_path / "ids.txt"
    ids.write_text("test/0\n\n")
    pairs = ["pairs", "--store", str(tmp_path / "trees"), "--output", str(tmp_path / "pairs")]
    assert main([*pairs, "--evaluation_ids", str(ids)]) == 0
    assert "pairs from 4 trees" in capsys.readouterr().out
    assert json.loads((tmp_path / "pairs" / "card.json").read_text())["num_trees"] == 4
    evaluation = ["--evaluation_environment", LETTERS, "--evaluation_environment.rewards", "{}"]
    assert main([*pairs, *evaluation, "--evaluation_split", "train"]) == 1
    assert "1 of the searched tasks are evaluation tasks" in capsys.readouterr().err


def test_options_override_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--search.num_iterations", "2", "--num_tasks", "1", "--seed", "5"]
    assert main(["collect", "--config", str(_config(tmp_path)), *arguments]) == 0
    summary = json.loads((tmp_path / "trees" / "summary.json").read_text())
    assert (summary["trees"], summary["iterations"]) == (1, 2)
    manifest = json.loads((tmp_path / "trees" / "manifest.json").read_text())
    assert manifest["seed"] == 5


def test_a_store_made_with_other_settings_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["collect", "--config", str(_config(tmp_path))]
    assert main(arguments) == 0
    assert main([*arguments, "--search.eta", "1"]) == 1
    error = capsys.readouterr().err
    assert "search.eta: 2.0 there, 1.0 now" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["colect"], "did you mean 'collect'?"),
        (["--search.num_iteration", "3"], "did you mean 'search.num_iterations'"),
        (["--searc.eta=3"], "did you mean 'search.eta'"),
        (["--search.eta", "x"], 'Parser key "search.eta":'),
        (["--environment.num_task", "3"], "did you mean 'num_tasks' instead of 'num_task'?"),
        (["--environment", "tests.data_collection.parts.LeterWorld"], "LeterWorld"),
        (["--conc", "3"], "unrecognized arguments: --conc"),
    ],
)
def test_wrong_options_are_refused_with_the_nearest_right_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if arguments[0].startswith("--"):
        arguments = ["collect", "--config", str(_config(tmp_path)), *arguments]
    error = _refused(arguments, capsys)
    assert message in error
    assert "all options: python -m data_collection" in error


def test_wrong_keys_in_a_file_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(tmp_path, search={"num_iteration": 3})
    error = _refused(["collect", "--config", str(config)], capsys)
    assert "does not accept option 'search.num_iteration'" in error
    assert "did you mean 'search.num_iterations' instead of 'search.num_iteration'?" in error
    policy = {"class_path": SEEDED, "init_args": {"action": ["a"]}}
    config = _config(tmp_path, policy=policy)
    assert "did you mean 'actions' instead of 'action'?" in _refused(
        ["collect", "--config", str(config)], capsys
    )
    error = _refused(["collect", "--config", str(tmp_path / "none.yaml")], capsys)
    assert "none.yaml" in error


def test_values_out_of_range_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", "--config", str(_config(tmp_path)), "--search.eta", "-1"]) == 1
    assert capsys.readouterr().err == "error: search.eta must be >= 0, got -1.0\n"


def test_missing_and_empty_id_files_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["collect", "--config", str(_config(tmp_path))]) == 0
    pairs = ["pairs", "--store", str(tmp_path / "trees"), "--output", str(tmp_path / "pairs")]
    ids = tmp_path / "ids.txt"
    assert main([*pairs, "--evaluation_ids", str(ids)]) == 1
    assert "ids.txt cannot be read (No such file or directory)" in capsys.readouterr().err
    ids.write_text("\n")
    assert main([*pairs, "--evaluation_ids", str(ids)]) == 1
    assert "ids.txt holds no id; give one task id a line" in capsys.readouterr().err
    assert not (tmp_path / "pairs").exists()


def test_print_config_gives_a_file_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["collect", "--config", str(_config(tmp_path)), "--print_config"])
    assert caught.value.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert yaml.safe_load(printed.read_text())["search"]["num_candidates"] == 5
    assert main(["collect", "--config", str(printed)]) == 0


def test_the_toy_config_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = REPOSITORY / "configs" / "collect_toy.yaml"
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "--config", str(config)]) == 0
    summary = json.loads(Path("runs/toy/trees/summary.json").read_text())
    assert summary["trees"] == len(ToyWorld().tasks("train"))
    assert summary["successes"] > 0


@pytest.mark.integration
@pytest.mark.parametrize("command", [["--help"], ["collect", "--help"], ["pairs", "--help"]])
def test_help_needs_no_heavy_package(command: list[str]) -> None:
    code = (
        "import sys\nfrom data_collection.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'vllm', 'datasets', 'lightning', 'rich', 'mlflow'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    begin = _seconds_of_children()
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage: python -m data_collection" in done.stdout
    assert _seconds_of_children() - begin < 1.0


def test_roles_have_addresses_of_their_own(tmp_path: Path) -> None:
    def at(server: FaultServer, model: str) -> dict[str, object]:
        arguments = {"model": model, "base_url": server.base_url, "api_key_env": "NO_KEY"}
        return {
            "class_path": "lit_qagent.policies.openai.OpenAIPolicy",
            "init_args": arguments,
        }

    moves, remarks = [completion("a", "b", "a", "b", "a")], [completion("7")]
    with fault_server(moves) as actor, fault_server(remarks) as judge:
        changes = {"policy": at(actor, "actor"), "critic": at(judge, "judge"), "num_tasks": 1}
        search = {"variant": "lats", "expansion": "vanilla", "num_iterations": 2}
        path = _config(tmp_path, search=search, **changes)
        assert main(["collect", "--config", str(path)]) == 0
    assert {asked["model"] for asked in actor.requests} == {"actor"}
    assert {asked["model"] for asked in judge.requests} == {"judge"}
    manifest = json.loads((tmp_path / "trees" / "manifest.json").read_text())
    assert manifest["policy"]["base_url"] == actor.base_url
    assert manifest["critic"]["base_url"] == judge.base_url


@pytest.mark.parametrize("name", ["collect_toy_lats", "collect_hotpotqa_puct"])
def test_the_configs_of_the_variants_are_understood(name: str) -> None:
    path = REPOSITORY / "configs" / f"{name}.yaml"
    config = make_parser().parse_args(["collect", "--config", str(path)])
    assert config.collect.search.variant == name.rsplit("_", 1)[1]
