from lit_qagent.environments.docstore import Docstore, Page
from lit_qagent.environments.hotpotqa.candidates import list_candidates, name_spans

TOWN = Page(
    title="Vardholm",
    sentences=(
        "Vardholm is a town near Oster.",
        "It has 1,200 people.",
        "It was founded on 3 May 1604.",
        "It has a mill.",
        "It has a school.",
        "Its mayor is Ines Brandt.",
    ),
)
STORE = Docstore([TOWN, Page(title="Oster", sentences=("Oster is a city.",))])
QUESTION = "Who is the mayor of Vardholm?"


def test_name_spans() -> None:
    text = "In May the Duke of North Vardholm met J. K. Brandt of the Mill. She left."
    assert name_spans(text) == ["May", "Duke of North Vardholm", "J. K. Brandt of the Mill"]


def test_before_any_page_there_are_searches_only() -> None:
    assert list_candidates(QUESTION, [], [], STORE, 24) == (
        "Search[Vardholm]",
        "Search[Who is the mayor of Vardholm]",
    )


def test_pages_give_titles_hidden_words_and_answers() -> None:
    assert list_candidates(QUESTION, [TOWN], [], STORE, 24) == (
        "Search[Oster]",
        "Lookup[mayor]",
        "Finish[Oster]",
        "Finish[1,200]",
        "Finish[May]",
        "Finish[3 May 1604]",
        "Finish[3]",
        "Finish[1604]",
        "Finish[Ines Brandt]",
        "Finish[Vardholm]",
    )


def test_titles_offered_by_a_failed_search_come_first() -> None:
    listed = list_candidates(QUESTION, [], ["Oster"], STORE, 24)
    assert listed[:2] == ("Search[Oster]", "Search[Vardholm]")


def test_comparisons_can_be_answered_from_the_question() -> None:
    assert "Finish[yes]" in list_candidates("Is Oster older than Vardholm?", [], [], STORE, 24)
    assert "Finish[yes]" not in list_candidates(QUESTION, [TOWN], [], STORE, 24)
    older = list_candidates("Which is older, Oster or Vardholm?", [], [], STORE, 24)
    assert older[-2:] == ("Finish[Oster]", "Finish[Vardholm]")


def test_the_limit_leaves_room_for_answers() -> None:
    similar = [f"Title {number}" for number in range(30)]
    listed = list_candidates(QUESTION, [TOWN], similar, STORE, 9)
    verbs = [command.split("[")[0] for command in listed]
    assert len(listed) == 9
    assert verbs.count("Search") == 2
    assert verbs.count("Finish") == 6


def test_a_question_without_names_still_has_a_next_step() -> None:
    assert list_candidates("who came first?", [], [], STORE, 24) == ("Search[who came first]",)
