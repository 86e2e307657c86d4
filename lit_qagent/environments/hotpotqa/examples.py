"""Solved questions about invented facts, written for this project."""

from dataclasses import dataclass

from lit_qagent.core.records import Task
from lit_qagent.environments.docstore import Docstore, Page


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A question and the messages that solve it in `EXAMPLE_DOCSTORE`."""

    task: Task
    actions: tuple[str, ...]


EXAMPLE_DOCSTORE = Docstore(
    (
        Page(
            title="The Tin Harbour",
            sentences=(
                "The Tin Harbour is a 1962 novel by Mara Ellingsen.",
                "It follows three sisters who repair fishing boats.",
            ),
        ),
        Page(
            title="Mara Ellingsen",
            sentences=(
                "Mara Ellingsen was a novelist and boat builder.",
                "She published eleven books.",
                "Her early work appeared under a pen name.",
                "She taught sailing for twenty years.",
                "Critics praised her short sentences.",
                "Ellingsen was born in Vardholm, a town on the river Aske.",
            ),
        ),
        Page(
            title="Quillon Brewery",
            sentences=(
                "Quillon Brewery is a maker of dark beer.",
                "It opened in 1874 in a former mill.",
            ),
        ),
        Page(
            title="Oster Glassworks",
            sentences=(
                "Oster Glassworks makes lamps and windows.",
                "The company was founded in 1851.",
            ),
        ),
        Page(
            title="Aske Bridge",
            sentences=(
                "Aske Bridge is a stone bridge over the river Aske.",
                "It was designed by Tove Marsden and opened in 1911.",
            ),
        ),
        Page(
            title="Lindal Viaduct (railway)",
            sentences=(
                "The Lindal Viaduct carries a railway over the Lindal valley.",
                "Its engineer was Tove Marsden.",
            ),
        ),
    )
)

EXAMPLES = (
    Example(
        task=Task(
            task_id="example-bridge",
            instruction="In which town was the author of The Tin Harbour born?",
            split="example",
            data={"answer": "Vardholm"},
        ),
        actions=(
            "Thought: I first need to know who wrote The Tin Harbour.\n"
            "Action: Search[The Tin Harbour]",
            "Thought: The author is Mara Ellingsen. Her page may name her town of birth.\n"
            "Action: Search[Mara Ellingsen]",
            "Thought: The first sentences do not say where she was born. I look further down.\n"
            "Action: Lookup[born]",
            "Thought: She was born in Vardholm.\nAction: Finish[Vardholm]",
        ),
    ),
    Example(
        task=Task(
            task_id="example-comparison",
            instruction="Which is older, Quillon Brewery or Oster Glassworks?",
            split="example",
            data={"answer": "Oster Glassworks"},
        ),
        actions=(
            "Thought: I need the founding year of both. I start with the brewery.\n"
            "Action: Search[Quillon Brewery]",
            "Thought: It opened in 1874. Now the glassworks.\nAction: Search[Oster Glassworks]",
            "Thought: 1851 is before 1874, so the glassworks are older.\n"
            "Action: Finish[Oster Glassworks]",
        ),
    ),
    Example(
        task=Task(
            task_id="example-yes-no",
            instruction="Were Aske Bridge and the Lindal Viaduct designed by the same person?",
            split="example",
            data={"answer": "yes"},
        ),
        actions=(
            "Thought: I look for the designer of each, first of the bridge.\n"
            "Action: Search[Aske Bridge]",
            "Thought: Tove Marsden designed the bridge. Now the viaduct.\n"
            "Action: Search[Lindal Viaduct]",
            "Thought: No page has that title, but a similar one must be it.\n"
            "Action: Search[Lindal Viaduct (railway)]",
            "Thought: Its engineer was Tove Marsden too, so the answer is yes.\n"
            "Action: Finish[yes]",
        ),
    ),
)
