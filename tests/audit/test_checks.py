"""Each check of an attack's work, where it fails, warns, passes and is not run: on rows whose truth is known."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import fakes_networks as fakes
import synthetic
from auditing import EPSILON, request
from noisychannel.audit import checks
from noisychannel.audit.attempts import Attempt, Family, Setting, rung
from noisychannel.audit.budget import BUDGETS
from noisychannel.audit.controls import (
    BINARIZED,
    DOUBLED,
    FACTORS,
    FROZEN,
    RANDOM,
    RESTARTED,
    SINGLE,
    UNBOUNDED,
    swept,
)
from noisychannel.audit.evidence import Evidence
from noisychannel.audit.finding import Finding
from noisychannel.audit.side import CLEAN, Side
from noisychannel.defenses import Defense, fixed_draws
from noisychannel.engine import Store
from noisychannel.networks import Foreign

N, DRAWS = 60, 32
POOL = 50
PGD = rung(1)


class Situation:
    """Evidence of rows that are given: what is right of 60 examples under each attempt, by share of the draws."""

    def __init__(
        self, folder: Path, *, random: bool = False, differentiable: bool = True, n: int = N
    ) -> None:
        make: Callable[..., Any] = fakes.InputNoise if random else fakes.Wrapped
        module = make(fakes.plain()) if differentiable else fakes.Thermometer(fakes.plain())
        defense = Defense(Foreign(module, fakes.SHAPE, "planted"))
        self.random, self.n = random, n
        asked = request(
            defense, data=fakes.digits(count=n), budget=replace(BUDGETS[0], controls=POOL)
        )
        self.evidence = Evidence(asked, Store(folder))
        self.given(CLEAN, n, setting="clean", family="none")

    def given(
        self,
        name: str,
        right: float | Sequence[float],
        *,
        setting: Setting = "adaptive",
        family: Family = "gradient",
        frozen: bool = False,
    ) -> "Situation":
        """An attempt under which the first so many are right; or each in such a share of its draws."""
        e = self.evidence
        if frozen and e.frozen is None:
            e.freeze(fixed_draws(e.request.defense))
        side: Side | None = e.frozen if frozen else e.mine
        assert side is not None
        shares = np.arange(self.n) < right if isinstance(right, int | float) else np.array(right)
        m = DRAWS if self.random and not frozen else 1
        # Every share is spread evenly over both halves of the draws.
        rows = np.tile(((np.arange(m) * 7) % m)[None], (self.n, 1)) < shares[:, None] * m
        side.know(Attempt(name, setting, family, tuple(range(self.n)), ()))
        side._answers[name] = synthetic.answers(rows)
        return self

    def controlled(self, **controls: float) -> "Situation":
        """With all controls of a good attack, except for those that are given."""
        usual: dict[str, float] = {
            UNBOUNDED: 0,
            **dict(zip(map(swept, FACTORS), (40, 30, 10, 0), strict=True)),
        }
        for name, right in (usual | controls).items():
            self.given(name, right, setting="control", family="control")
        return self

    def judged(self, check: checks.Check) -> Finding:
        found = check(self.evidence)
        assert (found.mend != "") == (found.status == "fail") or found.status == "warn", found
        return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


# ---------------------------------------------------------------- gradients against everybody else
@pytest.mark.parametrize(
    ("others", "status"),
    [(30, "pass"), (29, "warn"), (28, "warn"), (20, "fail"), (40, "pass")],
)
@pytest.mark.parametrize("family", ["transfer", "no gradient"])
def test_attacks_without_its_gradient_may_win_an_image_by_luck_and_not_ten(
    others: int, status: str, family: Family, folder: Path
) -> None:
    s = Situation(folder).given(PGD, 30).given("other", others, family=family)
    assert s.judged(checks.white_box_wins).status == status


def test_only_the_examples_that_everybody_attacked_are_compared(folder: Path) -> None:
    """Attackers without gradients begin with the first 50; what they win of the last 10 compares with nothing."""
    late = [float(i < 30) for i in range(POOL)] + [0.0] * 10
    s = Situation(folder).given(PGD, [float(i < 30) for i in range(POOL)] + [1.0] * 10)
    s.given("other", late, family="no gradient")
    found = s.judged(checks.white_box_wins)
    assert (found.status, "50 images" in found.evidence) == ("pass", True)


def test_without_other_attackers_or_gradients_there_is_nothing_to_compare(folder: Path) -> None:
    assert Situation(folder).given(PGD, 30).judged(checks.white_box_wins).status == "not run"
    blind = Situation(folder, differentiable=False).given("other", 30, family="no gradient")
    found = blind.judged(checks.white_box_wins)
    assert (found.status, "No gradient" in found.evidence) == ("not run", True)


@pytest.mark.parametrize(
    ("check", "control"), [(checks.random_loses, RANDOM), (checks.single_loses, SINGLE)]
)
@pytest.mark.parametrize(("right", "status"), [(30, "pass"), (29, "warn"), (20, "fail")])
def test_weaker_attacks_win_nothing_more(
    check: checks.Check, control: str, right: int, status: str, folder: Path
) -> None:
    s = Situation(folder).given(PGD, 30).controlled(**{control: right})
    assert s.judged(check).status == status


@pytest.mark.parametrize(
    "check",
    [
        checks.unbounded,
        checks.random_loses,
        checks.single_loses,
        checks.monotone,
        checks.converged,
        checks.restarted,
    ],
)
def test_without_controls_their_checks_are_not_run(check: checks.Check, folder: Path) -> None:
    assert Situation(folder).given(PGD, 30).judged(check).status == "not run"


@pytest.mark.parametrize(
    "check", [checks.random_loses, checks.single_loses, checks.converged, checks.restarted]
)
def test_where_gradients_left_none_of_the_controls_nothing_can_win_more(
    check: checks.Check, folder: Path
) -> None:
    assert Situation(folder).given(PGD, 0).controlled().judged(check).status == "pass"


# ---------------------------------------------------------------- budgets
@pytest.mark.parametrize(("left", "status"), [(0, "pass"), (2, "pass"), (4, "warn"), (12, "fail")])
def test_without_a_bound_nothing_is_left(left: int, status: str, folder: Path) -> None:
    s = Situation(folder).given(PGD, 30).controlled(**{UNBOUNDED: left})
    assert s.judged(checks.unbounded).status == status


@pytest.mark.parametrize(("far", "status"), [(10, "pass"), (11, "warn"), (25, "fail")])
def test_accuracy_does_not_rise_with_the_budget(far: int, status: str, folder: Path) -> None:
    s = Situation(folder).given(PGD, 30).controlled(**{swept(4.0): far})
    found = s.judged(checks.monotone)
    assert found.status == status
    assert f"4 ε {100 * far / POOL:.0f} %" in found.evidence


@pytest.mark.parametrize(
    ("check", "control"), [(checks.converged, DOUBLED), (checks.restarted, RESTARTED)]
)
@pytest.mark.parametrize(("right", "status"), [(30, "pass"), (28, "warn"), (20, "fail")])
def test_more_of_the_same_wins_nothing(
    check: checks.Check, control: str, right: int, status: str, folder: Path
) -> None:
    s = Situation(folder).given(PGD, 30).controlled(**{control: right})
    assert s.judged(check).status == status


# ---------------------------------------------------------------- a gradient to follow
@pytest.mark.parametrize(
    ("blind", "status"), [(0, "pass"), (3, "pass"), (20, "warn"), (50, "fail")]
)
def test_a_gradient_that_vanishes_on_most_images_is_none(
    blind: int, status: str, folder: Path
) -> None:
    s = Situation(folder).given(PGD, 30)
    slope = np.where(np.arange(N) < blind, 0.0, 1.0)
    s.evidence.mine._examples[PGD] = pa.table({"index": np.arange(N), "slope": slope})
    assert s.judged(checks.gradients).status == status


def test_where_no_attack_looked_nobody_knows_of_the_gradient(folder: Path) -> None:
    assert Situation(folder).judged(checks.gradients).status == "not run"


# ---------------------------------------------------------------- randomness
@pytest.mark.parametrize(
    ("ladder", "status"),
    [
        ({1: 0.5, 2: 0.5}, "pass"),  # the second rung wins nothing
        ({1: 0.5, 2: 0.25}, "fail"),  # a quarter of all draws more
        (
            {1: 0.5, 2: 0.4375},
            "fail",
        ),  # 6 points: less than the budget's half-width, and surely there
        ({1: 0.5, 2: 0.25, 4: 0.25}, "pass"),  # the last doubling tells
        ({1: 0.9, 2: 0.0}, "pass"),  # less than a point is left
    ],
)
def test_draws_are_enough_where_another_doubling_would_win_less_than_a_point(
    ladder: dict[int, float], status: str, folder: Path
) -> None:
    s = Situation(folder, random=True, n=360)
    for draws, share in ladder.items():
        s.given(rung(draws), [share] * 360)
    assert s.judged(checks.eot).status == status


@pytest.mark.parametrize(
    ("beside", "last", "status"),
    [
        (0.5, 0.25, "fail"),  # a quarter of all draws beyond all that was known
        (0.25, 0.25, "pass"),  # another attack had won as much before
        (0.25, 0.125, "fail"),
        (0.9, 0.5, "pass"),
    ],
)
def test_draws_that_are_doubled_last_count_what_they_win_over_all_other_attacks(
    beside: float, last: float, status: str, folder: Path
) -> None:
    s = Situation(folder, random=True, n=360)
    low = s.evidence.request.budget.draws
    for name, share in ((rung(low // 2), 0.5), (rung(low), 0.5), ("APGD", beside)):
        s.given(name, [share] * 360)
    s.given("control: other", [0.0] * 360, setting="control", family="control")
    found = s.given(rung(2 * low), [last] * 360).judged(checks.eot)
    assert (found.status, "below all attacks before" in found.evidence) == (status, True)
    assert s.evidence.draws_of_attacks == low


@pytest.mark.parametrize(("lost", "status"), [(0, "pass"), (6, "warn"), (20, "fail")])
def test_a_doubling_fails_where_it_surely_wins_more_than_a_point(
    lost: int, status: str, folder: Path
) -> None:
    """Of 360 images 6 are 1.7 points, with 1 in their interval; 20 are 5.6."""
    s = Situation(folder, random=True, n=360).given(rung(1), [1.0] * 360)
    found = s.given(rung(2), [0.0] * lost + [1.0] * (360 - lost)).judged(checks.eot)
    assert found.status == status


def test_a_doubling_that_may_have_won_something_is_remarked(folder: Path) -> None:
    """60 images that nothing moves show less than 5 points, and not less than 1."""
    s = Situation(folder, random=True).given(rung(1), [0.5] * N).given(rung(2), [0.5] * N)
    found = s.judged(checks.eot)
    assert (found.status, "Not shown to be saturated" in found.evidence) == ("warn", True)


def test_a_ladder_of_one_rung_says_nothing_of_more_draws(folder: Path) -> None:
    assert Situation(folder, random=True).given(PGD, 0.5).judged(checks.eot).status == "not run"
    assert Situation(folder / "fixed").given(PGD, 30).judged(checks.eot).status == "pass"
    decided = Situation(folder / "decided", random=True).given(PGD, 0)
    assert decided.judged(checks.eot).status == "pass"


@pytest.mark.parametrize(
    ("left", "status"), [(20, "pass"), (30, "pass"), (31, "pass"), (45, "fail")]
)
def test_a_defense_whose_randomness_is_frozen_is_no_harder(
    left: int, status: str, folder: Path
) -> None:
    """One image more is within the noise of fresh draws; where nothing is random it would be worth a remark."""
    s = Situation(folder, random=True).given(PGD, 30)
    s.given(CLEAN, N, setting="clean", family="none", frozen=True)
    s.given(FROZEN, left, setting="control", family="control", frozen=True)
    assert s.judged(checks.frozen).status == status


def test_randomness_that_was_not_frozen_says_nothing(folder: Path) -> None:
    assert Situation(folder, random=True).given(PGD, 30).judged(checks.frozen).status == "not run"
    assert Situation(folder / "fixed").given(PGD, 30).judged(checks.frozen).status == "pass"


def test_luck_is_said_and_not_counted(folder: Path) -> None:
    """Each of three attacks errs on a quarter of the draws, on others: by luck 75 % were broken; 25 % are."""
    s = Situation(folder, random=True)
    for i in range(3):
        s.given(f"attack {i}", [0.75] * N)
        shifted = np.roll(np.tile(np.arange(DRAWS) % 4 > 0, (N, 1)), i, axis=1)
        s.evidence.mine._answers[f"attack {i}"] = synthetic.answers(shifted)
    found = s.judged(checks.luck)
    assert found.status == "pass"
    assert "+50.0 points" in found.evidence
    assert s.evidence.headline.value == pytest.approx(0.75)
    alone = Situation(folder / "fixed").given(PGD, 30).judged(checks.luck)
    assert (alone.status, alone.evidence) == ("pass", "Nothing is random: no answer is lucky.")


# ---------------------------------------------------------------- planted adversarials
def planted(attacked: int, random: int = 0) -> pa.Table:
    rows = np.arange(40)
    columns = {"constructed": rows < 40, "random": rows < random, "attacked": rows < attacked}
    return pa.table({n: pa.array(c) for n, c in columns.items()})


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        (planted(40), "pass"),
        (planted(37), "warn"),
        (planted(20), "fail"),
        (planted(40, random=35), "not run"),
    ],
)
def test_an_attack_finds_what_was_planted_for_it(rows: pa.Table, status: str, folder: Path) -> None:
    s = Situation(folder).given(PGD, 30)
    s.evidence.other[f"{BINARIZED}, 0"] = rows
    assert s.judged(checks.planted).status == status


def test_where_nothing_was_planted_nothing_is_known(folder: Path) -> None:
    assert Situation(folder).given(PGD, 30).judged(checks.planted).status == "not run"


# ---------------------------------------------------------------- images, answers, the user's attacks
@pytest.mark.parametrize(("right", "status"), [(1, "pass"), (30, "fail")])
def test_the_interval_is_as_narrow_as_promised(right: int, status: str, folder: Path) -> None:
    """60 images: 12 points at 50 %, 4 near 0; quick promises 8."""
    found = Situation(folder).given(PGD, right).judged(checks.enough)
    assert (found.status, "promises 8.0" in found.evidence) == (status, True)


@pytest.mark.parametrize(("silent", "status"), [(0, "pass"), (1, "fail")])
def test_an_image_without_an_answer_is_said(silent: int, status: str, folder: Path) -> None:
    s = Situation(folder)
    rows = s.evidence.mine._answers[CLEAN]
    said = rows["predicted"].to_numpy().copy()
    said[:silent] = -1
    at = rows.schema.get_field_index("predicted")
    s.evidence.mine._answers[CLEAN] = rows.set_column(at, "predicted", pa.array(said))
    assert s.judged(checks.answered).status == status


@pytest.mark.parametrize(
    ("right", "status"), [(30, "pass"), (29, "warn"), (20, "fail"), (None, "pass")]
)
def test_the_users_attacks_win_nothing_that_ours_do_not(
    right: int | None, status: str, folder: Path
) -> None:
    s = Situation(folder).given(PGD, 30)
    if right is not None:
        s.given("yours 1: PGD", right, family="yours")
    assert s.judged(checks.yours).status == status
    # Whoever won them, the headline counts them.
    assert s.evidence.headline.value == min(30, 30 if right is None else right) / N


def test_what_is_left_out_for_time_is_the_reason(folder: Path) -> None:
    s = Situation(folder).given(PGD, 30)
    s.evidence.skip("controls of the attack")
    found = s.judged(checks.monotone)
    assert (found.status, "Left out for time: controls" in found.evidence) == ("not run", True)


def test_what_is_decided_needs_no_control(folder: Path) -> None:
    found = Situation(folder).given(PGD, 0).judged(checks.monotone)
    assert (found.status, found.evidence) == ("not run", "Not needed: nothing is left to win.")


def test_the_pool_is_what_the_budget_says(folder: Path) -> None:
    assert Situation(folder).evidence.pool == tuple(range(POOL))
    assert request(fakes.plain()).epsilon == EPSILON
