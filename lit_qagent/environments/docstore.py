"""Encyclopedia pages: what any source of them does, and a local one, searched by BM25."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lit_qagent.environments.text_index import TextIndex

_WORD = re.compile(r"\w+")
_BRACKET = re.compile(r"\s*\([^()]*\)$")
_MAX_TITLE_WORDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """One page.

    Attributes:
        title: As written in the source.
        sentences: Non-empty, ends stripped, in order.
    """

    title: str
    sentences: tuple[str, ...]


class PageSource(ABC):
    """Where pages are searched; every branch of a world, and every thread, shares one.

    Attributes:
        waits: True if an answer may take a while, as over a network.
    """

    waits = False

    @abstractmethod
    def find(self, title: str) -> Page | None:
        """Return the page of this title, exactly or after normalisation, or None."""

    @abstractmethod
    def similar(self, query: str, limit: int = 5) -> list[str]:
        """Return the titles of the pages that fit the query best."""

    def titles_in(self, text: str) -> list[str]:
        """Return titles named in a text, where the source knows its titles."""
        return []

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what identifies the pages in manifests and reports."""


class Docstore(PageSource):
    """Pages by title, all in memory and read-only.

    Args:
        pages: If a title comes twice, the first text stays.

    Attributes:
        num_conflicts: Titles that came again with other words and were left out.
    """

    def __init__(self, pages: Iterable[Page]) -> None:
        self._pages: dict[str, Page] = {}
        self._by_normal: dict[str, str] = {}
        conflicts: set[str] = set()
        for page in pages:
            kept = self._pages.setdefault(page.title, page)
            if _fold(kept.sentences) != _fold(page.sentences):
                conflicts.add(page.title)
            self._by_normal.setdefault(normalize_title(page.title), page.title)
        self.num_conflicts = len(conflicts)
        self._titles = list(self._pages)
        self._by_words = _titles_by_words(self._titles)
        # The title counts twice: a query is mostly a name.
        self._index = TextIndex(
            [f"{page.title} {page.title} {' '.join(page.sentences)}" for page in self]
        )

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[Page]:
        return iter(self._pages.values())

    def find(self, title: str) -> Page | None:
        """Return the page of this title, exactly or after normalisation, or None."""
        name = title if title in self._pages else self._by_normal.get(normalize_title(title), "")
        return self._pages.get(name)

    def similar(self, query: str, limit: int = 5) -> list[str]:
        """Return the titles of the pages that fit the query best."""
        return [self._titles[position] for position in self._index.rank(query, limit)]

    def settings(self) -> dict[str, Any]:
        """Return the number of pages."""
        return {"num_pages": len(self), "num_conflicting_pages": self.num_conflicts}

    def titles_in(self, text: str) -> list[str]:
        """Return titles named in a text, in order of appearance, longer names first.

        A title counts with or without a closing bracket such as ``(film)``; case must agree.
        """
        words = _WORD.findall(text)
        found: dict[str, None] = {}
        for start in range(len(words)):
            for length in range(min(_MAX_TITLE_WORDS, len(words) - start), 0, -1):
                for title in self._by_words.get(tuple(words[start : start + length]), ()):
                    found.setdefault(title)
        return list(found)


def normalize_title(title: str) -> str:
    """Return the form in which titles are compared: case, width and white space folded.

    Examples:
        >>> normalize_title("  the_Tin  Harbour ")
        'the tin harbour'
    """
    text = unicodedata.normalize("NFKC", title).casefold().replace("_", " ")
    return " ".join(text.split())


def _fold(sentences: Sequence[str]) -> str:
    return "".join("".join(sentences).split())


def _titles_by_words(titles: Sequence[str]) -> dict[tuple[str, ...], list[str]]:
    """Group titles by their words; words that are all lower case or digits name nothing."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for title in titles:
        for name in dict.fromkeys((title, _BRACKET.sub("", title))):
            words = tuple(_WORD.findall(name))
            if any(word[0].isupper() for word in words):
                groups.setdefault(words, []).append(title)
    return groups
