"""Pairs of other programs become ours; what is not a pair is refused with its row."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from jsonargparse import ArgumentParser

from lit_qagent.core.errors import ConfigError, DataError
from lit_qagent.core.pairs import PreferencePair
from lit_qagent.data.datamodule import PreferenceDataModule
from lit_qagent.data.foreign import foreign_pairs
from lit_qagent.data.pairs import pair_history
from lit_qagent.data.sources import PairSource, read_sources, weighted
from tests.data_folder import data_file
from tests.pair_folder import make_pairs, write_pairs


def says(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


ASK, ANSWER, OTHER = says("user", "Which box?"), says("assistant", "red"), says("assistant", "blue")
SEEN = [ASK, says("assistant", "open[door]"), says("user", "The door is open.")]


def one(row: Any) -> PreferencePair:  # noqa: ANN401
    [pair] = foreign_pairs([row], "here")
    return pair


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": [ANSWER], "rejected": [OTHER]},
        {"chosen": [ASK, ANSWER], "rejected": [ASK, OTHER]},
        {"prompt": "Which box?", "chosen": "red", "rejected": "blue"},
        {"chosen": "Which box? red", "rejected": "Which box? blue"},
        # As ultrafeedback_binarized: the prompt is text, and the conversations repeat it.
        {"prompt": "Which box?", "chosen": [ASK, ANSWER], "rejected": [ASK, OTHER]},
        {"prompt": "Which box?", "chosen": [ANSWER], "rejected": [OTHER]},
        {
            "prompt": [{"from": "human", "value": "Which box?"}],
            "chosen": [{"from": "gpt", "value": "red"}],
            "rejected": [{"from": "gpt", "value": "blue"}],
        },
    ],
    ids=[
        "conversational",
        "implicit",
        "plain",
        "plain-implicit",
        "text-and-conversations",
        "text-and-answers",
        "original",
    ],
)
def test_every_format_gives_the_same_pair(row: dict[str, Any]) -> None:
    pair = one(row)

    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], [ANSWER], [OTHER])
    assert (pair.q_chosen, pair.q_rejected, pair.depth) == (1.0, 0.0, 0)


EPISODE = [says("assistant", "open[door]"), says("user", "A wall."), ANSWER]
OTHER_EPISODE = [says("assistant", "open[door]"), says("user", "A hall."), OTHER]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [ASK], "chosen": EPISODE, "rejected": OTHER_EPISODE},
        # The first action is equal and still no prompt, as the world answered differently.
        {"chosen": [ASK, *EPISODE], "rejected": [ASK, *OTHER_EPISODE]},
        {
            "conversations": [],
            "chosen": [{"from": "human", "value": "Which box?"}, *EPISODE],
            "rejected": [{"from": "human", "value": "Which box?"}, *OTHER_EPISODE],
        },
    ],
    ids=["explicit", "implicit", "original"],
)
def test_answers_may_be_whole_episodes(row: dict[str, Any]) -> None:
    pair = one(row)

    assert (pair.prompt, pair.chosen, pair.rejected) == ([ASK], EPISODE, OTHER_EPISODE)
    assert pair.depth == 0


def test_texts_part_between_words() -> None:
    pair = one({"chosen": "Go to the redwood", "rejected": "Go to the red box"})

    assert pair.prompt[0]["content"] == "Go to the"
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("redwood", "red box")


@pytest.mark.parametrize(
    ("longer", "shorter", "prompt"),
    [
        ("You: go?\n\nMe: No thanks", "You: go?\n\nMe: No", "You: go?\n\nMe:"),
        ("You: go?\n\nMe: No thanks", "You: go?\n\nMe: No ", "You: go?\n\nMe:"),
        ("Go?\nNo. Or yes", "Go?\nNo.", "Go?"),
    ],
    ids=["word", "space", "line"],
)
def test_a_text_that_the_other_begins_with_keeps_its_last_word(
    longer: str, shorter: str, prompt: str
) -> None:
    found = one({"chosen": longer, "rejected": shorter})
    swapped = one({"chosen": shorter, "rejected": longer})

    assert found.prompt == swapped.prompt == [says("user", prompt)]
    expected = [says("assistant", text[len(prompt) + 1 :]) for text in (longer, shorter)]
    assert [*found.chosen, *found.rejected] == expected
    assert [*swapped.chosen, *swapped.rejected] == expected[::-1]


def test_steps_are_found_and_belong_to_the_task() -> None:
    first, later = (
        one({"prompt": p, "chosen": [ANSWER], "rejected": [OTHER]}) for p in ([ASK], SEEN)
    )

    assert (first.depth, later.depth) == (0, 1)
    assert first.task_id == later.task_id
    assert pair_history(later).num_steps == 1


def test_a_prompt_of_another_shape_is_all_head() -> None:
    pair = one({"prompt": [*SEEN, says("user", "Well?")], "chosen": [ANSWER], "rejected": [OTHER]})

    assert pair.depth == 0
    assert len(pair_history(pair).head) == 4


def test_labels_are_taken_where_there_are_any() -> None:
    labels = {
        "q_chosen": 0.7,
        "q_rejected": -0.2,
        "visits_chosen": 9,
        "task_id": "t",
        "tree_id": "u",
    }
    pair = one({"prompt": "a", "chosen": "b", "rejected": "c", **labels})

    assert {name: getattr(pair, name) for name in labels} == labels


def test_labels_that_are_null_are_those_that_lack() -> None:
    row = {"prompt": "a", "chosen": "b", "rejected": "c"}
    nothing = dict.fromkeys(("q_chosen", "q_rejected", "visits_chosen", "visits_rejected"))

    assert one(row | nothing) == one(row)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"q_chosen": "high"}, "row 0: q_chosen must be a finite number, got 'high'; mend"),
        ({"q_rejected": float("nan")}, "row 0: q_rejected must be a finite number, got nan; mend"),
        ({"q_chosen": [1]}, r"row 0: q_chosen must be a finite number, got \[1\]; mend"),
        ({"visits_chosen": 1.5}, "row 0: visits_chosen must be a whole number >= 0, got 1.5; mend"),
        ({"visits_rejected": -1}, "visits_rejected must be a whole number >= 0, got -1; mend"),
        ({"visits_rejected": float("inf")}, "visits_rejected must be a finite number, got inf"),
    ],
)
def test_labels_that_are_no_numbers_are_refused(label: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        one({"prompt": "a", "chosen": "b", "rejected": "c", **label})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "completion": "b"}, "here row 0 has no chosen and rejected"),
        ("text", "here row 0 has no chosen and rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": " b "}, "row 0 has equal chosen and rejected"),
        ({"prompt": "a", "chosen": "b", "rejected": " "}, "row 0 has an empty rejected action"),
        ({"chosen": [ANSWER], "rejected": [OTHER]}, "no user message before the action"),
        (
            {"prompt": [ASK], "chosen": [ANSWER, ASK], "rejected": [OTHER]},
            "chosen must be one assistant message after the prompt, .* got assistant user; mend",
        ),
        (
            {"prompt": [ASK], "chosen": [ANSWER], "rejected": []},
            "rejected must be one assistant message .* got nothing; mend",
        ),
        (
            {"prompt": [{"from": "robot", "value": "x"}], "chosen": "b", "rejected": "c"},
            "a message needs role and content .* got {'from': 'robot'",
        ),
        ({"prompt": [ASK], "chosen": 3, "rejected": [OTHER]}, "expected chat messages"),
        (
            {"prompt": [{"role": ["user"], "content": "x"}], "chosen": "b", "rejected": "c"},
            r"a message needs role and content .* got {'role': \['user'\].*mend or remove",
        ),
        ({"chosen": "Go? Yes", "rejected": "Go? Yes"}, "has equal chosen and rejected actions"),
    ],
)
def test_what_is_not_a_pair_is_refused(row: Any, message: str) -> None:  # noqa: ANN401
    with pytest.raises(DataError, match=message):
        one(row)


ROWS = [{"prompt": f"Task {i}", "chosen": "yes", "rejected": "no"} for i in range(4)]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"pairs{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_files_are_read_and_their_tasks_named(tmp_path: Path, suffix: str) -> None:
    found = read_sources([PairSource(path=write(tmp_path, suffix))], seed=0)

    assert [pair.prompt[0]["content"] for pair in found.pairs] == [row["prompt"] for row in ROWS]
    assert found.card.task_ids == sorted({pair.task_id for pair in found.pairs})
    assert len(found.card.task_ids) == found.card.num_pairs == 4
    assert len(found.card.pairs_hash) == 64


def test_sources_are_mixed_by_weight(tmp_path: Path) -> None:
    ours = write_pairs(tmp_path / "ours", make_pairs(3))
    theirs = write(tmp_path, ".jsonl")
    sources = [PairSource(path=ours), PairSource(path=theirs, weight=2.5)]

    found = read_sources(sources, seed=0)

    names = [pair.environment for pair in found.pairs]
    assert (names.count("boxes"), names.count("foreign")) == (6, 10)
    assert {"task-0", *(p.task_id for p in found.pairs)} <= set(found.card.task_ids)
    assert read_sources(sources, seed=0) == found


def test_a_fraction_takes_a_share_once() -> None:
    pairs = make_pairs(10)

    half = weighted(pairs, 0.5, seed=1)

    assert len(half) == len({id(pair) for pair in half}) == 10
    assert weighted(pairs, 0.5, seed=2) != half


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"prompt": "a"\n', "a.jsonl line 1' is not JSON"),
        ("a.json", "{}", "must hold a JSON list of pairs"),
        ("a.jsonl", "", "has no pairs; give a file with at least one"),
        ("a.parquet", "no", "cannot be read as parquet"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=message):
        read_sources([PairSource(path=tmp_path / name)], seed=0)


def test_what_cannot_be_a_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_sources([PairSource(path=tmp_path / "missing.jsonl")], seed=0)
    with pytest.raises(ConfigError, match="names no source"):
        read_sources([], seed=0)
    with pytest.raises(ConfigError, match="must be > 0, got 0"):
        PairSource(path=tmp_path, weight=0)


def test_a_set_on_the_hub_that_cannot_be_reached_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)

    with pytest.raises(DataError, match=r"'nobody/nothing' is neither a folder .* on the hub"):
        read_sources([PairSource(path=Path("nobody/nothing"))], seed=0)


def test_a_part_of_a_set_on_the_hub_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, subset: str | None, **options: Any) -> list[Any]:  # noqa: ANN401
        asked.append((name, subset, options["split"], options["revision"]))
        return ROWS

    monkeypatch.setattr("datasets.load_dataset", load)
    path = Path("somebody/pairs")

    for source in (PairSource(path=path), PairSource(path=path, split="b", revision="c")):
        assert len(read_sources([source], seed=0).pairs) == len(ROWS)

    assert asked == [(str(path), None, "train", None), (str(path), None, "b", "c")]


def test_parts_are_named_in_yaml() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(PreferenceDataModule, "data")

    found = parser.instantiate(
        parser.parse_string(
            "data: {pairs: [{path: a/b, split: train_prefs}], "
            "also: {held: {path: a/b, split: test_prefs}, plain: runs/pairs}}"
        )
    ).data

    assert found._reader.sources == [PairSource(path=Path("a/b"), split="train_prefs")]
    assert found._also["held"] == PairSource(path=Path("a/b"), split="test_prefs")
    assert str(found._also["plain"]) == "runs/pairs"


def test_files_and_folders_have_no_splits(tmp_path: Path) -> None:
    for path in (write(tmp_path, ".jsonl"), write_pairs(tmp_path / "ours", make_pairs(1))):
        with pytest.raises(ConfigError, match="no set on the hub, so it has no split and subset"):
            read_sources([PairSource(path=path, split="test", subset="x")], seed=0)


def test_real_pairs_of_trajectories_keep_together() -> None:
    found = read_sources([PairSource(path=data_file("step_pairs/pairs.jsonl"))], seed=0)

    assert (len(found.pairs), found.card.num_trees) == (200, 40)
    assert {pair.depth for pair in found.pairs} == {0, 1, 2, 3, 4}
