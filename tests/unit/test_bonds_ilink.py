"""Where iLink's sign-ins are kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.channels.wechat.ilink_bonds import Bond, Bonds, FolderBonds, ShelfBonds
from gateway.channels.wechat.ilink_window import Window
from gateway.errors import StoreUnavailable
from gateway.stores.memory import MemoryStore
from gateway.testing import ManualClock

NOW = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
BASE = "https://ilinkai.weixin.qq.com"


@pytest.fixture(params=["folder", "shelf"])
def bonds(request: pytest.FixtureRequest, tmp_path: Path) -> Bonds:
    if request.param == "folder":
        return FolderBonds(tmp_path / "bonds", base_url=BASE)
    return ShelfBonds(channel="wechat", shelf=MemoryStore().shelf, clock=ManualClock(), base_url=BASE)


def bond(person: str = "p", token: str = "t1", minute: int = 0) -> Bond:
    return Bond(user_id=person, bot_id="b", token=token, base_url=BASE, bound_at=NOW + timedelta(minutes=minute))


async def test_at_first_there_is_nobody(bonds: Bonds) -> None:
    assert await bonds.all() == []


async def test_what_is_kept_comes_back_the_oldest_first(bonds: Bonds) -> None:
    younger = bond("a", minute=1)
    older = bond("z").model_copy(update={"cursor": "c", "windows": {"z": Window(token="w", heard_at=NOW, sent=3)}})
    await bonds.bind(younger)
    await bonds.bind(older)

    assert await bonds.all() == [older, younger]


async def test_progress_is_kept(bonds: Bonds) -> None:
    await bonds.bind(bond())
    await bonds.update(bond().model_copy(update={"cursor": "c2", "stale": True}))
    [kept] = await bonds.all()
    assert (kept.cursor, kept.stale) == ("c2", True)


async def test_progress_under_an_old_token_does_not_undo_a_new_sign_in(bonds: Bonds) -> None:
    await bonds.bind(bond(token="t1"))
    await bonds.bind(bond(token="t2", minute=5))
    await bonds.update(bond(token="t1").model_copy(update={"cursor": "late", "stale": True}))
    [kept] = await bonds.all()
    assert (kept.token, kept.cursor, kept.stale) == ("t2", "", False)


def test_a_bond_does_not_print_its_token() -> None:
    assert "t1" not in repr(bond()) + repr(bond().place)


async def test_sign_ins_of_another_server_are_not_looked_at(tmp_path: Path) -> None:
    await FolderBonds(tmp_path, base_url="http://127.0.0.1:1").bind(bond())
    assert await FolderBonds(tmp_path, base_url=BASE).all() == []


async def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        await FolderBonds(tmp_path / "file", base_url=BASE).bind(bond())
