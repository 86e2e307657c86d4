"""A tiny question file of invented facts, in the official form."""

import json
from pathlib import Path

RIVER = [
    "Aske River",
    ["The Aske River is long.", " It rises near Vardholm.", " It is cold."],
]
TOWN = [
    "Vardholm",
    [
        "Vardholm is a town.",
        " It has a harbour.",
        " It has a mill.",
        " It has a school.",
        " It has a library.",
        " Its mayor is Ines Brandt.",
        " The harbour opened in 1874.",
    ],
]
FILM = ["Harbour Lights (film)", ["Harbour Lights is a film.", " Ines Brandt directed it."]]


def make_record(number: int, **changes: object) -> dict[str, object]:
    record: dict[str, object] = {
        "_id": f"q{number}",
        "question": "Who is the mayor of the town near which the Aske River rises?",
        "answer": "Ines Brandt",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": [["Aske River", 1], ["Vardholm", 5]],
        "context": [RIVER, TOWN, FILM],
    }
    return {**record, **changes}


def write_questions(path: Path, records: object) -> str:
    path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)
