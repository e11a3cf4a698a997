"""The one chain of migrations: ``NNNN_name.<dialect>.sql``, statements that end in ``;`` and a line
break. A migration that has been released never changes: change ``tables.py`` and add the next one;
a test compares the chain with ``tables.py``.
"""
