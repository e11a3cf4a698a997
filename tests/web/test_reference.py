"""The reference is complete: every status, code, header and path of this layer stands in it."""

import re
from pathlib import Path

from insula.kit import json_bounds
from insula.web import body, forms, health, idempotency, openapi, pagination

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"


def test_every_status_is_explained() -> None:
    page = (REFERENCE / "errors.md").read_text()
    documented = set(openapi.READS) | set(openapi.WRITES) | {405}
    assert {int(status) for status in re.findall(r"^\| (\d{3}) \|", page, re.M)} == documented


def test_every_code_is_explained() -> None:
    page = (REFERENCE / "errors.md").read_text()
    modules = (body, forms, health, idempotency, json_bounds, pagination)
    source = "".join(Path(str(module.__file__)).read_text() for module in modules)
    codes = set(re.findall(r'FieldError\(\([^)]*\), "(\w+)"', source))
    codes |= set(re.findall(r'(?:_not_json|OverBounds)\([^\n]*, "(\w+)"\)', source))
    assert {"json", "too_deep", "form", "cursor", "not_ready"} <= codes
    assert [code for code in sorted(codes) if f"| `{code}` |" not in page] == []


def test_every_header_and_path_is_explained() -> None:
    page = (REFERENCE / "http.md").read_text()
    for name in (*pagination.HEADERS, "/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert f"`{name}`" in page
