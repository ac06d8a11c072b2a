"""What fresh draws say of the images that an attacker hands over."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from noisychannel.decision import Decision
from noisychannel.experiments.defended import said
from noisychannel.experiments.setting import Result
from noisychannel.report.stats import Estimate

__all__ = ["handed_over", "upheld", "within"]


def within(result: Result, threshold: float) -> Result:
    """The rows with the true label wherever the image was moved by the threshold or more: that is not broken."""
    assert result.examples is not None
    index = result.examples["index"].to_numpy()
    order = np.argsort(index)
    place = order[np.searchsorted(index, result.draws["index"].to_numpy(), sorter=order)]
    near = result.examples["l2"].to_numpy()[place] < threshold
    answers = np.where(near, result.draws["predicted"].to_numpy(), result.draws["label"].to_numpy())
    column = result.draws.schema.get_field_index("predicted")
    return replace(result, draws=result.draws.set_column(column, "predicted", pa.array(answers)))


def handed_over(result: Result) -> Result | None:
    """The rows of images that the attacker moved and took for adversarial; None where there are none."""
    assert result.examples is not None
    status, l2 = (result.examples[c].to_numpy() for c in ("status", "l2"))
    kept = result.examples.filter(pa.array((status == "found") & (l2 > 1e-6)))
    if kept.num_rows == 0:
        return None
    theirs = np.isin(result.draws["index"].to_numpy(), kept["index"].to_numpy())
    return replace(result, draws=result.draws.filter(pa.array(theirs)), examples=kept)


def upheld(result: Result, rule: Decision) -> Estimate | None:
    """Share of what the attacker took for adversarial of which fresh draws say so too."""
    kept = handed_over(result)
    if kept is None:
        return None
    right = said(kept, rule)
    return right._replace(value=1 - right.value, low=1 - right.high, high=1 - right.low)
