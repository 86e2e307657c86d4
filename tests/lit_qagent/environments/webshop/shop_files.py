"""Four invented products in the form of WebShop's own files, written for a test."""

import json
from pathlib import Path
from typing import Any

Raw = dict[str, Any]


def make_raw(number: int, **changes: object) -> Raw:
    """Return a products record; the defaults are a kettle with two kinds of options."""
    raw: Raw = {
        "asin": f"B{number:03d}",
        "name": f"Tesk steel kettle model {number}",
        "full_description": "A kettle that whistles.",
        "small_description": ["Holds two liters", "Made of steel"],
        "pricing": "$25.5",
        "images": ["https://example.invalid/kettle.jpg"],
        "product_category": "Home \u203a Kitchen \u203a Kettles",
        "category": "garden",
        "query": " Tea Kettles ",
        "average_rating": "",
        "page": 1,
        "customization_options": {
            "Size": [{"value": "Small", "image": None}, {"value": "1/2 Gallon", "image": None}],
            "Color": [{"value": "Navy Blue", "image": None}, {"value": "Red", "image": None}],
        },
    }
    return {**raw, **changes}


def make_products() -> list[Raw]:
    return [
        make_raw(0),
        make_raw(1, pricing="$10$30.25", customization_options=""),
        make_raw(2, pricing="", small_description="One line", customization_options={"Fit": None}),
        make_raw(3, name="Orva wool scarf", query="scarves", product_category="Clothing"),
    ]


def make_notes() -> dict[str, Any]:
    return {
        "B000": {
            "attributes": ["stainless steel", "easy clean"],
            "instruction": "Find me stainless steel tea kettles",
            "instruction_attributes": ["stainless steel"],
        },
        "B001": {"attributes": ["easy clean"]},
        "B002": {"attributes": []},
    }


def make_human() -> dict[str, Any]:
    return {
        "B000": [make_instruction("a red kettle, small.", options=["red", "small"])],
        "B001": [make_instruction("any kettle"), make_instruction("nothing asked", attributes=[])],
    }


def make_instruction(
    words: str, *, attributes: list[str] | None = None, options: list[str] | None = None
) -> dict[str, Any]:
    return {
        "instruction": words,
        "instruction_attributes": ["easy clean"] if attributes is None else attributes,
        "instruction_options": options or [],
    }


def write_files(
    folder: Path,
    products: object = None,
    notes: object = None,
    human: object = None,
) -> dict[str, Any]:
    """Write the three files; what is not given has its default content."""
    contents = {
        "products": make_products() if products is None else products,
        "attributes": make_notes() if notes is None else notes,
        "human": make_human() if human is None else human,
    }
    paths: dict[str, Any] = {}
    for name, content in contents.items():
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        paths[name] = str(path)
    return paths
