"""Tensors from the Hugging Face hub, as safetensors only: a pickle may run whatever its author likes."""

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from noisychannel.errors import CheckpointError, reason

__all__ = ["PREFIX", "HubFile", "fetch", "parse"]

PREFIX = "hub:"
_FORM = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^/@]+))?(/(?P<file>.+))?")


class HubFile(NamedTuple):
    """One file on the hub; `revision` is a branch, a tag or a commit, None: the default branch."""

    repo: str
    revision: str | None
    file: str


def parse(name: str) -> HubFile:
    """What `hub:owner/repo[@revision][/file.safetensors]` names; without a file, `model.safetensors`.

    Raises:
        CheckpointError: another form, or a file that is not safetensors.
    """
    found = _FORM.fullmatch(name)
    if found is None:
        raise CheckpointError(
            f"checkpoint: expected hub:owner/repo[@revision][/file.safetensors], got {name!r}; "
            "write it so, or name a local file"
        )
    file = found["file"] or "model.safetensors"
    if not file.endswith(".safetensors") or ".." in file.split("/"):
        raise CheckpointError(
            f"checkpoint: expected a .safetensors file from the hub (others may run code), got {file!r} in "
            f"{name!r}; name a file of that kind, or download this one yourself and name the local file"
        )
    return HubFile(found["repo"], found["revision"], file)


def fetch(name: str) -> Path:
    """The local copy of a file of the hub, downloaded unless the hub's cache (`HF_HOME`) holds it.

    Raises:
        CheckpointError: a malformed name, no such file, no network, or no package for it.
    """
    return _fetch(parse(name))


@lru_cache(maxsize=64)  # asked once: every key wants it, and a branch must not move within a run
def _fetch(wanted: HubFile) -> Path:
    try:
        from huggingface_hub import hf_hub_download  # absent on a bare machine
    except ImportError:
        raise CheckpointError(
            f"checkpoint: expected the package huggingface_hub to get {wanted.repo!r}, got none; "
            "pip install 'noisychannel[hub]', or name a local file"
        ) from None
    try:
        return Path(hf_hub_download(wanted.repo, wanted.file, revision=wanted.revision))
    except Exception as error:  # its errors, and those of its network client, have no common root
        why = reason(error)[:200]
        at = f" at {wanted.revision!r}" if wanted.revision else ""
        raise CheckpointError(
            f"checkpoint: expected to get {wanted.file!r} of {wanted.repo!r}{at} from the Hugging Face hub, "
            f"got {why}; check the name and the network, set HF_HOME to a cache that holds it, or name a "
            "local file"
        ) from error
