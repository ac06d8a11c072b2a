"""The folder of results: published whole or not at all, and never believed without a check."""

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from noisychannel.engine import Store
from noisychannel.errors import CorruptArtifact, MissingArtifact, StoreError

KEY = "ab" + "0" * 30
FILES = {"rows.parquet": b"rows" * 1000, "weights.safetensors": b"\x00\x01\x02"}


def published(root: Path) -> Store:
    store = Store(root)
    store.put(KEY, FILES, '{"task":1}', {"seconds": 1.5})
    return store


def folder(store: Store) -> Path:
    return store.root / "objects" / KEY[:2] / KEY


def one_sentence(error: BaseException) -> None:
    """Short, on one line, with the key and what to do."""
    assert "\n" not in str(error)
    assert str(error).startswith(f"artifact {KEY}: ")


def test_what_was_put_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "root")
    assert not store.has(KEY)
    store.put(KEY, FILES, '{"task":1}', {"seconds": 1.5})
    assert store.has(KEY)
    assert {name: store.read(KEY, name) for name in FILES} == FILES
    assert store.read(KEY, "task.json") == b'{"task":1}'
    assert store.seconds(KEY) == 1.5
    assert list((store.root / "partial").iterdir()) == []
    assert Store(tmp_path / "new" / "root").has(KEY)


def test_the_first_to_publish_stays(tmp_path: Path) -> None:
    store = published(tmp_path)
    store.put(KEY, {"rows.parquet": b"other"}, "{}", {})
    assert store.read(KEY, "rows.parquet") == FILES["rows.parquet"]
    assert list((tmp_path / "partial").iterdir()) == []


def test_clock_times_are_outside_of_the_manifest(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "a"), Store(tmp_path / "b")
    one.put(KEY, FILES, "{}", {"seconds": 1.0, "host": "here"})
    other.put(KEY, FILES, "{}", {"seconds": 2.0, "host": "there"})
    names = {p.name for p in folder(one).iterdir()}
    assert names == {*FILES, "task.json", "manifest.json", "run.json"}
    for name in names - {"run.json"}:
        assert (folder(one) / name).read_bytes() == (folder(other) / name).read_bytes()
    assert "run.json" not in json.loads((folder(one) / "manifest.json").read_bytes())["files"]
    (folder(one) / "run.json").unlink()
    (folder(other) / "run.json").write_text("{")
    assert one.seconds(KEY) == other.seconds(KEY) == 0.0


# ---------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("fail_at", range(7))
def test_a_write_that_fails_publishes_nothing(
    tmp_path: Path, fail_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the k-th flush (4 files, run.json, their folder, the folder above)."""
    store, flushed, fsync = Store(tmp_path), [0], os.fsync

    def full(handle: int) -> None:
        flushed[0] += 1
        if flushed[0] == fail_at + 1:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"cannot be written \(No space left on device\); name a folder"
    ):
        store.put(KEY, FILES, "{}", {})
    monkeypatch.undo()
    whole = fail_at == 6  # renamed already; only its durability is in doubt
    assert store.has(KEY) is whole
    assert folder(store).exists() is whole
    store.put(KEY, FILES, "{}", {})
    assert {name: store.read(KEY, name) for name in FILES} == FILES


def test_everything_is_flushed_before_it_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, events, fsync, rename = Store(tmp_path), [], os.fsync, Path.rename

    def watch(handle: int) -> None:
        events.append("flush")
        fsync(handle)

    def move(self: Path, target: Path) -> Path:
        assert not target.exists()
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(Path, "rename", move)
    store.put(KEY, FILES, "{}", {})
    assert events == ["flush"] * 6 + ["rename", "flush"]


def test_leftovers_of_a_killed_run_are_harmless(tmp_path: Path) -> None:
    store = Store(tmp_path)
    left = tmp_path / "partial" / "tmpabc"
    left.mkdir(parents=True)
    (left / "manifest.json").write_text("{")
    store.check_writable()
    store.put(KEY, FILES, "{}", {})
    assert store.read(KEY, "rows.parquet") == FILES["rows.parquet"]


def test_many_publish_the_same_key_at_once(tmp_path: Path) -> None:
    store, errors = Store(tmp_path), []
    start = threading.Barrier(8)

    def work() -> None:
        try:
            start.wait()
            for i in range(20):
                store.put(f"{i:02d}" + KEY[2:], FILES, "{}", {"worker": threading.get_ident()})
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for i in range(20):
        assert store.read(f"{i:02d}" + KEY[2:], "rows.parquet") == FILES["rows.parquet"]
    assert list((tmp_path / "partial").iterdir()) == []


# ---------------------------------------------------------------- never believed without a check


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def swap_manifest(path: Path) -> None:
    text = json.loads(path.read_bytes())
    text["files"]["rows.parquet"] = "0" * 64
    path.write_text(json.dumps(text))


def forget_file(path: Path) -> None:
    text = json.loads(path.read_bytes())
    del text["files"]["rows.parquet"]
    path.write_text(json.dumps(text))


def newer_format(path: Path) -> None:
    text = json.loads(path.read_bytes())
    path.write_text(json.dumps({**text, "format": text["format"] + 1}))


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("rows.parquet", flip, "rows.parquet does not have the bytes that were written"),
        ("rows.parquet", truncate, "rows.parquet does not have the bytes that were written"),
        ("rows.parquet", empty, "rows.parquet does not have the bytes that were written"),
        ("rows.parquet", Path.unlink, "rows.parquet is gone"),
        ("manifest.json", truncate, "its manifest is damaged"),
        ("manifest.json", empty, "its manifest is damaged"),
        ("manifest.json", lambda p: p.write_bytes(b"\xff\xfe{"), "its manifest is damaged"),
        ("manifest.json", lambda p: p.write_text("[]"), "its manifest is damaged"),
        ("manifest.json", lambda p: p.write_text("null"), "its manifest is damaged"),
        ("manifest.json", lambda p: p.write_text('{"format":1}'), "its manifest is damaged"),
        ("manifest.json", swap_manifest, "does not have the bytes that were written"),
        ("manifest.json", forget_file, "its manifest is damaged"),
        ("manifest.json", newer_format, "it is not of format 1"),
    ],
)
def test_damage_is_refused_in_one_sentence(
    tmp_path: Path, name: str, damage: Callable[[Path], object], sentence: str
) -> None:
    store = published(tmp_path)
    damage(folder(store) / name)
    with pytest.raises(CorruptArtifact, match=sentence) as caught:
        store.read(KEY, "rows.parquet")
    one_sentence(caught.value)
    assert f"delete {folder(store)} and run again" in str(caught.value)


def test_other_files_of_a_damaged_artifact_are_still_read(tmp_path: Path) -> None:
    store = published(tmp_path)
    flip(folder(store) / "rows.parquet")
    assert store.read(KEY, "weights.safetensors") == FILES["weights.safetensors"]


def test_missing_is_not_corrupt(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match=f"not computed yet in {tmp_path}") as caught:
        Store(tmp_path).read(KEY, "rows.parquet")
    one_sentence(caught.value)
    store = published(tmp_path)
    with pytest.raises(MissingArtifact):
        store.read("cd" + KEY[2:], "rows.parquet")
    with pytest.raises(CorruptArtifact, match=r"other.parquet is gone"):
        store.read(KEY, "other.parquet")


def test_an_artifact_without_a_manifest_is_made_again(tmp_path: Path) -> None:
    """`has` says no, so it is recomputed; publishing must then succeed."""
    store = published(tmp_path)
    (folder(store) / "manifest.json").unlink()
    assert not store.has(KEY)
    store.put(KEY, FILES, '{"task":1}', {})
    assert store.read(KEY, "rows.parquet") == FILES["rows.parquet"]


def test_an_artifact_deleted_by_hand_is_made_again(tmp_path: Path) -> None:
    """What the sentence about corruption tells users to do."""
    import shutil

    store = published(tmp_path)
    shutil.rmtree(folder(store))
    assert not store.has(KEY)
    store.put(KEY, FILES, "{}", {})
    assert store.has(KEY)


# ---------------------------------------------------------------- a root that cannot be


@pytest.mark.parametrize("below", ["file", "file/deep/er"])
def test_a_root_that_cannot_be_written(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / below)
    sentence = (
        rf"results folder {tmp_path}/{below}: cannot be written \(.+\); name a folder .* --store"
    )
    for attempt in (store.check_writable, lambda: store.put(KEY, FILES, "{}", {})):
        with pytest.raises(StoreError, match=sentence) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert not store.has(KEY)


def test_a_root_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Store(tmp_path / "file").read(KEY, "rows.parquet")


def test_check_writable_leaves_nothing(tmp_path: Path) -> None:
    Store(tmp_path).check_writable()
    assert [p.name for p in tmp_path.iterdir()] == ["partial"]
    assert list((tmp_path / "partial").iterdir()) == []
