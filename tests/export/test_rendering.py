"""llama.cpp renders and tokenises made-up conversations as training does, or the difference is told for each wish to think."""

import pytest

from slimtune.data.chat_template import ChatTokenizer
from slimtune.export.proof import rendering
from slimtune.export.proof.golden import generated
from slimtune.models import llama_server


@pytest.fixture(scope="module")
def check(build_base, convert_once):
    """(family, tied, outtype, thinking) -> the record for a GGUF that holds the family's template as it is."""

    def run(family, tied, outtype, thinking, template=None):
        folder, (_, path) = build_base(family, tied=tied), convert_once(family, tied, outtype)
        tokenizer = ChatTokenizer(folder, thinking)
        with llama_server.start(path, context_length=64, slots=4) as server:
            return rendering.check(server, tokenizer, template or tokenizer.template, thinking=thinking)

    return run


@pytest.mark.slow
def test_a_model_that_was_trained_to_think_may_be_asked_not_to(check):
    found = check("qwen3", False, "f16", thinking=True)
    assert found.think == {"unset": 200, "true": 200, "false": 200} and found.ids_equal == 200
    assert found.problems("law.gguf") == []


def test_a_template_that_thinks_is_no_template_for_who_was_trained_without(check):
    found = check("qwen3", False, "f16", thinking=False)
    assert found.think == {"unset": 0, "true": 0, "false": 200}
    problems = found.problems("law.gguf")
    assert [problem.what.partition(",")[0] for problem in problems] == [
        "where a client says nothing about thinking",
        "where a client asks with think=true",
    ]
    assert all("</think>" in problem.fix for problem in problems)


@pytest.mark.slow
def test_a_system_prompt_of_the_template_s_own_is_rendered_too(check):
    found = check("qwen2.5", True, "f32", thinking=False)
    assert found.think == {"unset": 200, "true": 200, "false": 200} and found.ids_equal == 200


def test_conversations_are_the_same_each_time_and_of_many_kinds():
    made = generated(200)
    assert made == generated(200) and made != generated(200, seed=1)
    assert {len(one) for one in made} == {1, 2, 3, 4, 5, 6, 7, 8}
    assert all(one[-1].role == "user" and turn.content.strip() for one in made for turn in one)
    text = "".join(turn.content for one in made for turn in one)
    assert all(piece in text for piece in ("\u3000", "\t", "\n\n\n", "🦙", "{{", "契約", "髙"))
