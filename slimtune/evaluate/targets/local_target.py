"""A model in this process as an evaluation target: letter probabilities, replies and likelihoods from its weights."""

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from slimtune.core.errors import DOES_NOT_FIT, fail
from slimtune.data.chat_template import ChatTokenizer
from slimtune.data.records import Message
from slimtune.data.text import thought_and_answer
from slimtune.evaluate.targets.prefixes import FEWEST_OF_ALL, Group, common_length, group_by_prefix
from slimtune.evaluate.targets.served import ids_sha256, single_tokens
from slimtune.evaluate.targets.target import Ability, Facts, Letters, Likelihood, Piece, Prompt, Reply, Sampling
from slimtune.evaluate.targets.text_stops import AnswerLineStop
from slimtune.models import families

# Share of the free memory under the limit for a batch's key-value cache; attention needs the rest.
_SHARE_FOR_CACHE = 0.5
# Rows of hidden states that pass through the head at once when likelihoods are computed.
_HEAD_ROWS = 256


class LocalTarget:
    """A causal language model that Unsloth or Transformers has loaded, with or without an adapter.

    model: put into evaluation mode for each call, and back afterwards. precision: of the forward passes. max_length:
    tokens of prompt and reply together. memory_limit_bytes: on a card, what the allocator may hold. share_prefixes:
    compute what consecutive prompts have in common once, through the key-value cache. generating: what makes the model
    ready to generate and undoes that (`backend.generating` for one that Unsloth loaded).
    """

    abilities: frozenset[Ability] = frozenset({"score", "generate", "likelihood"})

    def __init__(
        self,
        model: Any,
        tokenizer: ChatTokenizer,
        *,
        facts: Facts,
        precision: torch.dtype,
        batch_size: int,
        max_length: int,
        memory_limit_bytes: int | None = None,
        share_prefixes: bool = False,
        generating: Callable[[Any], AbstractContextManager[None]] = contextlib.nullcontext,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.batch_size = batch_size
        self._facts = facts
        self._precision = precision
        self._max_length = max_length
        self._limit = memory_limit_bytes
        self._share = share_prefixes
        self._generating = generating
        self._spelled: dict[str, list[int]] = {}
        self._beginning: _Beginning | None = None

    def facts(self) -> Facts:
        return self._facts

    def close(self) -> None:
        """Nothing to do: the caller owns the model."""

    @contextlib.contextmanager
    def expecting(self, prompts: Sequence[Prompt]) -> Iterator[None]:
        """Within it, the beginning that all prompts have in common (system prompt, examples, instruction) is computed once.

        The model must stay as it is meanwhile: another adapter has other keys and values.
        """
        ids = self._common_beginning(prompts) if self._share else []
        if ids:
            with self._evaluating():
                self._beginning = _Beginning(ids, self._cached(ids))
        try:
            yield
        finally:
            self._beginning = None

    def score(self, prompts: Sequence[Prompt]) -> list[Letters]:
        """Raises SlimtuneError for a prompt that leaves no room for an answer, or a label that no token spells."""
        ids = [self._prompt_ids(prompt, room=1) for prompt in prompts]
        spelled = {label: self._tokens_of(label) for prompt in prompts for label in prompt.labels}
        with self._evaluating():
            logprobs = torch.log_softmax(self._next_token_logits(ids), dim=-1)
        greedy = logprobs.argmax(dim=-1).tolist()
        by_label = {label: torch.logsumexp(logprobs[:, tokens], dim=-1).tolist() for label, tokens in spelled.items()}
        return [
            Letters(
                logprobs={label: by_label[label][row] for label in prompt.labels},
                greedy_text=self.tokenizer.decode([greedy[row]]),
                greedy_token=greedy[row],
                prompt_sha256=ids_sha256(own),
            )
            for row, (prompt, own) in enumerate(zip(prompts, ids, strict=True))
        ]

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Reply]]:
        """Replies of each prompt. The same batch with the same seed gives the same replies.

        Raises SlimtuneError where a prompt leaves no room for `max_new_tokens`, or a single reply does not fit on the card.
        """
        ids = [self._prompt_ids(prompt, room=sampling.max_new_tokens) for prompt in prompts]
        labels = sorted({label for prompt in prompts for label in prompt.labels})
        results: list[list[Reply]] = []
        with self._generating(self.model), self._evaluating():
            start, size = 0, self._rows_that_fit(max(map(len, ids)) + sampling.max_new_tokens, sampling.replies)
            while start < len(ids):
                try:
                    results += self._generate(ids[start : start + size], sampling, labels)
                except torch.OutOfMemoryError:
                    if size == 1:
                        asked = f"{sampling.replies} replies of {sampling.max_new_tokens} tokens to one prompt"
                        fix = "ask for fewer votes or fewer new tokens (max_new_tokens)"
                        raise fail(f"out of memory generating {asked}", fix=fix, exit_code=DOES_NOT_FIT) from None
                    torch.cuda.empty_cache()
                    size = max(1, size // 2)
                    continue
                start += size
        return results

    def stream(self, messages: Sequence[Message], sampling: Sampling) -> Generator[Piece, None, None]:
        """The thought, then the answer, once both are complete."""
        ((reply,),) = self.generate([Prompt(tuple(messages))], sampling)
        thought, answer = thought_and_answer(reply.text)
        if thought:
            yield Piece(thought.strip(), thought=True)
        yield Piece(answer.lstrip() if thought else answer, cut=reply.truncated)

    def room(self, messages: Sequence[Message]) -> int:
        return self._max_length - len(self.tokenizer.prompt_ids(messages))

    def likelihood(self, prompts: Sequence[Prompt], references: Sequence[str]) -> list[Likelihood]:
        """Of each reference as the template ends it: the tokens that training supervises, end of turn included."""
        pairs = [
            self.tokenizer.prompt_and_response_ids(prompt.messages, reference)
            for prompt, reference in zip(prompts, references, strict=True)
        ]
        for prompt_ids, response_ids in pairs:
            self._require_room(len(prompt_ids) + len(response_ids), 0)
        with self._evaluating():
            hidden = self._hidden([[*prompt_ids, *response_ids] for prompt_ids, response_ids in pairs])
            results = []
            for row, (prompt_ids, response_ids) in enumerate(pairs):
                # The hidden state before a token is what predicts it.
                states = hidden[row, len(prompt_ids) - 1 : len(prompt_ids) + len(response_ids) - 1]
                wanted = torch.tensor(response_ids, device=states.device)
                nll = sum(
                    float(torch.nn.functional.cross_entropy(self._head(some), tokens, reduction="sum"))
                    for some, tokens in zip(states.split(_HEAD_ROWS), wanted.split(_HEAD_ROWS), strict=True)
                )
                results.append(Likelihood(nll, len(response_ids)))
        return results

    # ---- how ---------------------------------------------------------------------------------------------------------

    def _prompt_ids(self, prompt: Prompt, room: int) -> list[int]:
        ids = self.tokenizer.prompt_ids(prompt.messages)
        self._require_room(len(ids), room)
        return ids

    def _require_room(self, tokens: int, room: int) -> None:
        if tokens + room > self._max_length:
            reply = f" and {room} for the reply" if room else ""
            raise fail(
                f"{tokens} tokens{reply} are more than the {self._max_length} that the model is loaded for",
                fix="raise model.max_seq_length (--max-length), or shorten the question",
            )

    def _tokens_of(self, label: str) -> list[int]:
        """Ids of the single tokens that spell a label."""
        if label not in self._spelled:
            found = sorted(single_tokens(label, self.tokenizer.encode))
            if not found:
                raise fail(f"no single token spells the label '{label}'", fix="use letters as labels")
            self._spelled[label] = found
        return self._spelled[label]

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        was_training = self.model.training
        autocast = torch.autocast(self._device.type, dtype=self._precision, enabled=self._precision != torch.float32)
        if was_training:
            self.model.eval()
        try:
            with torch.no_grad(), autocast:
                yield
        finally:
            if was_training:
                self.model.train()

    @property
    def _inner(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def _device(self) -> torch.device:
        # Not the embedding's: that one may live in the computer's memory.
        device: torch.device = self._inner.lm_head.weight.device
        return device

    def _head(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._inner.lm_head(hidden)
        return logits.float()

    def _hidden(self, rows: Sequence[Sequence[int]], past: Any = None) -> torch.Tensor:
        """Last hidden states (rows, longest, hidden size) of rows padded on the right.

        Under causal attention that padding cannot reach a row's own tokens, whatever an attention backend does with masks.
        """
        input_ids = torch.zeros((len(rows), max(map(len, rows))), dtype=torch.long)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = torch.tensor(row)
        more = {} if past is None else {"past_key_values": past}
        output = self._inner.model(input_ids=input_ids.to(self._device), use_cache=past is not None, **more)
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _next_token_logits(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits (rows, vocabulary) of the token after each row, fp32.

        The head sees only the last positions: a batch never holds (rows × length × vocabulary) logits.
        """
        groups = group_by_prefix(rows) if self._share else [Group(tuple(range(len(rows))), 0)]
        last: dict[int, torch.Tensor] = {}
        for group in self._from_the_beginning(groups, rows):
            past = None
            if group.shared:
                past = self._cached(rows[group.members[0]][: group.shared])
                past.batch_repeat_interleave(len(group.members))
            rests = [rows[index][group.shared :] for index in group.members]
            hidden = self._hidden(rests, past)
            last |= {index: hidden[row, len(rests[row]) - 1] for row, index in enumerate(group.members)}
        return self._head(torch.stack([last[index] for index in range(len(rows))]))

    def _from_the_beginning(self, groups: Sequence[Group], rows: Sequence[Sequence[int]]) -> Iterator[Group]:
        """The groups, those that share nothing among themselves sharing the common beginning."""
        for group in groups:
            if group.shared or self._beginning is None:
                yield group
                continue
            # One token has to be left to read the answer at.
            with_it = tuple(index for index in group.members if self._beginning.begins(rows[index][:-1]))
            without = tuple(index for index in group.members if index not in with_it)
            split = (Group(with_it, len(self._beginning.ids)), Group(without, 0))
            yield from (part for part in split if part.members)

    def _cached(self, ids: Sequence[int]) -> Any:
        """The key-value cache of a prefix, one row, to be filled further; from the common beginning where it has it."""
        from transformers import DynamicCache

        start, past = 0, DynamicCache(config=self._inner.config)
        if self._beginning is not None and self._beginning.begins(ids):
            start, past = len(self._beginning.ids), copy.deepcopy(self._beginning.past)
        if start < len(ids):
            self._hidden([ids[start:]], past)
        return past

    def _common_beginning(self, prompts: Sequence[Prompt]) -> list[int]:
        """The first tokens of all prompts' texts in common; [] where these are too few to gain anything."""
        if len(prompts) < 2:
            return []
        texts = [self.tokenizer.render(prompt.messages, add_generation_prompt=True) for prompt in prompts]
        first, last = min(texts), max(texts)  # what these have in common, all have
        shared = self.tokenizer.encode(first[: common_length(first, last, len(first))])
        # The last token of a text may differ when the text continues.
        ids = shared[: common_length(shared, self.tokenizer.encode(first), len(shared) - 1)]
        return ids if len(ids) >= FEWEST_OF_ALL else []

    def _generate(self, rows: Sequence[Sequence[int]], sampling: Sampling, labels: Sequence[str]) -> list[list[Reply]]:
        from transformers import GenerationConfig, StoppingCriteriaList

        ends = [end for token in families.end_tokens() if (end := self.tokenizer.token_id(token)) is not None]
        width = max(map(len, rows))
        input_ids = torch.tensor([[ends[-1]] * (width - len(row)) + list(row) for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        drawing = sampling.temperature > 0
        # A fresh configuration: the checkpoint's own may sample, or penalise repetition.
        config = GenerationConfig(
            do_sample=drawing,
            max_new_tokens=sampling.max_new_tokens,
            num_return_sequences=sampling.replies,
            eos_token_id=ends,
            pad_token_id=ends[-1],
            use_cache=True,
            **({"temperature": sampling.temperature, "top_p": sampling.top_p} if drawing else {}),
        )
        stop = AnswerLineStop(self.tokenizer, width, labels) if sampling.stop_at_answer and labels else None
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(_seed(sampling.seed, rows))
            output = self.model.generate(
                input_ids=input_ids.to(self._device),
                attention_mask=mask.to(self._device),
                generation_config=config,
                stopping_criteria=StoppingCriteriaList([stop] if stop else []),
            )
        replies = [self._reply(row, ends, stop) for row in output[:, width:].tolist()]
        return [replies[start : start + sampling.replies] for start in range(0, len(replies), sampling.replies)]

    def _reply(self, ids: Sequence[int], ends: Sequence[int], stop: AnswerLineStop | None) -> Reply:
        end = next((position for position, token in enumerate(ids) if token in ends), None)
        text = self.tokenizer.decode(ids[:end])
        ended = end is not None or (stop is not None and stop.ends(text))
        return Reply(text, tokens=len(ids[:end]), truncated=not ended)

    def _rows_that_fit(self, tokens: int, replies: int) -> int:
        """Prompts of one batch whose key-value cache the card can hold; all of a batch on a CPU."""
        if self._device.type != "cuda" or self._limit is None:
            return self.batch_size
        config = self._inner.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        width = 2 if self._precision != torch.float32 else 4
        # Keys and values of every layer.
        per_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * width
        free = _SHARE_FOR_CACHE * max(0, self._limit - torch.cuda.memory_allocated())
        return max(1, min(self.batch_size, math.floor(free / (per_token * tokens * replies))))


@dataclass(frozen=True)
class _Beginning:
    """ids: of the tokens that all prompts begin with. past: their key-value cache, one row."""

    ids: list[int]
    past: Any

    def begins(self, row: Sequence[int]) -> bool:
        return list(row[: len(self.ids)]) == self.ids


def _seed(seed: int, rows: Sequence[Sequence[int]]) -> int:
    """The seed of a batch depends on its prompts, so a resumed evaluation samples the same replies."""
    return int.from_bytes(hashlib.sha256(repr((seed, rows)).encode()).digest()[:4], "big")
