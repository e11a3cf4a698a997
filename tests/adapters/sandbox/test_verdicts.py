"""What a worker sent, checked before anybody else reads it."""

import pytest
from tests.effort import costing_at_most

from insula.adapters.sandbox.verdicts import Broken, checked_output


@pytest.mark.parametrize("number", [b"1" * 299, b"-1.5e99", b"1" * 300, b"0." + b"1" * 400])
def test_large_numbers_that_parsers_take(number: bytes) -> None:
    assert bytes(checked_output(b"[%s]" % number)) == b"[%s]" % number


@pytest.mark.parametrize("number", [b"9" * 5_000, b"1e999", b"1E+400"])
def test_numbers_that_they_do_not(number: bytes) -> None:
    with pytest.raises(Broken):
        checked_output(b"[1,%s]" % number)


def test_long_numbers_are_looked_at_once() -> None:
    output = b"[" + b",".join([b"1" * 299] * 3_500) + b"]"
    with costing_at_most(40):
        checked_output(output)
