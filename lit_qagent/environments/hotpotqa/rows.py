"""Rows of HotPotQA as the `datasets` library keeps it: Parquet files, saved folders, the hub."""

from pathlib import Path
from typing import Any

from lit_qagent.core.errors import DataError

HUB_PREFIX = "hf:"


def is_dataset(source: str) -> bool:
    """Tell whether `read_rows` reads this source; otherwise it is a JSON file."""
    return (
        source.startswith(HUB_PREFIX) or Path(source).suffix == ".parquet" or Path(source).is_dir()
    )


def read_rows(source: str) -> list[dict[str, Any]]:
    """Read every row.

    Args:
        source: A Parquet file or a folder of them, a folder written by ``save_to_disk``, or
            ``hf:owner/name/config/split`` such as ``hf:hotpotqa/hotpot_qa/distractor/train``.

    Raises:
        DataError: The source is missing or damaged, or names no single split.
    """
    if source.startswith(HUB_PREFIX):
        return _read_hub(source)
    path = Path(source)
    shards = [path] if path.suffix == ".parquet" else sorted(path.glob("*.parquet"))
    return _read_parquet(shards) if shards else _read_saved(path)


def _read_parquet(shards: list[Path]) -> list[dict[str, Any]]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    rows: list[dict[str, Any]] = []
    for shard in shards:
        try:
            rows += pq.read_table(shard).to_pylist()
        except (OSError, pa.ArrowException) as error:
            raise DataError(
                f"cannot read HotPotQA file {shard} as Parquet: {error}; get it again"
            ) from error
    return rows


def _read_saved(path: Path) -> list[dict[str, Any]]:
    import datasets
    import pyarrow as pa

    try:
        saved = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"HotPotQA folder {path} holds no *.parquet file and is no dataset written by "
            f"save_to_disk: {error}"
        ) from error
    if isinstance(saved, datasets.DatasetDict):
        raise DataError(
            f"HotPotQA folder {path} holds the splits {', '.join(saved)}; name one of them, "
            f"such as {path / next(iter(saved), 'train')}"
        )
    return list(saved)


def _read_hub(source: str) -> list[dict[str, Any]]:
    parts = source.removeprefix(HUB_PREFIX).split("/")
    if len(parts) != 4 or not all(parts):
        raise DataError(
            f"HotPotQA source {source!r} must be {HUB_PREFIX}owner/name/config/split, "
            f"such as {HUB_PREFIX}hotpotqa/hotpot_qa/distractor/validation"
        )
    import datasets
    import httpx

    owner, name, config, split = parts
    try:
        return list(datasets.load_dataset(f"{owner}/{name}", config, split=split))
    except (OSError, ValueError, RuntimeError, httpx.HTTPError) as error:
        raise DataError(
            f"cannot load HotPotQA from {source}: {type(error).__name__}: {error}; check the "
            "name and the connection, or name a local file"
        ) from error
