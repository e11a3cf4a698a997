"""Answers in JSON."""

from insula.kit.json import Raw
from insula.web.respond import json_answer, null_answer


def test_values_and_bytes() -> None:
    assert json_answer({"a": [1, None], "r": Raw(b"[ ]")}).body == b'{"a":[1,null],"r":[ ]}'
    answer = json_answer(b'{"as":"it is"}', {"x-a": "b"})
    assert answer.body == b'{"as":"it is"}'
    assert (answer.headers["content-type"], answer.headers["x-a"]) == ("application/json", "b")
    assert null_answer().body == b"null"
