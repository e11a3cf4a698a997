"""Nothing that a caller can send makes a 5xx, or leaves something half-written."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workflows.platform import CODE, open_platform

NAMES = """
name description key input input_default input_options steps retention tags_ids enabled open
discoverable caller_limit updated_at version notes force withdrawn type destinations
max_age_in_seconds conditions else provider
"""
names = st.sampled_from(NAMES.split())
texts = st.text(max_size=5) | st.sampled_from(["input", "code", "branch", "model", "sum", "latest"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=4),
    max_leaves=12,
)
bodies = st.dictionaries(names, values, max_size=6)
sendings = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("POST", ""),
                ("POST", "/import"),
                ("PATCH", "/{id}"),
                ("POST", "/{id}/versions"),
                ("POST", "/{id}/rollback"),
                ("PATCH", "/{id}/versions/1"),
                ("POST", "/{id}/duplicate"),
            ]
        ),
        bodies,
    ),
    min_size=5,
    max_size=10,
)


def sendable(body: object) -> bool:
    try:
        str(body).encode()
    except UnicodeEncodeError:
        return False
    return "inf" not in str(body)


@settings(max_examples=12, deadline=None)
@given(sendings)
async def test_arbitrary_bodies_are_answered(sent: list[tuple[tuple[str, str], object]]) -> None:
    with TemporaryDirectory() as folder:
        async with open_platform(Path(folder)) as platform:
            acme = platform.acme
            made = await acme.publish()
            for (method, path), body in sent:
                if not sendable(body):
                    continue
                where = f"/workflows{path.format(id=made['id'])}"
                answer = await acme.ask(method, where, body)
                assert answer.status_code in (200, 400, 404, 409), (method, path, answer.text)
                assert answer.json()
            listed = await acme.ask("GET", "/workflows")
            assert listed.headers["pagination-count"] == str(len(listed.json()))
            found = await platform.globex.ask("GET", "/workflows/discover")
            assert found.headers["pagination-count"] == str(len(found.json()))
            assert (await acme.ask("PATCH", f"/workflows/{made['id']}", {"steps": [CODE]})).json()
