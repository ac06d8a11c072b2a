"""Data sets: names, subsets, readers that agree, and one sentence for everything malformed."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from noisychannel import rng
from noisychannel.data import ArrayData, Dataset, DataSpec, from_arrays, from_uint8, to_uint8
from noisychannel.data.hub import HuggingFace
from noisychannel.data.parquet import ParquetFolder, parquet_files
from noisychannel.data.subset import select
from noisychannel.errors import DataError
from noisychannel.spec import canonical, key

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 5, 4, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]


def encoded(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write(folder: Path, split: str = "test", **columns: list[Any]) -> Path:
    """A folder as the hub stores it: encoded images, labels with names, two shards, small row groups."""
    folder.mkdir(exist_ok=True)
    columns = columns or {
        "image": [{"bytes": encoded(p), "path": None} for p in PIXELS],
        "label": LABELS,
    }
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": ["a", "b", "c", "d"]},
    }
    table = pa.table(columns)
    if list(columns) == ["image", "label"] and isinstance(columns["image"][0], dict):
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    half = len(table) // 2
    for i, part in enumerate((table[:half], table[half:])):
        pq.write_table(part, folder / f"{split}-0000{i}-of-00002.parquet", row_group_size=4)
    return folder


# ---------------------------------------------------------------- pixels
def test_to_uint8_rounds() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(levels)), levels)
    x = torch.linspace(0, 1, 100_001)
    shift = (to_uint8(x).double() - 255 * x.double()).mean()
    assert abs(float(shift)) < 1e-3  # truncation: −0.5
    assert to_uint8(torch.tensor([-0.2, 1.3, 0.9999])).tolist() == [0, 255, 255]


# ---------------------------------------------------------------- digits
def test_digits_split_is_fixed_and_stratified() -> None:
    from sklearn.datasets import load_digits

    train, test = DataSpec("digits", "train").load(), DataSpec("digits", "test").load()
    assert (len(train), len(test)) == (1442, 355)
    whole: Any = load_digits()
    assert torch.equal(
        train.y.bincount() + test.y.bincount(), torch.from_numpy(whole.target).bincount()
    )
    assert bool((test.y.bincount() == torch.from_numpy(whole.target).bincount() // 5).all())
    sevens = torch.from_numpy(whole.images[whole.target == 7] / 16).float()[:, None]
    assert torch.equal(test.x[test.y == 7], sevens[4::5])
    assert torch.equal(test.index, torch.arange(355))
    assert DataSpec("digits").shape == (1, 8, 8)
    assert DataSpec("digits").classes == 10
    assert test.x.dtype == torch.float32


# ---------------------------------------------------------------- subsets
@pytest.mark.parametrize(
    ("subset", "rows"),
    [
        ("all", range(100)),
        ("first:7", range(7)),
        ("every:30", range(0, 100, 30)),
        ("every:5/first:4", range(0, 20, 5)),
        ("first:20/every:7", range(0, 20, 7)),
        ("every:10/at:1,4,9", [10, 40, 90]),
    ],
)
def test_subset(subset: str, rows: Sequence[int]) -> None:
    assert select(np.arange(100) % 10, subset).tolist() == list(rows)


def test_balanced_sample() -> None:
    labels = np.arange(100) % 10
    rows = select(labels, "balanced:43@7")
    assert sorted(np.bincount(labels[rows])) == [4] * 7 + [5] * 3
    assert rows.tolist() == sorted(set(rows.tolist()))
    with rng.root("another task"):
        assert select(labels, "balanced:43@7").tolist() == rows.tolist()
    assert select(labels, "balanced:43@8").tolist() != rows.tolist()
    assert set(select(labels, "every:3/balanced:20@1") % 3) == {0}


def test_parts_tile_a_subset() -> None:
    data = DataSpec("digits", subset="every:3")
    whole = data.load()
    tiles = [
        data.slice(start, min(start + 50, data.size)).load() for start in range(0, data.size, 50)
    ]
    assert torch.equal(torch.cat([t.index for t in tiles]), whole.index)
    assert torch.equal(torch.cat([t.x for t in tiles]), whole.x)
    assert data.slice(10, 30).slice(5, 7).load().index.tolist() == whole.index[15:17].tolist()
    assert data.slice(10, 30).size == 20


@pytest.mark.parametrize(
    "data", [DataSpec("digits"), from_arrays(torch.rand(60, 1, 8, 8), [0, 1] * 30)]
)
def test_chosen_examples_keep_their_names(data: Dataset) -> None:
    part = data.slice(10, 40)
    whole, chosen = part.load(), part.take([0, 3, 29])
    assert chosen.size == 3
    assert torch.equal(chosen.load().x, whole.x[[0, 3, 29]])
    assert chosen.load().index.tolist() == whole.index[[0, 3, 29]].tolist() == [10, 13, 39]
    assert chosen.take([1]).load().index.tolist() == [13]
    assert chosen.slice(1, 3).load().index.tolist() == [13, 39]


@pytest.mark.parametrize("positions", [[], [-1], [30], [3, 3], [3, 0]])
def test_positions_outside_or_twice_are_refused(positions: list[int]) -> None:
    with pytest.raises(DataError, match=r"expected (positions from 0 up to 30|at: with ascending)"):
        DataSpec("digits").slice(10, 40).take(positions).load()


@pytest.mark.parametrize(
    "subset",
    [
        "",
        "first",
        "first:0",
        "every:x",
        "balanced:10",
        "all,first:3",
        "First:3",
        "at:",
        "at:-1",
        "at:1,",
    ],
)
def test_unknown_subset(subset: str) -> None:
    with pytest.raises(
        DataError, match=r"subset: expected all, first:N, every:K, balanced:N@SEED or at:I"
    ):
        DataSpec("digits", subset=subset)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda _: DataSpec("digits", subset="first:356"),
            "expected first:N with N ≤ 355, got first:356",
        ),
        (
            lambda _: DataSpec("digits", subset="balanced:400@1"),
            "balanced:N with N ≤ .*10 classes.*got 400",
        ),
        (lambda d: d.slice(0, 356), "part: expected 0 ≤ start < stop ≤ 355, got 0:356"),
        (lambda d: d.slice(10, 20).slice(5, 11), "slice: expected 0 ≤ start < stop ≤ 10, got 5:11"),
        (lambda d: d.slice(3, 3), "slice: expected 0 ≤ start < stop"),
    ],
)
def test_too_much_asked(make: Callable[[DataSpec], DataSpec], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        make(DataSpec("digits")).load()


# ---------------------------------------------------------------- folders
def test_parquet_and_datasets_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = write(tmp_path / "data")
    files = parquet_files(folder, "test")
    assert files is not None
    ours, theirs = (
        ParquetFolder(files, "image", "label"),
        HuggingFace(str(folder), "test", "image", "label"),
    )
    assert ours.labels().tolist() == theirs.labels().tolist() == LABELS
    assert ours.classes() == theirs.classes() == 4
    rows = np.array([0, 3, 5, 6, 11])
    assert torch.equal(ours.images(rows), theirs.images(rows))
    assert torch.equal(
        to_uint8(ours.images(rows)).permute(0, 2, 3, 1), torch.from_numpy(PIXELS[rows])
    )
    again = HuggingFace(str(folder), "test", "image", "label")
    assert theirs.fingerprint() == again.fingerprint()


def test_folder_by_path_by_name_and_moved_are_one_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "mine")
    by_path = DataSpec(str(folder))
    monkeypatch.setenv("NOISYCHANNEL_DATA", str(tmp_path))
    assert canonical(DataSpec("mine")) == canonical(by_path)
    assert str(tmp_path) not in canonical(by_path)
    before = key(by_path)
    moved = folder.rename(tmp_path / "moved")
    assert key(DataSpec("moved")) == before
    assert key(DataSpec("moved", subset="first:3")) != before
    write(moved, image=[{"bytes": encoded(255 - p), "path": None} for p in PIXELS], label=LABELS)
    assert key(DataSpec("moved")) != before


def test_only_the_asked_images_are_decoded(tmp_path: Path) -> None:
    images = [{"bytes": encoded(p), "path": None} for p in PIXELS]
    images[7] = {"bytes": b"not an image", "path": None}
    data = DataSpec(str(write(tmp_path / "d", image=images, label=LABELS)))
    assert len(data.slice(0, 7).load()) == 7
    with pytest.raises(
        DataError, match=r"image: expected bytes that Pillow decodes .* got b'not an i'"
    ):
        data.load()


def test_gray_and_colour(tmp_path: Path) -> None:
    gray = [{"bytes": encoded(p[..., 0]), "path": None} for p in PIXELS]
    colour = [{"bytes": encoded(p), "path": None} for p in PIXELS]
    assert DataSpec(str(write(tmp_path / "g", image=gray, label=LABELS))).shape == (1, 5, 4)
    mixed = DataSpec(str(write(tmp_path / "m", image=colour[:6] + gray[6:], label=LABELS))).load()
    assert torch.equal(mixed.x[6:], mixed.x[6:, :1].expand(-1, 3, -1, -1))
    with pytest.raises(DataError, match="expected gray like the first one, got mode RGB"):
        DataSpec(str(write(tmp_path / "x", image=gray[:6] + colour[6:], label=LABELS))).load()


def test_columns_of_numbers(tmp_path: Path) -> None:
    series = (PIXELS.reshape(12, -1) / 255).tolist()
    data = DataSpec(
        str(write(tmp_path / "s", series=series, y=LABELS)), image_column="series", label_column="y"
    )
    assert (data.shape, data.classes) == ((1, 60), 3)
    torch.testing.assert_close(data.load().x[:, 0], torch.tensor(series), rtol=0, atol=1e-7)
    whole = DataSpec(str(write(tmp_path / "i", image=PIXELS.tolist(), label=LABELS))).load()
    assert torch.equal(to_uint8(whole.x).permute(0, 2, 3, 1), torch.from_numpy(PIXELS))


BYTES = [{"bytes": encoded(p), "path": None} for p in PIXELS]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"img": BYTES, "label": LABELS}, "expected a column 'image', got img, label; name it by image_column"),
        ({"image": BYTES, "class": LABELS}, "expected a column 'label', got image, class"),
        ({"image": BYTES, "label": list("abcabcabcabc")}, "labels: expected whole numbers.*got string"),
        ({"image": BYTES, "label": [float(y) for y in LABELS]}, "labels: expected whole numbers.*got double"),
        ({"image": BYTES, "label": [None, *LABELS[1:]]}, "a label for every example, got 1 empty"),
        ({"image": BYTES, "label": [-1, *LABELS[1:]]}, "labels: expected 0 … 3, got -1 … 2"),
        ({"image": BYTES, "label": [4, *LABELS[1:]], "named": LABELS}, None),
        ({"image": [{"bytes": encoded(PIXELS[0][:4]), "path": None}, *BYTES[1:]], "label": LABELS},
         r"images: expected one size, got \(3, 4, 4\) and \(3, 5, 4\)"),
        ({"image": (PIXELS * 2.0).tolist(), "label": LABELS}, r"pixels in \[0, 1\], got 0 … 510"),
        ({"image": (PIXELS.astype(int) * 2).tolist(), "label": LABELS}, "whole numbers 0 … 255 or floats"),
        ({"image": [[[[0.5]]]] * 12, "label": LABELS}, None),
        ({"image": [[[[[0.5]]]]] * 12, "label": LABELS}, r"\(h, w, c\) numbers, got shape \(1, 1, 1, 1\)"),
    ],
)  # fmt: skip
def test_malformed_folders(tmp_path: Path, columns: dict[str, Any], sentence: str | None) -> None:
    data = DataSpec(str(write(tmp_path / "d", **columns)))
    if sentence is None:
        assert len(data.load()) == 12
        return
    with pytest.raises(DataError, match=sentence) as caught:
        data.load()
    assert "\n" not in str(caught.value)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    table = pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
    pq.write_table(table, tmp_path / "d" / "test.parquet")
    with pytest.raises(DataError, match="expected at least one example, got none from 'all'"):
        DataSpec(str(tmp_path / "d")).load()


def test_label_beyond_the_named_classes(tmp_path: Path) -> None:
    data = DataSpec(str(write(tmp_path / "d", image=BYTES, label=[4, *LABELS[1:]])))
    with pytest.raises(DataError, match="labels: expected 0 … 3, got 0 … 4"):
        data.load()


def test_splits_of_a_folder(tmp_path: Path) -> None:
    folder = write(write(tmp_path / "d"), "validation")
    assert len(DataSpec(str(folder), "validation").load()) == 12
    with pytest.raises(DataError, match="split: expected one of test, validation, got 'train'"):
        DataSpec(str(folder), "train").load()
    with pytest.raises(DataError, match="split: expected train or test for digits, got 'val'"):
        DataSpec("digits", "val").load()
    bare = tmp_path / "bare"
    bare.mkdir()
    pq.write_table(pa.table({"image": BYTES, "label": LABELS}), bare / "data.parquet")
    assert DataSpec(str(bare), "train").size == 12


def test_unknown_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOISYCHANNEL_DATA", raising=False)
    with pytest.raises(
        DataError, match=r"expected one of digits, a folder.*got 'cifar10'; .*is not set"
    ):
        DataSpec("cifar10").load()
    write(tmp_path / "mine")
    monkeypatch.setenv("NOISYCHANNEL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"expected one of digits, mine, a folder.*got 'cifar10'"):
        DataSpec("cifar10").load()


# ---------------------------------------------------------------- arrays
def test_arrays() -> None:
    x = PIXELS.transpose(0, 3, 1, 2)
    data = from_arrays(x, np.array(LABELS), name="mine", subset="every:2")
    batch = data.load()
    assert torch.equal(to_uint8(batch.x), torch.from_numpy(x[::2].copy()))
    assert batch.index.tolist() == [0, 2, 4, 6, 8, 10]
    assert (data.classes, data.shape, data.size) == (3, (3, 5, 4), 6)
    assert data.slice(1, 3).load().index.tolist() == [2, 4]
    twin = from_arrays(
        torch.from_numpy(x.copy()), torch.tensor(LABELS), name="other", subset="every:2"
    )
    assert twin == data
    assert key(twin) == key(data)
    assert key(from_arrays(255 - x, LABELS, subset="every:2")) != key(data)


def test_arrays_are_copied() -> None:
    x = torch.rand(3, 1, 2, 2)
    data = from_arrays(x, [0, 1, 2])
    before = data.load().x
    x.zero_()
    assert torch.equal(data.load().x, before)


@pytest.mark.parametrize(
    ("x", "y", "sentence"),
    [
        (torch.rand(4, 3, 8, 8) * 2, [0, 1, 2, 3], r"images: expected pixels in \[0, 1\], got"),
        (
            torch.full((4, 3, 8, 8), torch.nan),
            [0, 1, 2, 3],
            r"images: expected pixels in \[0, 1\], got nan",
        ),
        (torch.rand(4, 8, 8, 3), [0, 1, 2, 3], r"use x.permute\(0, 3, 1, 2\)"),
        (
            torch.rand(4, 8),
            [0, 1, 2, 3],
            r"expected \(n, c, h, w\) or series \(n, c, l\), got \(4, 8\)",
        ),
        (
            torch.zeros(4, 1, 2, 2, dtype=torch.int64),
            [0, 1, 2, 3],
            "expected floats .* or uint8.*got torch.int64",
        ),
        (
            torch.rand(4, 1, 2, 2),
            [0.0, 1, 2, 3],
            "labels: expected whole numbers 0 … K−1, got torch.float32",
        ),
        (torch.rand(4, 1, 2, 2), [0, 1, 2], r"labels: expected one per image, \(4,\), got \(3,\)"),
        (torch.rand(4, 1, 2, 2), [0, 1, 2, -3], "labels: expected 0 … 2, got -3 … 2"),
        (
            torch.rand(0, 1, 2, 2),
            torch.zeros(0, dtype=torch.long),
            "at least one example, got none",
        ),
    ],
)
def test_malformed_arrays(x: torch.Tensor, y: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        from_arrays(x, torch.as_tensor(y))


def test_labels_out_of_stated_range() -> None:
    with pytest.raises(DataError, match="labels: expected 0 … 1, got 0 … 2"):
        from_arrays(torch.rand(3, 1, 2, 2), torch.arange(3), classes=2)


def test_both_kinds_are_datasets() -> None:
    data: ArrayData = from_arrays(torch.rand(3, 1, 2, 2), torch.arange(3))
    assert isinstance(data, Dataset)
    assert isinstance(DataSpec("digits"), Dataset)
