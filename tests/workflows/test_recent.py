"""The memory keeps its bounds, and what was used last."""

from collections import OrderedDict

from hypothesis import given, settings
from hypothesis import strategies as st

from insula.workflows.recent import Recent

MOST, HEAVIEST = 3, 10
operations = st.lists(
    st.tuples(st.sampled_from(["get", "put", "drop"]), st.integers(0, 5), st.integers(1, 12)),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(operations)
def test_it_behaves_like_its_model(steps: list[tuple[str, int, int]]) -> None:
    recent: Recent[int, int] = Recent(MOST, HEAVIEST, lambda value: value)
    model: OrderedDict[int, int] = OrderedDict()
    for verb, key, value in steps:
        if verb == "get":
            assert recent.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        else:
            model.pop(key, None)
            if verb == "drop":
                recent.drop(key)
                continue
            recent.put(key, value)
            if value <= HEAVIEST:
                model[key] = value
            while len(model) > MOST or sum(model.values()) > HEAVIEST:
                model.popitem(last=False)
        assert len(recent) == len(model)
        assert recent.weight == sum(model.values())


def test_without_weights_only_the_number_counts() -> None:
    recent: Recent[int, str] = Recent(2)
    for key in range(3):
        recent.put(key, "x")
    assert [recent.get(key) for key in range(3)] == [None, "x", "x"]
