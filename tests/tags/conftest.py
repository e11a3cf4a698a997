"""The installation that the tests of this folder stand on, over each of the databases."""

from tests.collections.conftest import kind, platform, settings

__all__ = ["kind", "platform", "settings"]
