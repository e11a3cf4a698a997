"""Opening the installation's database: the server that the settings name, else the file in the
data folder.
"""

from pathlib import Path

from insula.storage.database import Database
from insula.storage.postgres import open_postgres
from insula.storage.sqlite import open_sqlite
from insula.storage.sqlite_connection import Synchronous

FILE = "insula.db"
READERS = 4


async def open_database(
    url: str | None,
    folder: Path,
    synchronous: Synchronous,
    name: str = "insula",
    readers: int = READERS,
) -> Database:
    """Open the database at the URL; without one, the file in the folder.

    ``name`` is what a server's administrator sees, ``readers`` how many connections read.
    ``synchronous`` FULL: what was told is on the disk. On a server NORMAL leaves it to the server's
    default whether it is.

    Raises:
        DatabaseUnusable: there is none at the URL that this program could use.
        NewerSchema: a later version of the program wrote it.
        ForeignFile: it belongs to another program.
    """
    if url is None:
        return await open_sqlite(folder / FILE, synchronous, readers)
    return await open_postgres(url, readers, name, durable=synchronous == "FULL")
