"""Which tasks are trained on, validated on and tested on."""

from lit_qagent.core.errors import ConfigError
from lit_qagent.core.seeds import derive_seed


def split_tasks(task_ids: set[str], *, seed: int, valid: float, test: float) -> dict[str, str]:
    """Assign each task to ``train``, ``valid`` or ``test`` by the rank of its hash.

    A fraction above 0 gives at least one task. The order of the ids does not matter.

    Examples:
        >>> sorted(split_tasks({"a", "b", "c", "d"}, seed=0, valid=0.25, test=0.25).values())
        ['test', 'train', 'train', 'valid']
    """
    ranked = sorted(task_ids, key=lambda task_id: (derive_seed("split", seed, task_id), task_id))
    num_valid = max(1, round(valid * len(ranked))) if valid else 0
    num_test = max(1, round(test * len(ranked))) if test else 0
    names = ["valid"] * num_valid + ["test"] * num_test
    names += ["train"] * max(0, len(ranked) - len(names))
    return dict(zip(ranked, names, strict=False))


def check_fractions(valid: float, test: float) -> None:
    """Refuse shares of the tasks that leave nothing to train on.

    Raises:
        ConfigError: One is negative, or both together are 1 or more.
    """
    if min(valid, test) < 0 or valid + test >= 1:
        raise ConfigError(
            "data.valid_fraction and data.test_fraction must be >= 0 and below 1 together, "
            f"got {valid} and {test}"
        )
