"""One name for each act, in words, also for the names of earlier releases."""

import re

from core.act_names import ACTS, EARLIER, ActName, act_of, names_of


def test_every_act_has_words_of_its_own() -> None:
    assert list(ACTS) == list(ActName)
    assert len(set(ACTS.values())) == len(ACTS)
    for name, words in ACTS.items():
        assert re.fullmatch(r"[a-z]+_?[a-z]*(\.[a-z]+(_[a-z]+)*)?", name), name
        assert words[0].isupper(), words
        assert words[-1].isalpha(), words


def test_an_earlier_name_is_of_one_act_and_not_of_today() -> None:
    assert not set(EARLIER) & {name.value for name in ActName}


def test_an_act_is_known_by_each_of_its_names() -> None:
    assert act_of("order.refund") is act_of("money_refund") is act_of("orders refund") is ActName.ORDER_REFUND
    assert act_of("something else") is None
    assert names_of("money_refund") == names_of("order.refund") == ("order.refund", "orders refund", "money_refund")
    assert names_of("sign_in") == ("sign_in",)
    assert names_of("something else") == ("something else",)
