"""What a draft may be saved with and a version may not be deployed with."""

from insula.engine.document_problems import Problem
from insula.engine.document_steps import Document


def warnings(document: Document) -> list[Problem]:
    """Return what must be mended before a deploy."""
    return []
