"""The folder of results: an artifact's name is the hash of what made it, published whole or not at all.

    ROOT/objects/ab/abcdef…/   task.json · manifest.json · the artifact's files · run.json
    ROOT/partial/              folders that are being written; a killed run leaves them behind, harmlessly
    ROOT/scratch/KEY/          what a long task goes on from after a kill; gone once it is published
    ROOT/logs/KEY/             TensorBoard event files of trainings

`run.json` holds clock times, host and versions, and stands outside of the manifest: two runs of one task
give the same bytes everywhere else.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from noisychannel.errors import CorruptArtifact, MissingArtifact, StoreError

__all__ = ["FORMAT", "Store"]

FORMAT = 1
"""Layout version; a store of another version is refused, not guessed at."""


@dataclass(frozen=True)
class Store:
    """Artifacts by key under one root folder.

    Args:
        root: the folder; made by the first `put`.
    """

    root: Path

    def has(self, key: str) -> bool:
        """Whether the artifact was published (its bytes are checked when read)."""
        return (self._folder(key) / "manifest.json").is_file()

    def put(
        self, key: str, files: Mapping[str, bytes], task: str, run: Mapping[str, object]
    ) -> None:
        """Publish an artifact: write it aside, flush it to disk, rename it into place.

        Raises:
            StoreError: the folder cannot be written.
        """
        final = self._folder(key)
        if self.has(key):
            return
        partial: Path | None = None
        try:
            partial = self._partial()
            everything = {**files, "task.json": task.encode()}
            sums = {name: hashlib.sha256(data).hexdigest() for name, data in everything.items()}
            manifest = json.dumps({"format": FORMAT, "key": key, "files": sums}, sort_keys=True)
            for name, data in {**everything, "manifest.json": manifest.encode()}.items():
                _write_through(partial / name, data)
            _write_through(partial / "run.json", json.dumps(dict(run), sort_keys=True).encode())
            final.parent.mkdir(parents=True, exist_ok=True)
            _flush_folder(partial)
            self._publish(partial, final)
            shutil.rmtree(self.scratch(key), ignore_errors=True)
        except OSError as error:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)
            raise StoreError(
                f"results folder {self.root}: cannot be written ({error.strerror}); "
                "name a folder that you may write to with --store"
            ) from error

    def read(self, key: str, name: str) -> bytes:
        """One file of an artifact, verified against its manifest.

        Raises:
            MissingArtifact: nothing was published under this key.
            CorruptArtifact: the bytes are not those that were written.
        """
        folder = self._folder(key)
        try:
            manifest = json.loads((folder / "manifest.json").read_bytes())
            data = (folder / name).read_bytes()
            written = manifest["files"][name]
            known = manifest["format"] == FORMAT
        except FileNotFoundError as error:
            if self.has(key):
                raise self._corrupt(key, f"{name} is gone") from error
            raise MissingArtifact(f"artifact {key}: not computed yet in {self.root}") from error
        except OSError as error:
            raise StoreError(
                f"artifact {key}: cannot be read in {self.root} ({error.strerror})"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._corrupt(key, "its manifest is damaged") from error
        if not known:
            raise self._corrupt(key, f"it is not of format {FORMAT}")
        if hashlib.sha256(data).hexdigest() != written:
            raise self._corrupt(key, f"{name} does not have the bytes that were written")
        return data

    def seconds(self, key: str) -> float:
        """Clock time that the artifact took, as recorded outside of its hash; 0 if not recorded."""
        try:
            return float(str(self.run(key)["seconds"]))
        except (ValueError, KeyError):
            return 0.0

    def run(self, key: str) -> dict[str, object]:
        """Clock time, host and versions as recorded outside of the artifact's hash; empty if not recorded."""
        try:
            return dict(json.loads((self._folder(key) / "run.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return {}

    def scratch(self, key: str) -> Path:
        """A folder for what a task saves on its way; gone when its artifact is published."""
        return self.root / "scratch" / key

    def logs(self, key: str) -> Path:
        """A folder for a task's logs, which are for people and part of no artifact."""
        return self.root / "logs" / key

    def check_writable(self) -> None:
        """Fail before the work, not after it.

        Raises:
            StoreError: the folder cannot be written.
        """
        try:
            shutil.rmtree(self._partial())
        except OSError as error:
            raise StoreError(
                f"results folder {self.root}: cannot be written ({error.strerror}); "
                "name a folder that you may write to with --store"
            ) from error

    def _folder(self, key: str) -> Path:
        return self.root / "objects" / key[:2] / key

    def _partial(self) -> Path:
        parent = self.root / "partial"
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=parent))

    def _publish(self, partial: Path, final: Path) -> None:
        try:
            partial.rename(final)
        except OSError:
            if self.has(final.name):
                # Another worker published the same key meanwhile: equal bytes, so nothing is lost.
                shutil.rmtree(partial)
            else:
                # What lies there has lost its manifest, hence is nothing: it makes room.
                final.rename(partial.with_name(f"{partial.name}-remains"))
                partial.rename(final)
        _flush_folder(final.parent)

    def _corrupt(self, key: str, what: str) -> CorruptArtifact:
        return CorruptArtifact(
            f"artifact {key}: {what}; delete {self._folder(key)} and run again to recompute it"
        )


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
