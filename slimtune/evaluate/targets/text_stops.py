"""Ending a reply at its answer line, so that an argued answer costs no more tokens than it has."""

import re
from collections.abc import Sequence

import torch
from transformers import StoppingCriteria

from slimtune.data.chat_template import ChatTokenizer
from slimtune.evaluate.targets.target import spellings

# As many tokens as an answer line has at most ("**最終的な回答**： （ｃ）").
_TAIL = 24


class AnswerLineStop(StoppingCriteria):
    """Ends a row once a whole line says the answer: "回答: c", "Answer: C", marked up or not, and its line break."""

    def __init__(self, tokenizer: ChatTokenizer, prompt_width: int, labels: Sequence[str]):
        letters = sorted({text.strip() for label in labels for text in spellings(label)})
        label = "|".join(map(re.escape, letters))
        self._line = re.compile(
            rf"(?:^|\n)[\s*#【]*(?:最終)?(?:的な)?(?:回答|解答|答え|正解|(?:final )?answer)[\s*】]*[:：][\s*]*"
            rf"[(（\[「]?(?:{label})[)）\]」]?[\s*。.]*\n$",
            re.IGNORECASE,
        )
        self._tokenizer, self._width = tokenizer, prompt_width
        self._breaks: dict[int, bool] = {}

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: object) -> torch.BoolTensor:
        done = [self._says_it(row[self._width :].tolist()[-_TAIL:]) for row in input_ids]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)  # type: ignore[return-value]

    def ends(self, text: str) -> bool:
        """Whether a reply's text ends with a whole answer line."""
        return self._line.search(text) is not None

    def _says_it(self, tail: Sequence[int]) -> bool:
        # Decoding every row at every step would cost more than the tiny models it watches: a line ends at a break.
        newest = tail[-1]
        if newest not in self._breaks:
            self._breaks[newest] = self._tokenizer.decode([newest]).endswith("\n")
        return self._breaks[newest] and self.ends(self._tokenizer.decode(tail))
