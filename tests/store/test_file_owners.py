"""Files of a store and a spool where others may write: whose they are, and where links lead."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from otel_metadata.errors import ConfigurationError, StoreFormatError
from otel_metadata.spool.file import check_place
from otel_metadata.spool.spool_settings import SpoolSettings
from otel_metadata.store.sqlite.file import create_private_file, placed_by_another
from otel_metadata.store.sqlite.store import SqliteStore

pytestmark = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only the superuser can give files to other users"
)

ANOTHER, THIRD = 4_242, 4_343


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """Return a directory as /tmp is."""
    path = tmp_path / "public"
    path.mkdir()
    path.chmod(0o1777)
    return path


def link(at: Path, target: Path | str, owner: int = 0) -> Path:
    """Make a link that belongs to *owner*."""
    at.symlink_to(target)
    os.chown(at, owner, owner, follow_symlinks=False)
    return at


def mode_of(path: Path) -> int:
    """Return the mode of a file."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("hops", [1, 3])
@pytest.mark.parametrize("is_relative", [True, False])
def test_a_store_behind_a_link_that_leads_to_nothing_yet_is_private(
    tmp_path: Path, hops: int, is_relative: bool
) -> None:
    """The file that is made has mode 0600, whatever the umask, as one that is named directly."""
    target = tmp_path / "data" / "spans.db"
    target.parent.mkdir()
    name = link(tmp_path / "link", os.path.relpath(target, tmp_path) if is_relative else target)
    for hop in range(hops - 1):
        name = link(tmp_path / f"link{hop}", name.name)
    before = os.umask(0)
    try:
        store = SqliteStore(str(name))
        store.write_rows([])
    finally:
        os.umask(before)

    assert mode_of(target) == 0o600
    assert name.is_symlink()
    assert {mode_of(one) for one in target.parent.iterdir()} == {0o600}
    store.close()


@pytest.mark.parametrize("place", ["file", "link", "dangling link", "link to a directory", "link behind a link"])
def test_what_another_user_put_where_everybody_may_is_refused(tmp_path: Path, public: Path, place: str) -> None:
    """Nothing is written: it would be read there, or go where that user wants it."""
    aim = tmp_path / "aim"
    aim.mkdir()
    (aim / "there").touch()
    named = public / "spans.db"
    if place == "file":
        named.touch(0o666)
        os.chown(named, ANOTHER, ANOTHER)
    elif place == "link to a directory":
        named = link(public / "data", aim, ANOTHER) / "spans.db"
    else:
        foreign = link(public / "spans.db", aim / ("new" if place == "dangling link" else "there"), ANOTHER)
        named = link(tmp_path / "ours", foreign) if place == "link behind a link" else foreign

    with pytest.raises(StoreFormatError, match=f"belongs to user {ANOTHER}, in a directory that everybody may write"):
        SqliteStore(str(named), create=True).write_rows([])

    assert [one.name for one in aim.iterdir()] == ["there"]
    assert not (aim / "there").stat().st_size


@pytest.mark.parametrize(
    "place", ["ours", "private", "volume", "link in a private directory", "data directory", "root"]
)
def test_usual_places_are_taken(tmp_path: Path, public: Path, place: str) -> None:
    """A file of ours in /tmp, another user's volume in a container, and links in directories of their owner."""
    named = public / "spans.db"
    if place == "ours":
        named.touch(0o600)
    elif place == "private":
        named = tmp_path / "spans.db"
        named.touch()
        os.chown(named, ANOTHER, ANOTHER)
    elif place == "volume":  # as `chmod 777` makes them
        os.chown(public, ANOTHER, ANOTHER)
        named.touch()
        os.chown(named, ANOTHER, ANOTHER)
    elif place == "link in a private directory":
        named = link(tmp_path / "spans.db", tmp_path / "other.db", ANOTHER)
    else:
        (tmp_path / "data").mkdir()
        named = link(public / "data", tmp_path / "data") / "spans.db"

    create_private_file(str(named))

    assert named.is_file()


def test_a_link_to_itself_is_no_endless_way(tmp_path: Path) -> None:
    """It cannot be opened, and that is told."""
    assert placed_by_another(str(link(tmp_path / "a", "a"))) is None


@pytest.mark.parametrize("is_linked", [True, False])
def test_a_spool_in_a_directory_of_another_user_is_refused(tmp_path: Path, public: Path, is_linked: bool) -> None:
    """Its owner could read what waits and put other files there, though its mode is 0700."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    os.chown(folder, ANOTHER, ANOTHER)
    named = link(public / "spool", folder) if is_linked else folder

    with pytest.raises(ConfigurationError, match=rf"belongs to user {ANOTHER}\. .* chown 0 {named}"):
        check_place(SpoolSettings(str(named / "spool.db")))

    assert list(folder.iterdir()) == []


def test_a_spool_behind_another_users_link_is_refused(tmp_path: Path, public: Path) -> None:
    """That user chooses the directory, and may choose another one tomorrow."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    named = link(public / "spool", folder, ANOTHER)

    with pytest.raises(ConfigurationError, match=f"{named} belongs to user {ANOTHER}"):
        check_place(SpoolSettings(str(named / "spool.db")))


def test_a_spool_behind_a_link_of_ours_is_taken(tmp_path: Path, public: Path) -> None:
    """As a data directory that is kept elsewhere."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)

    check_place(SpoolSettings(str(link(public / "spool", folder) / "spool.db")))
