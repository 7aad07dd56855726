"""The language of a text by its script, and of one in Latin letters by its commonest words."""

import pytest

from slimtune.data.languages import language, spoken

JAPANESE = "日本の法令に関する次の問題に答えてください。"
ENGLISH = "Please answer the following question about the law."
CHINESE = "請問根據日本法律未成年人締結契約時是否需要法定代理人的事先同意才能生效"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (JAPANESE, "Japanese"),
        (ENGLISH, "Latin script"),
        (CHINESE, "Chinese (no kana)"),
        ("이 질문에 대답해 주세요. 한국의 수도는 어디입니까? 알려 주세요.", "Korean"),
        ("Ответьте на следующий вопрос о праве.", "Cyrillic script"),
        ("a", None),
        ("民法第百条", None),
        ("```python\nimport os, sys, json, random, collections\n```", None),
        ("https://www.e-gov.go.jp/laws/a/b/c/d/e/f", None),
        ("Python の list comprehension を使う", None),
    ],
)
def test_language(text, expected):
    assert language(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ENGLISH, "Latin script"),  # two of its words are too few
        ("What is the capital of the country that lies to the north of this river?", "English"),
        ("Was ist die Hauptstadt von dem Land, das sich nicht auf der Karte zeigt?", "German"),
        ("Quelle est la capitale du pays qui se trouve au nord, et que dit le texte sur les lois?", "French"),
        ("¿Cuál es la capital del país que está en el norte y por qué se llama así?", "Spanish"),
        ("Qual è la capitale della regione che si trova nel nord, e come si chiama il fiume?", "Italian"),
        (JAPANESE, "Japanese"),
        ("a", None),
    ],
)
def test_languages_of_one_script(text, expected):
    assert spoken(text) == expected
