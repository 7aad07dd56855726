"""What the peers are measured on: examples of random words with the lengths of real law questions. No torch.

Only lengths of lawqa_jp are kept here (`lawqa_lengths.json`), none of its text. They were written with

    python -m benchmarks.peers_data SELECTION.JSON data/law/cot_norag.train.jsonl
"""

import dataclasses
import functools
import hashlib
import json
import random
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import law_files as build
from slimtune.core.files import write_text
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.questions import Question
from slimtune.data.records import Conversation, Message
from slimtune.data.sources import read_rows
from slimtune.datatools.build import question_sources
from slimtune.plan import lengths as counting

LENGTHS = Path(__file__).with_name("lawqa_lengths.json")
SETS = ("direct", "context", "cot")
LONGEST_ANSWER = 256

_LETTER_TOKENS = 2  # a letter and the end of the turn, whatever the tokenizer


@dataclass(frozen=True)
class Row:
    """One example: a question and its answer, and both as the chat template renders them.

    prompt: ends with the generation prompt. completion: ends with the end-of-turn token. tokens, supervised: how
    many tokens both have together, and the completion alone.
    """

    question: str
    answer: str
    prompt: str
    completion: str
    tokens: int
    supervised: int

    @property
    def messages(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": self.question}, {"role": "assistant", "content": self.answer}]


def read_lengths(name: str) -> list[tuple[int, int]]:
    """Prompt and response tokens of every question: "direct", "context" (with its statute) or "cot"."""
    content = json.loads(LENGTHS.read_text(encoding="utf-8"))[name]
    return list(zip(content["prompt"], content["response"], strict=True))


def source() -> str:
    """Where the lengths come from, in words."""
    return str(json.loads(LENGTHS.read_text(encoding="utf-8"))["source"])


def rows(folder: Path, lengths: Iterable[tuple[int, int]], *, seed: int) -> list[Row]:
    """Examples of exactly these prompt and response lengths, of random words that a model's tokenizer knows.

    folder: of the model. A prompt shorter than the chat template itself becomes as short as can be.
    Raises ValueError where the tokenizer does not give the lengths that were asked for.
    """
    tokenizer = ChatTokenizer(folder)
    words = _words(folder)
    draw = random.Random(seed)
    around = len(tokenizer.prompt_ids([Message("user", words[0])])) - 1
    return [
        _row(tokenizer, _text(draw, words, max(1, prompt - around)), _text(draw, words, max(1, response - 1)))
        for prompt, response in lengths
    ]


def one_example(folder: Path, tokens: int, *, seed: int) -> list[Row]:
    """A single example of that many tokens, a quarter of them answer, but no more than `LONGEST_ANSWER`."""
    response = min(LONGEST_ANSWER, tokens // 4)
    return rows(folder, [(tokens - response, response)], seed=seed)


def _row(tokenizer: ChatTokenizer, question: str, answer: str) -> Row:
    messages = [Message("user", question), Message("assistant", answer)]
    prompt = tokenizer.render(messages[:1], add_generation_prompt=True)
    whole = tokenizer.render(messages, add_generation_prompt=False).rstrip("\n")
    completion = whole.removeprefix(prompt)
    parts, together = [len(tokenizer.encode(text)) for text in (prompt, completion)], len(tokenizer.encode(whole))
    if completion == whole or sum(parts) != together:
        raise ValueError(f"prompt and completion do not make up the conversation: {whole!r}")
    return Row(question, answer, prompt, completion, tokens=together, supervised=parts[1])


@functools.cache
def _words(folder: Path) -> tuple[str, ...]:
    """Words that are one token each, however they are put on lines: letters only, in a fixed order."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known = (tokenizer.decode([token]) for token in tokenizer.get_vocab().values())
    letters = sorted({word for word in known if re.fullmatch(r"[^\W\d_]{2,}", word)})
    return tuple(
        word for word in letters if len(tokenizer.encode(f"{word}\n{word}", add_special_tokens=False).ids) == 3
    )


def _text(draw: random.Random, words: Sequence[str], tokens: int) -> str:
    """Words on lines of their own: word and line break are one token each, and a digit makes the number even."""
    text = "\n".join(draw.choice(words) for _ in range((tokens + 1) // 2))
    return text if tokens % 2 else f"{text}{draw.randrange(10)}"


def write(path: Path, examples: Sequence[Row]) -> None:
    """The examples as JSON lines, and beside them `NAME.messages.jsonl` as a recipe's data."""
    write_text(path, "".join(json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in examples))
    lines = (json.dumps({"messages": row.messages}, ensure_ascii=False) + "\n" for row in examples)
    write_text(messages_file(path), "".join(lines))


def messages_file(path: Path) -> Path:
    return path.with_suffix(".messages.jsonl")


def read(path: Path) -> list[Row]:
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def digest(documents: Iterable[tuple[Sequence[int], Sequence[int]]]) -> str:
    """SHA-256 of (input ids, labels) pairs, in whatever order they come."""
    each = sorted(hashlib.sha256(repr((list(ids), list(labels))).encode()).hexdigest() for ids, labels in documents)
    return hashlib.sha256("".join(each).encode()).hexdigest()


def measure(selection: Path, reasoned: Path) -> dict[str, Any]:
    """The content of `lawqa_lengths.json`.

    selection: lawqa_jp's selection.json. reasoned: a training file with reasoned answers, since lawqa_jp has none.
    """
    questions = question_sources.read([str(selection)], layout="lawqa").questions
    answers = [row.value["output"] for row in read_rows(str(reasoned), [])]
    # Its own answers in turn: the n-th question gets the n-th answer's length.
    responses = [_supervised(answers[index % len(answers)]) for index in range(len(questions))]
    letters = [_LETTER_TOKENS] * len(questions)
    return {
        "source": (
            "lawqa_jp (Digital Agency of Japan), selection.json: the lengths of its "
            f"{len(questions)} questions in this project's prompts (slimtune/data/build.py), with and without the "
            "statute. Tokens are estimated from characters (slimtune/plan/lengths.py). A direct answer is a letter "
            "and the end of the turn. lawqa_jp has no reasoned answers: those lengths are the ones of "
            f"{reasoned.as_posix()}, in turn."
        ),
        "direct": {"prompt": [_prompt(one, "direct", rag=False) for one in questions], "response": letters},
        "context": {"prompt": [_prompt(one, "direct", rag=True) for one in questions], "response": letters},
        "cot": {"prompt": [_prompt(one, "cot", rag=False) for one in questions], "response": responses},
    }


def _prompt(question: Question, mode: build.Mode, *, rag: bool) -> int:
    # Only the prompt counts here, so any reasoning will do.
    row = build.render_question(dataclasses.replace(question, reasoning="-"), mode=mode, rag=rag)
    return counting.estimate([_conversation(row["input"], "-")]).prompts[0]


def _supervised(answer: str) -> int:
    return counting.estimate([_conversation("-", answer)]).supervised[0]


def _conversation(question: str, answer: str) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", answer)))


def main(arguments: list[str]) -> None:
    content = measure(*map(Path, arguments))
    parts = [f'"source": {json.dumps(content["source"], ensure_ascii=False)}']
    for name in SETS:
        lists = ",\n  ".join(f'"{key}": {json.dumps(values)}' for key, values in content[name].items())
        parts.append(f'"{name}": {{\n  {lists}\n }}')
    write_text(LENGTHS, "{\n " + ",\n ".join(parts) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
