"""Live Wikipedia, or any MediaWiki with the TextExtracts and PageProps extensions, as pages."""

import re
from pathlib import Path
from typing import Any

from lit_qagent.core.errors import EnvironmentFailure
from lit_qagent.core.text import clean_line
from lit_qagent.environments.docstore import Page, PageSource, normalize_title
from lit_qagent.environments.hotpotqa.answer_cache import AnswerCache
from lit_qagent.environments.hotpotqa.wiki_api import ApiSpec, Pace, WikiApi

_NEVER_IN_TITLES = re.compile(r"[#<>\[\]|{}]")
_NOT_FOR_SEARCH = re.compile(r"[^\w\s'.,()&-]+")
_LONGEST_TITLE_BYTES = 255
_LONGEST_QUERY = 200
_NUM_SEARCHED = 10
_HEADING = re.compile(r"=+ .* =+")
# Not after an initial such as "J."; the next sentence begins with anything but a small letter.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[\"'(\u201c]?[^\Wa-z])")
_DISAMBIGUATION = "(disambiguation)"


class Wikipedia(PageSource):
    """Pages over the network, kept on disk once read.

    A page that was read stays as it was, so a search can be repeated and replayed; delete the
    cache to read anew. Redirects are followed. A disambiguation page is never opened: its title
    counts as not found, and the pages that a search finds for it are offered.

    Args:
        contact: Your mail address or web page; Wikimedia asks for one in every request.
        cache: Folder of the pages read, which any number of processes may share.
        api_url: Address of the wiki's ``api.php``.
        requests_per_second: Of all processes that share the cache together.
        timeout_s: Longest wait for one whole answer, in seconds.
        max_retries: Further attempts after the first.
    """

    waits = True

    def __init__(
        self,
        contact: str,
        cache: str = "data/wikipedia",
        api_url: str = "https://en.wikipedia.org/w/api.php",
        requests_per_second: float = 5.0,
        timeout_s: float = 20.0,
        max_retries: int = 5,
    ) -> None:
        spec = ApiSpec(
            url=api_url,
            contact=contact,
            requests_per_second=requests_per_second,
            timeout_s=timeout_s,
            max_retries=max_retries,
        )
        self._cache = AnswerCache(Path(cache).expanduser())
        self.api = WikiApi(spec, Pace(self._cache.folder / "pace", requests_per_second))

    def find(self, title: str) -> Page | None:
        """Return the page of this title, also where case or width of letters differ."""
        name = _as_title(title)
        if name is None:
            return None
        page = self._page(name)
        if page is not None:
            return page
        wanted = normalize_title(name)
        for other in self._search(name):
            if other != name and normalize_title(other) == wanted:
                return self._page(other)
        return None

    def similar(self, query: str, limit: int = 5) -> list[str]:
        """Return the titles that the wiki's own search ranks first."""
        asked = normalize_title(query)
        titles = (title for title in self._search(query) if normalize_title(title) != asked)
        return [title for title in titles if not title.endswith(_DISAMBIGUATION)][:limit]

    def settings(self) -> dict[str, Any]:
        """Return the wiki's address; never the contact."""
        return {"pages": "wikipedia", "api_url": self.api.spec.url}

    def close(self) -> None:
        """Close the connections."""
        self.api.close()

    def _page(self, name: str) -> Page | None:
        query = self._ask(
            titles=name,
            redirects="1",
            prop="extracts|pageprops",
            explaintext="1",
            exsectionformat="wiki",
            exlimit="1",
            ppprop="disambiguation",
        )
        pages = query.get("pages") or []
        entry = pages[0] if isinstance(pages, list) and pages else {}
        if not isinstance(entry, dict):
            raise EnvironmentFailure(
                f"{self.api.spec.url} sent a page of unknown form: {entry!r:.80}"
            )
        properties = entry.get("pageprops") or {}
        title, text = entry.get("title"), entry.get("extract")
        if "missing" in entry or "invalid" in entry or "disambiguation" in properties:
            return None
        if not isinstance(title, str) or not isinstance(text, str):
            return None  # a special page, or one in a namespace without text
        return Page(title=clean_line(title), sentences=split_sentences(text))

    def _search(self, text: str) -> list[str]:
        words = " ".join(_NOT_FOR_SEARCH.sub(" ", clean_line(text)).split())[:_LONGEST_QUERY]
        if not words:
            return []
        query = self._ask(
            list="search", srsearch=words, srlimit=str(_NUM_SEARCHED), srnamespace="0", srprop=""
        )
        found = query.get("search")
        rows = found if isinstance(found, list) else []
        titles = [row.get("title") for row in rows if isinstance(row, dict)]
        return [clean_line(title) for title in titles if isinstance(title, str)]

    def _ask(self, **parameters: str) -> dict[str, Any]:
        request = {"action": "query", "format": "json", "formatversion": "2", **parameters}
        key = {"api": self.api.spec.url, **request}
        answer = self._cache.get(key)
        if answer is None:
            answer = self.api.ask(request)
            self._cache.put(key, answer)
        return answer


def split_sentences(text: str) -> tuple[str, ...]:
    r"""Return the sentences of a page's text, without its headings.

    Examples:
        >>> split_sentences("J. K. Brandt wrote it. It sold well.\n== Reception ==\nMixed.")
        ('J. K. Brandt wrote it.', 'It sold well.', 'Mixed.')
    """
    lines = (line.strip() for line in text.splitlines())
    kept = (line for line in lines if not _HEADING.fullmatch(line))
    parts = (clean_line(part) for line in kept for part in _SENTENCE_END.split(line))
    return tuple(part for part in parts if part)


def _as_title(text: str) -> str | None:
    """Return a text as a title to ask for, or None if no page can have it."""
    name = " ".join(clean_line(text).replace("_", " ").split())
    if not name or _NEVER_IN_TITLES.search(name) or len(name.encode()) > _LONGEST_TITLE_BYTES:
        return None
    return name
