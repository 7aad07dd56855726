"""Which language a file's prompts and outputs are in, as far as their scripts tell."""

import re
from collections import Counter

from slimtune.core.findings import Finding
from slimtune.data.languages import MIN_LETTERS, language
from slimtune.data.records import Conversation

MIN_ROWS = 5
MOST = 0.8
# Rows that ask for another language are right to change it.
_OTHER_LANGUAGE_ASKED = re.compile(
    "訳|英語|英文|日本語|中国語|韓国語|ローマ字|漢字|translat|english|japanese|chinese|korean|russian|翻译|中文|번역",
    re.IGNORECASE,
)


class Languages:
    """The languages of a file's rows, counted while they are read."""

    def __init__(self) -> None:
        self._prompts: Counter[str] = Counter()
        self._compared = 0
        self._different: list[tuple[str, str, str]] = []

    def add(self, conversation: Conversation) -> None:
        """Looks at the last prompt and the output of the row."""
        prompt, output = (message.content for message in conversation.messages[-2:])
        asked = language(prompt)
        if asked is None:
            return
        self._prompts[asked] += 1
        answered = language(output) if len(output) > MIN_LETTERS else None
        if answered is None or _OTHER_LANGUAGE_ASKED.search(prompt):
            return
        self._compared += 1
        if answered != asked:
            self._different.append((conversation.where, asked, answered))

    def findings(self, path: str) -> list[Finding]:
        """Rows answered in another language than asked, where most are not; and a note about prompts in several."""
        found: list[Finding] = []
        same = self._compared - len(self._different)
        if self._compared >= MIN_ROWS and same >= MOST * self._compared:
            for where, asked, answered in self._different:
                what = f"the prompt is in {asked}, the output in {answered}; most rows keep their language"
                fix = "write the output in the language of the prompt, or name the wanted language in the prompt"
                found.append(Finding("warning", what, fix, where, "language-differs"))
        if len(self._prompts) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in self._prompts.most_common())
            what = f"the prompts are in several languages ({counts} rows)"
            found.append(Finding("note", what, "fine if you meant it", path, "mixed-languages"))
        return found
