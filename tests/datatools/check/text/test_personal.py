from __future__ import annotations

import pytest

from slimtune.datatools.check.text.secrets import is_card, is_my_number, private_findings


def test_check_digit_of_my_number() -> None:
    # 1·6+2·5+3·4+4·3+5·2+6·7+7·6+8·5+9·4+0·3+1·2 = 212 = 19·11 + 3, and 11 - 3 = 8.
    assert is_my_number("123456789018")
    assert not any(is_my_number(f"12345678901{digit}") for digit in "012345679")


def test_check_digit_of_cards() -> None:
    assert is_card("4539578763621486")
    assert not is_card("4539578763621487")
    assert not is_card("9539578763621486")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("マイナンバーは123456789018です。", "a My Number"),
        ("番号 1234-5678-9018 を書く。", "a My Number"),
        ("カード 4539-5787-6362-1486", "a credit card number"),
        ("カード 4539578763621486", "a credit card number"),
        ("電話は090-8172-6354です。", "a telephone number"),
        ("電話 03-0172-8746", "a telephone number"),
        ("電話 0467-21-8746", "a telephone number"),
        ("宛先 taro.yamada@kaisha.co.jp まで", "an e-mail address"),
        ("宛先:yamada@gmail.com。", "an e-mail address"),
    ],
)
def test_each_kind(text: str, name: str) -> None:
    (finding,) = private_findings(text, "the prompt", "f:1")
    assert finding.what.startswith(f"the prompt contains what looks like {name}, '")
    assert finding.what.endswith("…'")
    assert len(finding.what.rsplit("'", 2)[1]) == 5


@pytest.mark.parametrize(
    "text",
    [
        "番号は123456789018です。",
        "マイナンバーは123456789012です。",
        "カード 4111 1111 1111 1111",
        "カード 4539-5787-6362-1487",
        "1234567890123456",
        "090-1234-5678",
        "03-0000-0000",
        "0120-444-113",
        "2024-01-02-0304",
        "昭和22年法律第54号、2023-04-01",
        "info@example.com, a@b.example.org, x@y.invalid",
        "git@github.com:a/b.git",
        "@app.route を使う",
        "12345678 と 1.12345678",
    ],
)
def test_other_numbers_and_addresses(text: str) -> None:
    assert not list(private_findings(text, "the prompt", "f:1"))
