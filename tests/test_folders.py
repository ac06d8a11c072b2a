"""Folders of images, SVHN's own files, and images brought to one size."""

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from noisychannel.data import DataSpec, to_uint8
from noisychannel.data.folders import image_folder
from noisychannel.data.hub import HuggingFace
from noisychannel.data.pixels import Frame, framed
from noisychannel.errors import DataError
from noisychannel.spec import canonical, key

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
NAMES = "aabbcc"
NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encoded(pixels: NDArray[Any], kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def pets(folder: Path) -> Path:
    for i, (pixels, label) in enumerate(zip(PIXELS, NAMES, strict=True)):
        put(folder / label / f"{i}.png", encoded(pixels))
    return folder


# ---------------------------------------------------------------- folders of images
def test_images_in_class_folders(tmp_path: Path) -> None:
    pets(tmp_path / "pets" / "test")
    put(tmp_path / "pets" / "README.md", b"Pets.")
    put(tmp_path / "pets" / "test" / "a" / ".hidden", b"")
    data = DataSpec(str(tmp_path / "pets"))
    batch = data.load()
    assert batch.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(to_uint8(batch.x).permute(0, 2, 3, 1), torch.from_numpy(PIXELS))
    assert (data.classes, data.shape, data.size) == (3, (3, 5, 4), 6)
    assert DataSpec(str(tmp_path / "pets"), subset="every:3").load().index.tolist() == [0, 3]


def test_our_reader_and_datasets_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = pets(tmp_path / "pets" / "test").parent
    ours = image_folder(folder, "test")
    assert ours is not None
    theirs = HuggingFace(str(folder), "test", "image", "label")
    assert ours.labels().tolist() == theirs.labels().tolist()
    assert ours.classes() == theirs.classes() == 3
    assert torch.equal(ours.images(np.arange(6)), theirs.images(np.arange(6)))


def test_splits_number_the_classes_alike(tmp_path: Path) -> None:
    pets(tmp_path / "train")
    put(tmp_path / "val" / "c" / "x.png", encoded(PIXELS[0]))
    for split in ("val", "validation"):
        data = DataSpec(str(tmp_path), split)
        assert (data.load().y.tolist(), data.classes) == ([2], 3)
    assert DataSpec(str(tmp_path), "train").size == 6
    with pytest.raises(DataError, match="split: expected one of train, validation, got 'test'"):
        DataSpec(str(tmp_path), "test").load()


def test_without_split_folders_all_is_train(tmp_path: Path) -> None:
    pets(tmp_path)
    assert DataSpec(str(tmp_path), "train").load().y.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(DataError, match="split: expected one of train, got 'test'"):
        DataSpec(str(tmp_path), "test").load()


def test_images_without_classes(tmp_path: Path) -> None:
    put(tmp_path / "train" / "x.png", encoded(PIXELS[0]))
    with pytest.raises(DataError, match=r"expected SPLIT/CLASS/image, got train/x.png; put"):
        DataSpec(str(tmp_path), "train").load()


@pytest.mark.parametrize("stray", ["deep/er/test/a/x.png", "test/a/labels.csv"])
def test_other_layouts_are_left_to_datasets(tmp_path: Path, stray: str) -> None:
    pets(tmp_path / "test")
    put(tmp_path / stray, encoded(PIXELS[0]))
    assert image_folder(tmp_path, "test") is None


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (b"not an image", "expected bytes that Pillow decodes .* got b'not an i'"),
        (encoded(PIXELS[0])[:60], "expected a whole image, got .*; load it anew"),
        (encoded(NOISE, "JPEG")[:3000], "a whole image, got .*truncated"),
    ],
)
def test_a_broken_image_is_named(tmp_path: Path, broken: bytes, sentence: str) -> None:
    file = put(pets(tmp_path) / "b" / "zz.png", broken)
    data = DataSpec(str(tmp_path), "train")
    assert len(data.slice(0, 4).load()) == 4  # only what is asked for is decoded
    with pytest.raises(DataError, match=sentence) as caught:
        data.load()
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fingerprint_is_of_classes_and_bytes(tmp_path: Path) -> None:
    folder = pets(tmp_path / "pets")
    before = key(DataSpec(str(folder), "train"))
    assert str(tmp_path) not in canonical(DataSpec(str(folder), "train"))
    folder = folder.rename(tmp_path / "moved")
    assert key(DataSpec(str(folder), "train")) == before
    put(folder / "b" / "2.png", encoded(255 - PIXELS[2]))
    changed = key(DataSpec(str(folder), "train"))
    assert changed != before
    (folder / "b" / "2.png").rename(folder / "a" / "2.png")
    assert key(DataSpec(str(folder), "train")) not in (before, changed)


# ---------------------------------------------------------------- sizes
def photos(folder: Path) -> list[NDArray[Any]]:
    sizes = ((40, 60), (75, 50), (48, 48))
    pixels = [
        np.random.default_rng(i).integers(0, 256, (*s, 3), np.uint8) for i, s in enumerate(sizes)
    ]
    for i, image in enumerate(pixels):
        put(folder / "train" / f"class{i}" / "x.png", encoded(image))
    return pixels


def test_resize_then_crop(tmp_path: Path) -> None:
    pixels = photos(tmp_path / "photos")
    data = DataSpec(str(tmp_path / "photos"), "train", resize=32, crop=24)
    # Sides and corners worked out by hand: 40 × 60 → 32 × 48, 75 × 50 → 48 × 32, 48 × 48 → 32 × 32.
    boxes = (((48, 32), (12, 4)), ((32, 48), (4, 12)), ((32, 32), (4, 4)))
    for x, image, (size, (left, top)) in zip(data.load().x, pixels, boxes, strict=True):
        scaled = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        wanted = np.asarray(scaled.crop((left, top, left + 24, top + 24)))
        assert torch.equal(to_uint8(x).permute(1, 2, 0), torch.from_numpy(wanted.copy()))


def test_crop_alone_and_sizes_that_differ(tmp_path: Path) -> None:
    pixels = photos(tmp_path / "photos")
    name = str(tmp_path / "photos")
    x = DataSpec(name, "train", crop=40).load().x
    wanted = torch.from_numpy(pixels[1][18:58, 5:45].copy())  # (75 − 40)/2 = 17.5, rounded to even
    assert torch.equal(to_uint8(x[1]).permute(1, 2, 0), wanted)
    with pytest.raises(DataError, match=r"expected one size, .*; give resize and crop"):
        DataSpec(name, "train").load()
    with pytest.raises(DataError, match=r"x\.png: crop: expected at most 40 .* 40 × 60, got 41"):
        DataSpec(name, "train", crop=41).load()


def test_sizes_apply_to_every_source(tmp_path: Path) -> None:
    pixels = photos(tmp_path / "photos")
    images = [{"bytes": encoded(image), "path": None} for image in pixels]
    (tmp_path / "table").mkdir()
    pq.write_table(
        pa.table({"image": images, "label": [0, 1, 2]}), tmp_path / "table" / "a.parquet"
    )
    of_files, of_table = (
        DataSpec(str(tmp_path / name), "train", resize=30, crop=30).load().x
        for name in ("photos", "table")
    )
    assert of_files.shape == (3, 3, 30, 30)
    assert torch.equal(of_files, of_table)
    digits = DataSpec("digits", subset="first:5", resize=16, crop=14).load().x
    assert digits.shape == (5, 1, 14, 14)
    assert not torch.equal(digits, DataSpec("digits", subset="first:5", resize=14).load().x)


def test_bicubic_never_leaves_the_range() -> None:
    edge = np.zeros((1, 8, 8), np.float32)
    edge[:, :, 4:] = 1
    plane = np.asarray(Image.fromarray(edge[0]).resize((16, 16), Image.Resampling.BICUBIC))
    assert plane.max() > 1.01  # what the clip is for
    scaled = framed(edge, Frame(16))
    assert (scaled.min(), scaled.max(), scaled.shape) == (0, 1, (1, 16, 16))
    assert framed(edge, Frame()) is edge


def test_sizes_are_part_of_the_key() -> None:
    keys = {
        key(DataSpec("digits", resize=resize, crop=crop))
        for resize, crop in ((0, 0), (8, 0), (8, 8), (0, 8))
    }
    assert len(keys) == 4


@pytest.mark.parametrize(("resize", "crop"), [(-1, 0), (0, -1), (8, 9)])
def test_sizes_that_cannot_be(resize: int, crop: int) -> None:
    with pytest.raises(DataError, match=rf"resize, crop: expected .* got {resize}, {crop}"):
        DataSpec("digits", resize=resize, crop=crop)


# ---------------------------------------------------------------- SVHN
def svhn(folder: Path, **changed: Any) -> str:
    x = PIXELS.repeat(8, 1)[:, :32].repeat(8, 2)  # (6, 32, 32, 3)
    variables = {"X": x.transpose(1, 2, 3, 0), "y": np.uint8([[10], [1], [9], [5], [10], [2]])}
    folder.mkdir()
    savemat(folder / "test_32x32.mat", variables | changed, do_compression=True)
    return str(folder)


def test_svhn_as_its_authors_distribute_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svhn(tmp_path / "svhn")
    monkeypatch.setenv("NOISYCHANNEL_DATA", str(tmp_path))
    batch = DataSpec("svhn").load()
    assert batch.y.tolist() == [0, 1, 9, 5, 0, 2]
    wanted = PIXELS.repeat(8, 1)[:, :32].repeat(8, 2)
    assert torch.equal(to_uint8(batch.x).permute(0, 2, 3, 1), torch.from_numpy(wanted))
    assert DataSpec("svhn", subset="first:3").classes == 10
    assert len(DataSpec("svhn").fingerprint()) == 64
    with pytest.raises(DataError, match="split: expected one of test, got 'train'"):
        DataSpec("svhn", "train").load()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"y": np.uint8([[0], [1]])}, r"y \(n, 1\) of 1 … 10, got y \(2, 1\) uint8 in"),
        ({"y": np.uint8([[1], [2]])}, r"as many images as labels \(2\), got 6 in"),
        ({"X": np.zeros((16, 32, 3, 6), np.uint8)}, r"got X \(16, 32, 3, 6\) uint8 in"),
        ({"X": np.zeros((32, 32, 3, 6))}, r"got X \(32, 32, 3, 6\) float64 in"),
    ],
)
def test_malformed_svhn(tmp_path: Path, changed: dict[str, Any], sentence: str) -> None:
    name = svhn(tmp_path / "svhn", **changed)
    with pytest.raises(DataError, match=sentence):
        DataSpec(name, subset="first:2").load()


def test_svhn_that_is_no_matlab_file(tmp_path: Path) -> None:
    name = svhn(tmp_path / "svhn")
    whole = Path(name, "test_32x32.mat").read_bytes()
    half = len(whole) // 2
    broken = whole[:half] + bytes(255 - b for b in whole[half : half + 8]) + whole[half + 8 :]
    for data in (b"", b"<html>not found</html>" * 20, whole[:half], broken):
        Path(name, "test_32x32.mat").write_bytes(data)
        with pytest.raises(DataError, match="to be a MATLAB 5 file with X and y"):
            DataSpec(name).load()


def test_extra_parquet_is_not_train(tmp_path: Path) -> None:
    table = pa.table({"image": [{"bytes": encoded(PIXELS[0]), "path": None}], "label": [0]})
    for name in ("train", "test", "extra"):
        pq.write_table(table, tmp_path / f"{name}-00000-of-00001.parquet")
    assert [DataSpec(str(tmp_path), split).size for split in ("train", "extra")] == [1, 1]


DATA = os.environ.get("NOISYCHANNEL_DATA")


@pytest.mark.skipif(
    not DATA or not Path(DATA, "svhn_gray").is_dir(), reason="needs svhn_gray in $NOISYCHANNEL_DATA"
)
@pytest.mark.parametrize(("split", "size"), [("train", 19_893), ("test", 6_139)])
def test_svhn_gray(split: str, size: int) -> None:
    data = DataSpec("svhn_gray", split)
    assert (data.size, data.classes, data.shape) == (size, 10, (3, 32, 32))
    batch = DataSpec("svhn_gray", split, "every:100").load()
    assert torch.equal(batch.x[:, :1].expand_as(batch.x), batch.x)
    assert set(batch.y.tolist()) == set(range(10))


@pytest.mark.skipif(
    not DATA or not Path(DATA, "imagenet_sample").is_dir(),
    reason="needs imagenet_sample in $NOISYCHANNEL_DATA",
)
def test_imagenet_sample() -> None:
    data = DataSpec("imagenet_sample", "test", resize=256, crop=224)
    batch = data.load()
    assert batch.x.shape == (114, 3, 224, 224)
    assert (data.classes, len(set(batch.y.tolist()))) == (1000, 114)
    mean = batch.x.mean((0, 2, 3))
    assert torch.allclose(mean, torch.tensor([0.485, 0.456, 0.406]), atol=0.05)
