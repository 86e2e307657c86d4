from lit_qagent.environments.docstore import Docstore, Page


def make_page(title: str, *sentences: str) -> Page:
    return Page(title=title, sentences=sentences or (f"{title} is a page.",))


def test_a_page_is_found_by_its_exact_title_first() -> None:
    store = Docstore([make_page("Iron man", "The song."), make_page("Iron Man", "The robot.")])
    found = store.find("Iron Man")
    assert found is not None
    assert found.sentences == ("The robot.",)


def test_a_page_is_found_after_normalisation() -> None:
    store = Docstore([make_page("The Tin Harbour")])
    found = store.find(" the_tin  HARBOUR ")
    assert found is not None
    assert found.title == "The Tin Harbour"
    assert store.find("Tin Harbour") is None


def test_the_first_text_of_a_title_stays_and_conflicts_are_counted() -> None:
    store = Docstore(
        [
            make_page("A", "One  two."),
            make_page("A", "One two."),
            make_page("B", "Old."),
            make_page("B", "New."),
        ]
    )
    assert len(store) == 2
    assert store.num_conflicts == 1  # A differs in white space only
    page = store.find("B")
    assert page is not None
    assert page.sentences == ("Old.",)


def test_similar_titles_come_best_first() -> None:
    store = Docstore(
        [
            make_page("Oster", "A glassworks in Vardholm."),
            make_page("Vardholm", "A town with a harbour."),
            make_page("Quillon", "A brewery."),
        ]
    )
    assert store.similar("harbour of Vardholm") == ["Vardholm", "Oster"]


def test_titles_are_read_from_a_text_with_or_without_their_bracket() -> None:
    store = Docstore(
        [
            make_page("Harbour Lights (film)"),
            make_page("Harbour"),
            make_page("light"),
            make_page("7"),
        ]
    )
    assert store.titles_in("Who directed Harbour Lights in 7 light years?") == [
        "Harbour Lights (film)",
        "Harbour",
    ]
