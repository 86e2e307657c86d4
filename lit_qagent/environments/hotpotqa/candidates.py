"""Candidate commands for models too small to write their own; the gold answer plays no part."""

import re
from collections.abc import Iterable, Iterator, Sequence

from lit_qagent.environments.docstore import Page, PageSource
from lit_qagent.environments.hotpotqa.answers import normalize_answer
from lit_qagent.environments.text_index import STOP_WORDS

SHOWN_SENTENCES = 5
_APOSTROPHES = "'\u2019"
_CAPITAL = r"[^\W\d_a-z\u00df-\u00f6\u00f8-\u00ff]"
# A dot belongs to a name inside a word and after an initial, not at the end of a sentence.
_NAME = rf"(?:{_CAPITAL}\.(?=\s)|{_CAPITAL}(?:[\w{_APOSTROPHES}&-]|\.(?=\w))*)"
_LINK = r"(?:of|of the|de|de la|van|von)"
_SPAN = re.compile(rf"{_NAME}(?: (?:{_LINK} )?{_NAME})*")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(rf"(?:{_MONTH}) \d{{1,2}}, \d{{4}}|\d{{1,2}} (?:{_MONTH}) \d{{4}}")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_YES_NO_START = re.compile(r"(?:is|are|was|were|do|does|did|has|have|had|can)\b", re.IGNORECASE)
_COMPARISON = re.compile(r"\bor\b|\bboth\b", re.IGNORECASE)
_LEADING_WORDS = STOP_WORDS | {
    *("he", "she", "his", "her", "its", "after", "before", "during", "since", "when", "while"),
    *("which", "what", "who", "whom", "whose", "where", "how", "why", "both", "from", "were"),
    *("did", "does", "do", "has", "have", "had", "can", "also", "other", "some", "many", "most"),
}
_MAX_LOOKUPS = 2
_MIN_LOOKUP_LETTERS = 4
_MAX_LETTERS = 100
_MAX_QUESTION_LETTERS = 300


def list_candidates(
    question: str, pages: Sequence[Page], similar: Sequence[str], docstore: PageSource, limit: int
) -> tuple[str, ...]:
    """Return commands worth trying, in a fixed order.

    Args:
        question: The question.
        pages: The pages this branch opened, the open one last.
        similar: Titles offered by this branch's last search, if it failed.
        docstore: Where titles come from.
        limit: Most commands returned; up to a third of them are searches while pages are open,
            and searches never take the place of every answer.
    """
    lookups = _lookups(question, pages)
    answers = list(_answers(question, pages))
    searches = list(_searches(question, pages, similar, docstore))
    room = limit - len(lookups)
    num_searches = max(room - len(answers), room // 3) if pages else room
    kept_searches = searches[:num_searches]
    kept_answers = answers[: room - len(kept_searches)]
    return (*kept_searches, *lookups, *kept_answers)


def name_spans(text: str) -> list[str]:
    """Return the capitalised spans of a text, in order, without leading function words.

    Examples:
        >>> name_spans("The novel was written by Mara Ellingsen in North Vardholm.")
        ['Mara Ellingsen', 'North Vardholm']
    """
    found: dict[str, None] = {}
    for match in _SPAN.finditer(text):
        words = match.group().rstrip(f".&-{_APOSTROPHES}").split()
        while words and words[0].lower() in _LEADING_WORDS:
            words = words[1:]
        if words:
            found.setdefault(" ".join(words))
    return list(found)


def _searches(
    question: str, pages: Sequence[Page], similar: Sequence[str], docstore: PageSource
) -> Iterator[str]:
    sources = [*similar]
    if pages:
        sources += docstore.titles_in(" ".join(pages[-1].sentences))
    sources += [*docstore.titles_in(question), *name_spans(question)]
    opened = {page.title for page in pages}
    titles = [title for title in sources if len(title) <= _MAX_LETTERS]
    if not pages:
        # A question without a name still has a next step: its closest titles.
        titles.append(question[:_MAX_QUESTION_LETTERS].rstrip("? ") or "?")
    for title in dict.fromkeys(titles):
        if title not in opened:
            yield f"Search[{title}]"


def _answers(question: str, pages: Sequence[Page]) -> Iterator[str]:
    spans: list[str] = []
    if _YES_NO_START.match(question):
        spans += ["yes", "no"]
    if _COMPARISON.search(question):
        spans += name_spans(question)
    asked = f" {normalize_answer(question)} "
    # A name that the question gives is seldom its answer, so such names come last.
    spans += sorted(_read_spans(pages), key=lambda span: f" {normalize_answer(span)} " in asked)
    for span in _distinct(spans):
        yield f"Finish[{span}]"


def _read_spans(pages: Sequence[Page]) -> Iterator[str]:
    """Yield names, dates and numbers of the pages, the latest page first."""
    for page in reversed(pages):
        yield page.title
        for sentence in page.sentences:
            yield from name_spans(sentence)
            yield from _DATE.findall(sentence)
            yield from _NUMBER.findall(sentence)


def _distinct(spans: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for span in spans:
        key = normalize_answer(span)
        if key and key not in seen and len(span) <= _MAX_LETTERS:
            seen.add(key)
            yield span


def _lookups(question: str, pages: Sequence[Page]) -> list[str]:
    """Return look-ups of the question's words that stand in sentences not shown yet."""
    if not pages:
        return []
    hidden = " ".join(pages[-1].sentences[SHOWN_SENTENCES:]).lower()
    words = dict.fromkeys(re.findall(r"\w+", question.lower()))
    useful = [
        word
        for word in words
        if _MIN_LOOKUP_LETTERS <= len(word) <= _MAX_LETTERS
        and word not in _LEADING_WORDS
        and word in hidden
    ]
    return [f"Lookup[{word}]" for word in useful[:_MAX_LOOKUPS]]
