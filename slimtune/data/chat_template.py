"""One renderer for training, evaluation and export: the model's own chat template, and the response mask. No torch.

The response mask is computed, not searched for. For each assistant turn the prompt is rendered with the generation
prompt, as inference will render it. It must be a prefix of the full rendering. What follows, up to and including the
end-of-turn token, is the response. Prompt and response are encoded apart, because at inference the prompt's last tokens
are fixed before the response begins.

Qwen3 renders earlier assistant turns without the think block that their own generation prompt ends with. Such a turn
becomes an example of its own, with its history as it will be at inference. Qwen2.5 conversations stay whole.

An excluded turn stands in the history of later ones and is no response. At the end of a conversation it would teach
nothing, and is left out.
"""

import functools
import itertools
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from slimtune.core import inputs
from slimtune.core.errors import SlimtuneError, fail
from slimtune.core.memory import collector_paused
from slimtune.data import rendered, template_files, tokenizer_file
from slimtune.data.line_encoding import LineEncoder
from slimtune.data.records import Conversation, Message, as_dicts

IGNORE_INDEX = -100
"""Label of a token that carries no loss (torch.nn.CrossEntropyLoss's `ignore_index`)."""

_OWN_TEMPLATE = "use the base's own chat template, unchanged"
_TAG = re.compile(r"<.+>|\[.+\]|\{.+\}")
_ANSWER = "\u27eaanswer\u27eb"
_IGNORED = array("i", [IGNORE_INDEX]).tobytes()
_ENCODED_AT_ONCE = 1024  # conversations, whose texts are held in memory together


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens of one training example; `labels` equals `input_ids` where supervised and IGNORE_INDEX elsewhere.

    `ChatTokenizer` makes both as arrays of 32-bit integers: tuples take six times the memory.
    """

    input_ids: Sequence[int]
    labels: Sequence[int]
    where: str

    @property
    def supervised_tokens(self) -> int:
        return len(self.labels) - self.labels.count(IGNORE_INDEX)


def as_key(ids: Sequence[int]) -> bytes:
    """Token ids as something to look examples up by: an array is no key, and a tuple is large."""
    return array("i", ids).tobytes()


Pieces = list[tuple[str, str]]
"""The text of an example: prompt and response of each of its turns."""


class _Batch(NamedTuple):
    """examples: pieces and line of each. encoded: the ids of every text in the pieces, in turn, in 32 bits each."""

    conversations: int
    examples: list[tuple[Pieces, str]]
    encoded: Future[list[bytes]]


@dataclass(frozen=True)
class ChatTokenizer:
    """A model folder's tokenizer and chat template.

    directory: holds tokenizer.json, tokenizer_config.json and the template (chat_template.jinja or in the config).
    thinking: Qwen3's `enable_thinking`; templates that do not know it ignore it.
    """

    directory: Path
    thinking: bool = False

    @functools.cached_property
    def _tokenizer(self) -> Any:
        path = self.directory / "tokenizer.json"
        if not inputs.exists(path):
            fix = "use a model folder saved with its fast tokenizer"
            raise fail(f"{self.directory} has no tokenizer.json", fix=fix)
        return tokenizer_file.load(path)

    @functools.cached_property
    def _encoder(self) -> LineEncoder:
        return LineEncoder(self._tokenizer)

    @functools.cached_property
    def vocabulary(self) -> int:
        """One more than the largest token id."""
        return 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    @functools.cached_property
    def _templates(self) -> Mapping[str, template_files.Template]:
        return template_files.read(self.directory)

    @functools.cached_property
    def template(self) -> str:
        """The Jinja source for conversations without tools. Raises SlimtuneError where the folder has none."""
        return template_files.choose(self._templates, self.directory, with_tools=False).source

    @functools.cached_property
    def variables(self) -> Mapping[str, str]:
        """The special tokens that a template may name, such as `eos_token`."""
        return template_files.variables(self.directory)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool, tools: str = "") -> str:
        """The text that `tokenizer.apply_chat_template(..., tokenize=False)` gives for the same arguments.

        tools: a JSON array, as in `Conversation`.
        """
        return self._render(as_dicts(messages), tools, add_generation_prompt=add_generation_prompt)

    @functools.cached_property
    def _renderer(self) -> Callable[[str], Any]:
        from slimtune.data import template_traces  # Jinja: not for a command that renders nothing

        return functools.cache(template_traces.Renderer)

    def _render(
        self,
        turns: Sequence[Mapping[str, Any]],
        tools: str,
        *,
        add_generation_prompt: bool,
        thinking: bool | None = None,
    ) -> str:
        template = template_files.choose(self._templates, self.directory, with_tools=bool(tools))
        try:
            thinks = self.thinking if thinking is None else thinking
            values = _values(add_generation_prompt, thinks, _tools(tools), self.variables)
            return self._renderer(template.source).render((tools, add_generation_prompt, thinks), turns, values)
        except SlimtuneError as error:
            raise fail(error.problems[0].what, where=str(template.path), fix=_OWN_TEMPLATE) from error

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; control tokens in it become the real ones, nothing is added."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(list(ids), skip_special_tokens=False)

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    @functools.cached_property
    def added_tokens(self) -> dict[int, str]:
        """The tokens that are matched whole before text is cut up, by id: control tokens, and tags such as <think>."""
        return {number: token.content for number, token in self._tokenizer.get_added_tokens_decoder().items()}

    @functools.cached_property
    def control_tokens(self) -> frozenset[str]:
        """The added tokens that no text may hold: special ones, and tags such as <think>. Added runs of spaces are text."""
        added = self._tokenizer.get_added_tokens_decoder().values()
        return frozenset(
            one.content for one in added if one.content.strip() and (one.special or _TAG.fullmatch(one.content))
        )

    @functools.cached_property
    def end_of_turn_text(self) -> str:
        """The token that the template writes behind an answer. Raises SlimtuneError where it is no added token."""
        probe = (Message("user", "u"), Message("assistant", _ANSWER))
        after = self.render(probe, add_generation_prompt=False).rpartition(_ANSWER)[2].lstrip()
        ends = [token for token in self.added_tokens.values() if after.startswith(token)]
        if not ends:
            what = f"the chat template ends an answer with {after[:20]!r}, which is no control token of the tokenizer"
            fix = "use an instruction-tuned model with its own chat template"
            raise fail(what, where=str(self.directory), fix=fix)
        return max(ends, key=len)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The prompt as inference sees it: history, then the generation prompt."""
        return self.encode(self.render(messages, add_generation_prompt=True))

    def prompt_and_response_ids(self, prompt: Sequence[Message], reference: str) -> tuple[list[int], list[int]]:
        """The prompt as inference sees it, and the response with its end-of-turn token. Raises as `examples` does."""
        conversation = Conversation((*prompt, Message("assistant", reference)))
        text, response = self._split(conversation, as_dicts(conversation.messages), len(prompt))
        return self.encode(text), self.encode(response)

    @functools.cached_property
    def _thinks(self) -> bool:
        """Whether the model thinks before it answers: the generation prompt opens a thought, or may close it."""
        turns = as_dicts([Message("user", "u")])
        on, off = (self._render(turns, "", add_generation_prompt=True, thinking=one) for one in (True, False))
        return rendered.opens_thought(off) or (self.thinking and on != off)

    @functools.cached_property
    def _renders_tools(self) -> Callable[[str], None]:
        """Raises SlimtuneError for tools that the template leaves out. Remembers those that it does not."""

        @functools.lru_cache(maxsize=1024)
        def require(tools: str) -> None:
            turns = as_dicts([Message("user", "u")])
            without, with_them = (self._render(turns, one, add_generation_prompt=True) for one in ("", tools))
            rendered.require_tools(_tools(tools), with_them, without)

        return require

    def examples(self, conversation: Conversation) -> list[Example]:
        """The training examples of a conversation. Raises SlimtuneError where the template does not suit it."""
        return list(self.examples_of([conversation]))

    def excluded_tail(self, conversation: Conversation) -> Example | None:
        """A conversation without any loss, where it ends with excluded turns, which no example holds; else None."""
        if not conversation.messages[-1].excluded:
            return None
        ids = self.encode(self.render(conversation.messages, add_generation_prompt=False, tools=conversation.tools))
        return Example(ids, [IGNORE_INDEX] * len(ids), conversation.where)

    def examples_of(
        self, conversations: Iterable[Conversation], on_progress: Callable[[int, int | None], None] | None = None
    ) -> Iterator[Example]:
        """The training examples of many conversations, in their order, encoded on all cores.

        on_progress: called with the conversations done and, where `conversations` has a length, how many there are.
        Raises SlimtuneError as `examples` does, for the first conversation with a fault.
        """
        total = len(conversations) if isinstance(conversations, Sized) else None
        done = 0
        with ThreadPoolExecutor(max_workers=1) as worker:
            # While a batch becomes examples, the next is encoded: `tokenizers` works without the interpreter's lock.
            begun = (self._begin(some, worker) for some in itertools.chain(_batches(conversations), [[]]))
            for batch, _ in itertools.pairwise(begun):
                yield from _finish(batch)
                done += batch.conversations
                if on_progress:
                    on_progress(done, total)

    @collector_paused()
    def _begin(self, conversations: Sequence[Conversation], worker: ThreadPoolExecutor) -> _Batch:
        examples = [(pieces, one.where) for one in conversations for pieces in self._wholes(one)]
        texts = [text for pieces, _ in examples for piece in pieces for text in piece]
        return _Batch(len(conversations), examples, worker.submit(self._encoder.encode, texts))

    def _wholes(self, conversation: Conversation) -> list[Pieces]:
        """For each example of a conversation its pieces."""
        messages, tools = conversation.messages, conversation.tools
        with rendered.of(conversation.where):
            if tools:
                self._renders_tools(tools)
            for message in messages:
                rendered.require_thinking(message, self.thinking, thinks=lambda: self._thinks)
        turns = as_dicts(messages)
        wholes: list[Pieces] = []
        pending: Pieces = []
        for index, message in enumerate(messages):
            if message.role != "assistant" or message.excluded:
                continue
            prompt, response = self._split(conversation, turns, index)
            written = "".join(before + after for before, after in pending)
            if not prompt.startswith(written):
                # The history looks different from here on: what was gathered is an example of its own.
                wholes.append(pending)
                pending, written = [], ""
            pending.append((prompt[len(written) :], response))
        return [*wholes, pending] if pending else wholes

    def _split(self, conversation: Conversation, turns: Sequence[Mapping[str, Any]], index: int) -> tuple[str, str]:
        """The texts of an assistant's turn: its prompt, and its response with the end-of-turn token."""
        tools, where = conversation.tools, conversation.where
        prompt = self._render(turns[:index], tools, add_generation_prompt=True)
        full = self._render(turns[: index + 1], tools, add_generation_prompt=False)
        if not full.startswith(prompt):
            what = "the chat template renders the answer after another prompt than inference will use"
            fix = "check that model.thinking fits the reasoning in the data and the model's chat template"
            raise fail(what, where=where, fix=fix)
        response, end, _ = full[len(prompt) :].partition(self.end_of_turn_text)
        if not end:
            what = f"the chat template does not end the assistant's turn with {self.end_of_turn_text}"
            raise fail(what, where=where, fix=_OWN_TEMPLATE)
        with rendered.of(where):
            rendered.require_history(conversation.messages[:index], prompt)
            rendered.require_response(conversation.messages[index], response)
        return prompt, response + end

    def markers(self) -> tuple[str, str]:
        """The texts that open a user's and an assistant's turn in this template, for marker-based masking.

        They are what stands before each content of a rendered probe. The assistant's is its generation prompt, with the
        empty think block where the template adds one.
        """
        user, answer, end = "\u27eauser\u27eb", _ANSWER, self.end_of_turn_text
        probe = (Message("user", user), Message("assistant", answer), Message("user", user))
        prompt = self.render(probe[:1], add_generation_prompt=True)
        full = self.render(probe, add_generation_prompt=False)
        instruction = full[full.index(end, full.index(answer)) + len(end) :].partition(user)[0]
        response = prompt[prompt.index(end, prompt.index(user)) + len(end) :]
        return instruction.lstrip("\n"), response.lstrip("\n")


@collector_paused()
def _finish(batch: _Batch) -> list[Example]:
    encoded = iter(batch.encoded.result())
    made = []
    for pieces, where in batch.examples:
        input_ids, labels = b"", b""
        for _ in pieces:
            prompt, response = next(encoded), next(encoded)
            input_ids += prompt + response
            labels += _IGNORED * (len(prompt) // len(_IGNORED)) + response
        made.append(Example(array("i", input_ids), array("i", labels), where))
    return made


def _batches(conversations: Iterable[Conversation]) -> Iterator[list[Conversation]]:
    waiting = iter(conversations)
    while batch := list(itertools.islice(waiting, _ENCODED_AT_ONCE)):
        yield batch


@functools.lru_cache(maxsize=1024)
def _tools(tools: str) -> Any:
    """The list that a template is given; None for no tools."""
    return json.loads(tools) if tools else None


def render_template(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    thinking: bool,
    tools: Any = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """A chat template rendered as Transformers does. Raises SlimtuneError if it is broken or refuses the messages.

    messages: {"role", "content"} each. thinking: the template's `enable_thinking`. variables: `eos_token` and the like.
    """
    from slimtune.data import template_sandbox  # Jinja: not for a command that renders nothing

    values = _values(add_generation_prompt, thinking, tools, variables)
    return template_sandbox.render(template, messages=messages, **values)


def _values(add_generation_prompt: bool, thinking: bool, tools: Any, variables: Mapping[str, str]) -> dict[str, Any]:
    """What a template is given beside the messages."""
    settings = {"add_generation_prompt": add_generation_prompt, "enable_thinking": thinking}
    return {**variables, "tools": tools, "documents": None, **settings}
