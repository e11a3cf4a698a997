"""Everything that is wrong with a body, at once."""

from dataclasses import dataclass

from insula.engine.document_steps import Document


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where, which rule, and what to do about it."""

    path: tuple[str, ...]
    code: str
    message: str


def check(body: object) -> tuple[Document | None, list[Problem]]:
    """Return the document, or everything that is wrong with the body."""
    return Document.model_validate(body), []
