"""Series: files of both layouts become one batch in [0, 1], labels are the train file's, and raw units come back."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from noisychannel.data import DataSpec, Range, series_range
from noisychannel.errors import DataError
from noisychannel.networks import Normalize
from noisychannel.spec import key

TRAIN = [[-1.0, 0.0, 3.0], [0.5, 1.0, 2.0], [0.0, 0.0, 1.0], [2.0, -0.5, 0.25]]
TEST = [[-1.5, 0.0, 4.5], [0.0, -2.5, 1.0]]
LOW, HIGH = -2.0, 4.0  # −1 … 3 widened by a quarter of 4

HEADER = """# a comment
@problemName Toy
@timeStamps false
@missing false
@classLabel true a b
@data
"""


def tsv(series: list[list[float]], labels: list[str]) -> str:
    rows = zip(labels, series, strict=True)
    return "".join("\t".join([label, *map(str, x)]) + "\n" for label, x in rows)


def ts(series: list[list[list[float]]], labels: list[str], header: str = HEADER) -> str:
    lines = (
        ":".join([*(",".join(map(str, part)) for part in x), label])
        for x, label in zip(series, labels, strict=True)
    )
    return header.replace("a b", " ".join(sorted(set(labels)))) + "\n".join(lines) + "\n"


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def toy(folder: Path, test_labels: tuple[str, ...] = ("1", "-1")) -> str:
    put(folder / "Toy_TRAIN.tsv", tsv(TRAIN, ["1", "-1", "1", "-1"]))
    put(folder / "Toy_TEST.tsv", tsv(TEST, list(test_labels)))
    return str(folder / "Toy")


# ---------------------------------------------------------------- range and labels
def test_one_affine_map_from_the_train_file(tmp_path: Path) -> None:
    name = toy(tmp_path)
    assert series_range(name) == Range(LOW, HIGH)
    train, test = DataSpec(name, "train").load(), DataSpec(name, "test").load()
    wanted = (torch.tensor(TRAIN, dtype=torch.float64) + 2) / 6
    assert train.x.dtype == torch.float32
    torch.testing.assert_close(train.x[:, 0].double(), wanted, rtol=0, atol=1e-7)
    clipped = torch.tensor([[-1.5, 0.0, 4.0], [0.0, -2.0, 1.0]])
    torch.testing.assert_close(test.x[:, 0], (clipped + 2) / 6, rtol=0, atol=1e-7)


def test_raw_units_come_back(tmp_path: Path) -> None:
    name = toy(tmp_path)
    low, high = series_range(name)
    x = DataSpec(name, "train").load().x
    raw = Normalize((-low / (high - low),), (1 / (high - low),))(x)
    torch.testing.assert_close(raw[:, 0], torch.tensor(TRAIN), rtol=0, atol=1e-6)
    distortion = (high - low) * float((x[0] - x[1]).norm())
    assert distortion == pytest.approx(float(np.linalg.norm(np.subtract(*TRAIN[:2]))), abs=1e-6)


@pytest.mark.parametrize(
    ("train", "test", "numbers"),
    [
        (["1", "-1", "1", "-1"], ["1", "-1"], [1, 0]),
        (["1.0", "2", "10", "2"], ["10", "1"], [2, 0]),
        (["b", "a", "b", "c"], ["c", "a"], [2, 0]),
    ],
)
def test_labels_are_numbered_by_the_train_file(
    tmp_path: Path, train: list[str], test: list[str], numbers: list[int]
) -> None:
    put(tmp_path / "Toy_TRAIN.tsv", tsv(TRAIN, train))
    put(tmp_path / "Toy_TEST.tsv", tsv(TEST, test))
    data = DataSpec(str(tmp_path / "Toy"), "test")
    assert data.load().y.tolist() == numbers
    assert data.classes == len(set(train))


def test_train_needs_no_test_file_but_test_a_train_file(tmp_path: Path) -> None:
    name = toy(tmp_path)
    (tmp_path / "Toy_TEST.tsv").rename(tmp_path / "Other_TEST.tsv")
    assert DataSpec(name, "train").size == 4
    with pytest.raises(DataError, match="split: expected one of train, got 'test'"):
        DataSpec(name, "test").load()
    with pytest.raises(DataError, match="expected a train file, which tells range and labels"):
        DataSpec(str(tmp_path / "Other"), "test").load()


def test_fingerprint_is_of_what_is_loaded(tmp_path: Path) -> None:
    name = toy(tmp_path / "a")
    train, test = key(DataSpec(name, "train")), key(DataSpec(name, "test"))
    assert train != test
    for split in ("TRAIN", "TEST"):
        put(tmp_path / f"b/Toy/Toy_{split}.tsv.gz", (tmp_path / f"a/Toy_{split}.tsv").read_text())
    official = str(tmp_path / "b" / "Toy")
    assert (key(DataSpec(official, "train")), key(DataSpec(official, "test"))) == (train, test)
    put(tmp_path / "a/Toy_TRAIN.tsv", tsv([[9.0, 0, 0], *TRAIN[1:]], ["1", "-1", "1", "-1"]))
    assert key(DataSpec(name, "test")) != test  # another range: other numbers


def test_a_mark_of_the_byte_order_is_no_part_of_a_label(tmp_path: Path) -> None:
    put(tmp_path / "Toy_TRAIN.tsv", "\ufeff1\t1\t2\n2\t3\t4\n1\t1\t3\n")
    data = DataSpec(str(tmp_path / "Toy"), "train")
    assert (data.load().y.tolist(), data.classes) == ([0, 1, 0], 2)


# ---------------------------------------------------------------- layouts
@pytest.mark.parametrize("ending", ["Toy_{}.ts", "Toy_{}.ts.gz", "Toy_{}.tsv.gz", "Toy/Toy_{}.tsv"])
def test_layouts_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    wanted = DataSpec(toy(tmp_path / "plain"), "test").load()
    for split, series, labels in (
        ("TRAIN", TRAIN, ["1", "-1", "1", "-1"]),
        ("TEST", TEST, ["1", "-1"]),
    ):
        text = tsv(series, labels) if "tsv" in ending else ts([[x] for x in series], labels)
        put(tmp_path / "ucr" / ending.format(split), text)
    monkeypatch.setenv("NOISYCHANNEL_DATA", str(tmp_path))
    found = DataSpec("ucr/Toy", "test").load()
    assert torch.equal(found.x, wanted.x)
    assert torch.equal(found.y, wanted.y)
    assert series_range("ucr/Toy") == (LOW, HIGH)


def test_several_dimensions_share_the_range(tmp_path: Path) -> None:
    series = [[[-1.0, 0.0, 1.0], [0.0, 0.0, 3.0]], [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]]
    put(tmp_path / "Two_TRAIN.ts", ts(series, ["b", "a"]))
    data = DataSpec(str(tmp_path / "Two"), "train")
    assert (data.shape, data.load().y.tolist()) == ((2, 3), [1, 0])
    torch.testing.assert_close(data.load().x, (torch.tensor(series) + 2) / 6, rtol=0, atol=1e-7)


def test_subsets_and_slices(tmp_path: Path) -> None:
    data = DataSpec(toy(tmp_path), "train", "balanced:2@0")
    assert sorted(data.load().y.tolist()) == [0, 1]
    assert DataSpec(toy(tmp_path), "train").slice(2, 4).load().index.tolist() == [2, 3]


# ---------------------------------------------------------------- malformed
@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        ("Toy_TRAIN.tsv", "1\t0\t1\n2\t0\tNaN\n", "no missing values, got 1 in line 2 of .*Toy_TRAIN.tsv"),
        ("Toy_TRAIN.tsv", "1\t?\t\t1\n", "no missing values, got 2 in line 1"),
        ("Toy_TRAIN.ts", HEADER + "1,?,3:a\n", "no missing values, got 1 in line 7"),
        ("Toy_TRAIN.tsv", "1\t0\t1\n\n2\t0\n", "expected one length, got 1 and 2 in line 3"),
        ("Toy_TRAIN.ts", HEADER + "1,2:1,2,3:a\n", "expected one length, got 2 and 3 in line 7"),
        ("Toy_TRAIN.ts", HEADER + "1,2:a\n1,2:3,4:a\n", "expected 1 dimensions, got 2 in line 8"),
        ("Toy_TRAIN.ts", HEADER + "1,2,3\n", "expected a label and numbers, got too little in line 7"),
        ("Toy_TRAIN.tsv", "1\n", "expected a label and numbers, got too little in line 1"),
        ("Toy_TRAIN.tsv", "1\t0\tx\n", "expected a label and numbers, got something else in line 1"),
        ("Toy_TRAIN.ts", "@timeStamps true\n@data\n", "without time stamps, got '@timeStamps true'"),
        ("Toy_TRAIN.ts", "@targetLabel true\n@data\n", "expected class labels, got '@targetLabel"),
        ("Toy_TRAIN.ts", "1,2,3:a\n", "a header that ends with @data, got '1,2,3:a'"),
        ("Toy_TRAIN.ts", HEADER, "series: expected at least one, got none in"),
        ("Toy_TRAIN.ts", HEADER + "1,2,3:c\n", r"a label of @classLabel \(a, b\), got 'c' in line"),
        ("Toy_TRAIN.tsv", "NaN\t1\t2\n", "expected a label and numbers, got too little in line 1"),
        ("Toy_TRAIN.tsv", "1\t2\t2\n2\t2\t2\n", "more than one value in the train file, got 2 only"),
    ],
)  # fmt: skip
def test_malformed_train_files(tmp_path: Path, file: str, text: str, sentence: str) -> None:
    put(tmp_path / file, text)
    with pytest.raises(DataError, match=sentence) as caught:
        DataSpec(str(tmp_path / "Toy"), "train").load()
    assert "\n" not in str(caught.value)


def test_malformed_test_files(tmp_path: Path) -> None:
    name = toy(tmp_path, test_labels=("1", "3"))
    assert len(DataSpec(name, "train").load()) == 4
    with pytest.raises(
        DataError, match=r"labels: expected those of Toy_TRAIN.tsv, got 3\.0 in Toy_TEST"
    ):
        DataSpec(name, "test").load()
    put(tmp_path / "Toy_TEST.tsv", "1\t0\t1\n")
    with pytest.raises(DataError, match=r"\(1, 3\) as in the train file, got \(1, 2\) in Toy_TEST"):
        DataSpec(name, "test").load()


def test_broken_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(tsv(TRAIN, ["1", "2", "1", "2"]).encode())
    for data in (whole[:-12], b"no gzip at all", whole[:12] + b"\xff\xff\xff" + whole[15:]):
        (tmp_path / "Toy_TRAIN.tsv.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"expected .*Toy_TRAIN.tsv.gz to be readable, got"):
            DataSpec(str(tmp_path / "Toy"), "train").load()


def test_unknown_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy(tmp_path / "ucr")
    monkeypatch.setenv("NOISYCHANNEL_DATA", str(tmp_path))
    for name in ("ucr", "ucr/Tyo"):
        with pytest.raises(DataError, match=r"expected ucr/NAME with NAME one of Toy, got"):
            DataSpec(name).load()
    with pytest.raises(DataError, match="expected one of digits, ucr, a folder"):
        DataSpec("Toy").load()
    with pytest.raises(DataError, match="a data set of series such as ucr/ECG5000, got 'digits'"):
        series_range("digits")
    monkeypatch.delenv("NOISYCHANNEL_DATA")
    with pytest.raises(DataError, match=r"is not set, and its folder ucr holds NAME_TRAIN\.tsv"):
        DataSpec("ucr/Toy").load()  # not asked for on the hub


def test_series_are_not_resized(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"resize, crop: expected images, got a series \(1, 3\)"):
        DataSpec(toy(tmp_path), "train", resize=8).load()


# ---------------------------------------------------------------- the archive
UCR = Path(os.environ.get("NOISYCHANNEL_DATA", "")) / "ucr"


@pytest.mark.skipif(
    not os.environ.get("NOISYCHANNEL_DATA") or not UCR.is_dir(),
    reason="needs the folder ucr in $NOISYCHANNEL_DATA",
)
@pytest.mark.parametrize(
    ("name", "train", "test", "length", "classes", "clipped"),
    [
        ("ECG5000", 500, 4500, 140, 5, 1),
        ("ECG200", 100, 100, 96, 2, 0),
        ("ECGFiveDays", 23, 861, 136, 2, 0),
        ("GunPoint", 50, 150, 150, 2, 0),
        ("ItalyPowerDemand", 67, 1029, 24, 2, 0),
        ("SyntheticControl", 300, 300, 60, 6, 0),
        ("TwoLeadECG", 23, 1139, 82, 2, 0),
    ],
)
def test_the_archive(
    name: str, train: int, test: int, length: int, classes: int, clipped: int
) -> None:
    splits = [DataSpec(f"ucr/{name}", split) for split in ("train", "test")]
    batches = [data.load() for data in splits]
    assert [tuple(batch.x.shape) for batch in batches] == [(train, 1, length), (test, 1, length)]
    assert [data.classes for data in splits] == [classes, classes]
    assert all(sorted(set(batch.y.tolist())) == list(range(classes)) for batch in batches)
    seen, unseen = (batch.x for batch in batches)
    assert float(seen.min()) == pytest.approx(1 / 6, abs=1e-6)
    assert float(seen.max()) == pytest.approx(5 / 6, abs=1e-6)
    assert int(((unseen == 0) | (unseen == 1)).sum()) == clipped
    low, high = series_range(f"ucr/{name}")
    raw = low + (high - low) * seen.double()
    assert float(raw.mean(2).abs().max()) < 1e-5  # z-normalised, as the archive promises
