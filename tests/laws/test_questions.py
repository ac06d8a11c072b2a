"""Laws of every question: same bytes twice, batch mates and input untouched, one artifact per key."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from noisychannel import rng
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense, Operated, RobustNet
from noisychannel.engine import Analyse, Execution, Store, answer, run, serial
from noisychannel.experiments.imagenet_panels import LabelGradient
from noisychannel.measures import QUESTIONS, Asked, Question, TaylorTerms
from noisychannel.measures.question import class_of
from noisychannel.networks import Foreign, SmallNet, prepare
from noisychannel.noise import GaussLaw
from noisychannel.types import Batch

# LabelGradient is no member of QUESTIONS: only ImageNet's 1,000 classes ask for it (`Jacobian` answers the same for
# fewer), and its keys say `experiments`, so that stored rows keep it there. The laws are the same for it.
EVERY: tuple[Question, ...] = (*QUESTIONS, LabelGradient(), LabelGradient((0.5,)))
questions = pytest.mark.parametrize("question", EVERY, ids=lambda q: type(q).__name__)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5)
    ).eval()


MODULE = network()
SPEC = Foreign(MODULE, (1, 8, 8))
# A random network too: what it says of a point must be named, whatever it is asked for.
NETWORKS = {
    "fixed": SPEC,
    "random": Operated(SmallNet(width=4), RobustNet(GaussLaw(3.0), GaussLaw(3.0))),
}
networks = pytest.mark.parametrize("network", NETWORKS)


def asked(n: int, first: int = 0, network: str = "fixed") -> Asked:
    torch.manual_seed(1)
    x = torch.rand(12, 1, 8, 8)[first : first + n]
    batch = Batch(x, torch.zeros(n, dtype=torch.long), torch.arange(first, first + n))
    spec = NETWORKS[network]
    moved = (x + 0.05).clamp(0, 1)
    return Asked(Defense(spec, Gauss(0.2)), prepare(spec.build()), moved, batch)


def rows(question: Question, of: Asked) -> pa.Table:
    with rng.root("laws"):
        return question(of)


@questions
@networks
def test_the_same_question_has_the_same_answer_and_moves_nothing(
    question: Question, network: str
) -> None:
    of = asked(6, network=network)
    before = of.x.clone(), of.batch.x.clone()
    torch.manual_seed(7)
    first = rows(question, of)
    torch.manual_seed(8)
    assert rows(question, asked(6, network=network)).equals(first)
    assert torch.equal(of.x, before[0])
    assert torch.equal(of.batch.x, before[1])
    assert first.num_rows > 0
    assert question.work > 0


@questions
@networks
def test_an_example_does_not_depend_on_its_batch_mates(question: Question, network: str) -> None:
    if "index" not in rows(question, asked(6)).column_names:
        pytest.skip("is about layers, not about examples")
    whole = rows(question, asked(6, network=network))
    part = rows(question, asked(3, first=2, network=network))
    mine = whole.filter(pa.compute.is_in(whole["index"], pa.array([2, 3, 4])))
    for name in part.column_names:
        a, b = mine[name].combine_chunks(), part[name].combine_chunks()
        if pa.types.is_fixed_size_list(a.type):
            a, b = a.flatten(), b.flatten()
        if pa.types.is_floating(a.type):
            assert b.to_numpy() == pytest.approx(a.to_numpy(), rel=1e-3, abs=1e-6), name
        elif name != "products":  # steps until the last of a batch stands still
            assert a.equals(b), name


@questions
def test_the_task_publishes_the_rows(question: Question, tmp_path: Path) -> None:
    data = DataSpec("digits", "test", "first:5")
    task = Analyse(
        data, Defense(_digits()), question, execution=Execution(threads=1, micro_batch=5)
    )
    store = Store(tmp_path)
    run([task], store, serial, lambda *_: lambda _: None)
    made = answer(store, task)
    assert made.num_rows > 0


def _digits() -> Foreign:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10)
    ).eval()
    return Foreign(module, (1, 8, 8))


def test_no_number_is_no_answer() -> None:
    """A row of NaN would be class 0 to argmax: a "recovered" image of that class."""
    logits = torch.tensor([[0.0, 1.0], [torch.nan, 2.0], [torch.inf, 0.0]])
    assert class_of(logits).tolist() == [1, -1, -1]
    assert class_of(logits[None]).tolist() == [[1, -1, -1]]

    class Silent(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return MODULE(x) * torch.nan

    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(x, torch.zeros(4, dtype=torch.long), torch.arange(4))
    silent = Asked(Defense(SPEC), Silent(), x, batch)
    for question in EVERY:
        found = rows(question, silent)
        if "predicted" in found.column_names and not isinstance(question, TaylorTerms):
            assert set(found["predicted"].to_pylist()) == {-1}, question
