"""Search queries made from an instruction's words alone, for models too small to write any."""

import re

_LEAD = re.compile(
    r"^(?:i\s+(?:need|want|would like|am looking for|'m looking for)|find me|show me|buy)\s+"
    r"(?:(?:a|an|some|the)\s+)?",
    re.IGNORECASE,
)
_PRICE = re.compile(r",?\s*(?:and\s+)?price lower than.*$", re.IGNORECASE | re.DOTALL)
_CLAUSE = re.compile(r"\s+(?:in|with|for|that)\s+.*$", re.IGNORECASE | re.DOTALL)
_COMMAND = re.compile(r"^(?:find me|show me|buy)\s+", re.IGNORECASE)


def whole_query(instruction: str) -> str:
    """Return all that an instruction asks for but the price.

    Examples:
        >>> whole_query("Find me cotton shirts with size: small, and price lower than 40 dollars")
        'cotton shirts with size: small'
    """
    text = instruction.strip()
    return _COMMAND.sub("", _PRICE.sub("", text)).strip() or text


def list_queries(instruction: str) -> tuple[str, ...]:
    """Return one to three queries, most specific first.

    Examples:
        >>> list_queries("i need a red cotton shirt in size small, and price lower than 40 dollars")
        ('red cotton shirt', 'cotton shirt', 'shirt')
    """
    wish = _CLAUSE.sub("", _LEAD.sub("", _PRICE.sub("", instruction.strip())))
    words = wish.split() or instruction.split()
    return tuple(dict.fromkeys([" ".join(words), " ".join(words[-2:]), words[-1]]))
