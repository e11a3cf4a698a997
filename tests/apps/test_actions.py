"""What the command line and the API share: making and deleting apps and keys."""

import pytest
from tests.apps.installation import Installation

from insula.apps import actions
from insula.errors import NotFound, Unavailable


async def test_a_key_of_an_app_that_is_not_there(insula: Installation) -> None:
    with pytest.raises(NotFound):
        await actions.create_key(insula.database, "app_unknown")
    with pytest.raises(NotFound):
        await actions.revoke_key(insula.database, "app_unknown", "key_unknown")


async def test_a_hook_that_fails_leaves_an_app_that_can_be_deleted_again(
    insula: Installation,
) -> None:
    app_id, key = await insula.create()

    async def busy(_: str) -> None:
        raise Unavailable("A run has not stopped yet.", retry_after=1)

    with pytest.raises(Unavailable):
        await actions.delete_app(insula.database, insula.authenticator, app_id, [busy])
    assert await insula.authenticator(key) is None
    assert (await actions.get_app(insula.database, app_id)).id == app_id
    await actions.delete_app(insula.database, insula.authenticator, app_id)
    with pytest.raises(NotFound):
        await actions.get_app(insula.database, app_id)
