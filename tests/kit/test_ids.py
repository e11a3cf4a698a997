"""Ids: their form, their order, and that none comes twice."""

import os
import threading

from insula.kit import ids
from insula.kit.ids import is_id, new_id


def test_an_id_is_its_prefix_and_22_characters() -> None:
    made = new_id("run")
    assert made.startswith("run_")
    assert len(made) == len("run_") + 22
    assert is_id("run", made)
    assert not is_id("work", made)


def test_ids_sort_by_the_time_they_were_made(monkeypatch) -> None:
    made = []
    for second in (1.0, 2.0, 1e9, 1.8e9, 4e9):
        monkeypatch.setattr(ids.time, "time", lambda second=second: second)
        made.append(new_id("run"))
    assert made == sorted(made)


def test_what_has_another_form_is_no_id() -> None:
    good = new_id("file")
    for bad in ("", "file_", good[:-1], good + "1", good[:-1] + "0", good[:-1] + "l", good.upper()):
        assert not is_id("file", bad)


def test_no_id_comes_twice_from_several_threads() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def make(into: list[str]) -> None:
        into.extend(new_id("run") for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({one for part in made for one in part}) == 8_000


def test_a_forked_process_makes_other_ids(monkeypatch) -> None:
    monkeypatch.setattr(ids.time, "time", lambda: 1.0)
    new_id("run")
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sink, new_id("run").encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(source, 100).decode()
    os.close(source)
    os.close(sink)
    assert is_id("run", theirs)
    assert theirs != new_id("run")
