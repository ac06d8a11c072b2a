"""An audit on disk: the page, its numbers, its rows, and the proof of a break."""

import json
from contextlib import suppress
from pathlib import Path

import torch

from noisychannel.audit.conduct import Judged
from noisychannel.audit.levels import BYTES, LEVELS, worst_images
from noisychannel.audit.page import render
from noisychannel.audit.proof import Bytes, Proof, Strongest, in_bytes, write_proof
from noisychannel.audit.record import record, rows
from noisychannel.audit.side import CLEAN
from noisychannel.audit.words import data_words
from noisychannel.data import from_uint8
from noisychannel.engine.tasks import parquet
from noisychannel.errors import UserError
from noisychannel.report.html import Provenance, Section, write_page
from noisychannel.report.worst import halves

__all__ = ["proof_of", "save"]

PROOF = "proof"


def save(judged: Judged, folder: Path, provenance: Provenance) -> tuple[Section, ...]:
    """Write report.html, audit.json, rows.parquet, and proof/ where attacks lower accuracy; what the page shows.

    Args:
        judged: the audit.
        folder: made if it is not there; a proof that stands there of another audit goes.
        provenance: stands at the end of the page.

    Raises:
        UserError: the folder cannot be made or written.
    """
    text, shown = render((judged,), provenance)
    write_page(folder / "report.html", text)
    found = {**record(judged), "command": provenance.command, "date": provenance.date}
    proof = proof_of(judged)
    try:
        (folder / "audit.json").write_text(
            json.dumps(found, ensure_ascii=False, indent=2, allow_nan=False) + "\n",
            encoding="utf-8",
        )
        (folder / "rows.parquet").write_bytes(parquet(rows(judged)))
        if proof is None:
            for name in ("adversarials.pt", "verify.py", "README.txt"):
                (folder / PROOF / name).unlink(missing_ok=True)
            with suppress(OSError):  # not there, or other files in it
                (folder / PROOF).rmdir()
    except OSError as error:
        raise UserError(
            f"output: expected a folder to write to, got {folder}: {error.strerror or error}"
        ) from error
    if proof is not None:
        write_proof(folder / PROOF, proof)
    return shown


def proof_of(judged: Judged) -> Proof | None:
    """The images that break the defense, for its author to check; None: accuracy is no lower than on clean ones."""
    side, r = judged.evidence.mine, judged.evidence.request
    clean, headline = side.accuracy(CLEAN), judged.headline
    if headline.value >= clean.value:
        return None
    found = worst_images(side)
    draws = r.scoring(r.defense)
    _, scored = halves(draws, side.rule)
    return Proof(
        r.name,
        data_words(r.data),
        side.batch,
        clean,
        found,
        headline,
        r.norm,
        r.epsilon,
        side.rule,
        scored.stop - scored.start,
        _as_bytes(judged, found),
    )


def _as_bytes(judged: Judged, found: Strongest) -> Bytes | None:
    """The same images as bytes, if just those were measured too."""
    side, r, name = judged.evidence.mine, judged.evidence.request, LEVELS + BYTES
    if name not in side.attempts:
        return None
    levels = in_bytes(found.x, side.batch.x, r.norm, r.epsilon)
    if not torch.equal(from_uint8(levels), side.candidates(name)):
        return None
    return Bytes(levels, side.accuracy(name))
