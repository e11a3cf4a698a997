"""Wishes: which pages of a document that was read wholly are shown."""

import pytest

from insula.files.wish import Wish


@pytest.mark.parametrize(
    ("wish", "pages"),
    [
        (Wish(), [1, 2, 3, 4]),
        (Wish(max_pages=2), [1, 2]),
        (Wish(pages=(4, 2, 9)), [2, 4]),
        (Wish(pages=(4, 2, 9), max_pages=1), [4]),
    ],
)
def test_pages_that_are_chosen_are_shown(wish: Wish, pages: list[int]) -> None:
    assert list(filter(wish.shown(), [1, 2, 3, 4])) == pages
