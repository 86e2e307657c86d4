from data_collection.tree_file import tree_id_of


def test_tree_ids_are_safe_file_names_and_differ() -> None:
    ids = {tree_id_of(task_id) for task_id in ("a/b", "a_b", "A/b", "../x", "x" * 300)}
    assert len(ids) == 5
    assert all("/" not in name and len(name) < 100 and not name.startswith(".") for name in ids)
