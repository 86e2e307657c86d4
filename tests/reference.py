"""Slow, independent definitions that the packages' own code must agree with."""

import itertools
import string

# --- HotPotQA's official evaluation -------------------------------------------------------------


def reference_normal_words(answer: str) -> list[str]:
    """Return the words compared: lower case, ASCII punctuation gone, articles gone.

    An article is a whole run of letters and digits, wherever it stands.
    """
    letters = [letter for letter in answer.lower() if letter not in string.punctuation]
    kept = []
    for _, run in itertools.groupby(letters, key=str.isalnum):
        text = "".join(run)
        kept.append(" " if text in ("a", "an", "the") else text)
    return "".join(kept).split()


def reference_exact_match(answer: str, gold: str) -> float:
    return 1.0 if reference_normal_words(answer) == reference_normal_words(gold) else 0.0


def reference_f1(answer: str, gold: str) -> float:
    given, wanted = reference_normal_words(answer), reference_normal_words(gold)
    for closed in (["yes"], ["no"], ["noanswer"]):
        if (given == closed) != (wanted == closed):
            return 0.0
    left = list(wanted)
    shared = 0
    for word in given:
        if word in left:
            left.remove(word)
            shared += 1
    # 2PR / (P + R) with P = shared / given and R = shared / wanted.
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0
