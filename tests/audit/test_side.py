"""What one defense answered to all attempts: how gaps are filled, what is still standing, and what the worst may be."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import fakes_networks as fakes
import synthetic
from auditing import EPSILON, audited, request
from noisychannel.audit.attempts import Attempt
from noisychannel.audit.conduct import Judged
from noisychannel.audit.levels import LEVELS
from noisychannel.audit.side import CLEAN, LOST, Side
from noisychannel.decision import Decision, Single, parse_decision
from noisychannel.defenses import Defense
from noisychannel.engine import Store
from noisychannel.networks import Foreign
from noisychannel.report.stats import accuracy

SINGLE = Single()
DRAWS = 32
HALF = DRAWS // 2


def side(folder: Path, clean: np.ndarray, rule: Decision = SINGLE, **others: np.ndarray) -> Side:
    """A side whose rows are given, right or wrong (n, m) by attempt; nothing is run."""
    noisy = Defense(Foreign(fakes.InputNoise(fakes.plain()), fakes.SHAPE, "noisy"), decision=rule)
    r = request(noisy, data=fakes.digits(count=len(clean)))
    made = Side(r, Store(folder), r.defense)
    everything = tuple(range(len(clean)))
    for name, right in {CLEAN: clean, **others}.items():
        family = "none" if name == CLEAN else "gradient"
        setting = "clean" if name == CLEAN else "adaptive"
        made.know(Attempt(name, setting, family, everything, ()))
        made._answers[name] = synthetic.answers(right)
    return made


def right(*shares: tuple[float, float]) -> np.ndarray:
    """Answers of examples that are right in these shares of the draws that choose, and of those that score."""
    rows = [
        np.concatenate([np.arange(HALF) < share * HALF for share in shares_of])
        for shares_of in shares
    ]
    return np.stack(rows)


# ---------------------------------------------------------------- what is standing
def test_what_stands_is_judged_by_the_draws_that_choose(tmp_path: Path) -> None:
    clean = right((1, 1), (1, 1), (1, 1))
    made = side(tmp_path, clean, attack=right((0, 1), (1, 0), (1, 1)))
    assert made.standing(["attack"]) == (1, 2)
    # Whatever the scoring half says, the same examples are attacked again.
    generator = np.random.default_rng(0)
    for _ in range(5):
        rows = right((0, 0), (1, 0), (1, 0))
        rows[:, HALF:] = generator.random((3, HALF)) < 0.5
        assert side(tmp_path, clean, attack=rows).standing(["attack"]) == (1, 2)


@pytest.mark.parametrize(
    ("rule", "lost"), [("single", 0.0), ("vote:8", LOST), ("mean_prob:8", LOST)]
)
def test_an_example_is_given_up_at_the_stated_share(rule: str, lost: float, tmp_path: Path) -> None:
    shares = [0.0, 1 / HALF, 2 / HALF, 0.5]
    made = side(
        tmp_path,
        right(*[(1, 1)] * len(shares)),
        parse_decision(rule),
        attack=right(*[(share, 1) for share in shares]),
    )
    assert made.standing(["attack"]) == tuple(i for i, s in enumerate(shares) if s > lost)


def test_what_was_wrong_without_an_attack_does_not_stand(tmp_path: Path) -> None:
    made = side(tmp_path, right((0, 0), (1, 1)), attack=right((1, 1), (1, 1)))
    assert made.standing(["attack"]) == made.standing([]) == (1,)


# ---------------------------------------------------------------- the worst
@hypothesis_settings(max_examples=25)
@given(seed=st.integers(0, 10_000), attacks=st.integers(1, 5))
def test_the_worst_is_no_better_than_any_attempt_beyond_noise(
    seed: int, attacks: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Chosen by 16 draws and scored on 16 others: an example loses by its choice what two means of 16 draws differ."""
    g = np.random.default_rng(seed)
    p = g.random((attacks + 1, 60))
    rows = [g.random((60, DRAWS)) < q[:, None] for q in p]
    names = {f"attack {i}": r for i, r in enumerate(rows[1:])}
    made = side(tmp_path_factory.mktemp("side"), rows[0], **names)
    worst = made.worst(names).estimate
    noise = 3 * (2 * 0.25 / (60 * HALF)) ** 0.5
    for name in (CLEAN, *names):
        assert worst.value <= made.accuracy(name).value + noise
    # Nor is luck counted: it is no better than the truth under the best choice there is.
    assert worst.value >= p.min(axis=0).mean() - noise


def test_one_draw_makes_the_worst_the_plain_minimum(tmp_path: Path) -> None:
    g = np.random.default_rng(1)
    rows = g.random((4, 60, 1)) < 0.7
    made = side(tmp_path, rows[0], **{f"attack {i}": r for i, r in enumerate(rows[1:])})
    assert made.worst(made.named("adaptive")).estimate.value == pytest.approx(
        rows.all(axis=0).mean()
    )
    assert made.standing(made.named("adaptive")) == tuple(np.nonzero(rows.all(axis=0)[:, 0])[0])


# ---------------------------------------------------------------- rows of a real audit
@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Of images that are not the first of their data, so that places and names differ."""
    part = fakes.digits(count=200).slice(120, 180)
    return audited(
        request(fakes.plain(), fakes.plain("softplus"), data=part), tmp_path_factory.mktemp("side")
    )


def decided(rows: pa.Table) -> dict[int, bool]:
    """Right or wrong by the example's name, of one draw each."""
    said, label = rows["predicted"].to_numpy(), rows["label"].to_numpy()
    return dict(zip(rows["index"].to_pylist(), (said == label).tolist(), strict=True))


def test_examples_that_were_not_attacked_count_as_clean(judged: Judged) -> None:
    mine = judged.evidence.mine
    clean = decided(mine.answers(CLEAN))
    partial = [n for n in judged.evidence.attacked if len(mine.attempts[n].positions) < 60]
    assert partial
    for name in partial:
        filled, asked = decided(mine.within(name)), decided(mine.answers(name))
        attacked = {int(mine.index[i]) for i in mine.attempts[name].positions}
        assert set(asked) == attacked
        assert set(filled) == set(clean) == set(range(120, 180))
        assert {i: filled[i] for i in set(clean) - attacked} == {
            i: clean[i] for i in set(clean) - attacked
        }


def test_candidates_beyond_the_budget_count_as_clean(judged: Judged) -> None:
    mine = judged.evidence.mine
    name = "FMN, non-adaptive"
    far = mine.examples(name)["linf"].to_numpy() > EPSILON + 1e-5
    names = mine.examples(name)["index"].to_numpy()
    assert 5 < far.sum() < 55  # a minimal attack knows no budget
    clean, asked, filled = (
        decided(rows) for rows in (mine.answers(CLEAN), mine.answers(name), mine.within(name))
    )
    for i, beyond in zip(names.tolist(), far.tolist(), strict=True):
        assert filled[i] == (clean if beyond else asked)[i]
    assert sum(filled.values()) > sum(asked.values())
    # With a larger budget they count.
    assert decided(mine.within(name, 1.0)) == asked


def test_8_bit_images_carry_their_examples_own_names(judged: Judged) -> None:
    mine = judged.evidence.mine
    name = f"{LEVELS}, as 8-bit images"
    rows = mine.answers(name)
    assert sorted(rows["index"].to_pylist()) == list(range(120, 180))
    labels = dict(zip(mine.index.tolist(), mine.request.data.load().y.tolist(), strict=True))
    assert dict(zip(rows["index"].to_pylist(), rows["label"].to_pylist(), strict=True)) == labels
    images = mine.candidates(name)
    assert torch.equal(images * 255, (images * 255).round())
    assert float((images - mine.request.data.load().x).abs().max()) <= EPSILON + 1e-6
    with torch.no_grad():
        said = fakes.plain()(images).argmax(dim=1)
    expected = dict(zip(mine.index.tolist(), said.tolist(), strict=True))
    assert (
        dict(zip(rows["index"].to_pylist(), rows["predicted"].to_pylist(), strict=True)) == expected
    )


def test_the_headline_is_no_better_than_any_attempt(judged: Judged) -> None:
    mine = judged.evidence.mine
    each = {n: mine.accuracy(n).value for n in judged.evidence.attacked}
    assert judged.headline.value <= min(each.values())
    rows = np.array([list(dict(sorted(decided(mine.within(n)).items())).values()) for n in each])
    assert judged.headline.value == pytest.approx(rows.all(axis=0).mean())


def test_some_of_the_examples_are_those_at_their_places(judged: Judged) -> None:
    mine = judged.evidence.mine
    rows = mine.only(mine.answers(CLEAN), (3, 5))
    assert rows["index"].to_pylist() == [123, 125]
    some = mine.accuracy(CLEAN, at=(3, 5))
    assert some.n == 2
    assert some == accuracy(rows, mine.rule)
