"""What is asked at the end: a hundred draws of the worst images, and whether certificates hold at them."""

import pyarrow as pa
import pytest

import fakes_networks as fakes
import reported
from noisychannel.audit.again import TRIED
from noisychannel.audit.certificates import certificate
from noisychannel.audit.conduct import Judged
from noisychannel.audit.consistency import NAME
from noisychannel.audit.levels import worst_images
from noisychannel.audit.target import target
from noisychannel.audit.tries import patience
from noisychannel.channels import FC, Gauss, Identity
from noisychannel.data import DataSpec
from noisychannel.decision import Single, Vote
from noisychannel.defenses import Defense
from noisychannel.engine import Execution
from noisychannel.errors import UserError
from noisychannel.experiments.setting import digits_network
from noisychannel.networks import Foreign
from noisychannel.norms import L2


@pytest.fixture(scope="module")
def smoothed() -> Judged:
    """Gaussian noise before a network, attacked in L2: what certificates speak of."""
    plain = Foreign(fakes.plain(), fakes.SHAPE, "plain")
    return reported.small(Defense(plain, Gauss(0.3)), name="gauss:0.3", norm=L2(), epsilon=0.2)


def test_a_random_defense_is_asked_a_hundred_times_about_its_worst_images() -> None:
    judged = reported.noisy()
    rows = judged.evidence.joined(TRIED)
    assert rows is not None
    assert rows.num_rows == 100 * reported.IMAGES
    assert sorted(set(rows["index"].to_pylist())) == list(range(reported.IMAGES))
    found = patience(judged)
    assert found is not None
    assert found.single.reach == 100
    # The same images under other draws: the two estimates of what is left agree.
    left, headline = found.single.estimates[0], judged.headline
    assert abs(left.value - headline.value) < 0.15
    assert len(worst_images(judged.evidence.mine).x) == reported.IMAGES


def test_a_voting_one_is_asked_for_ten_decisions_at_least() -> None:
    plain = Foreign(fakes.plain(), fakes.SHAPE, "plain")
    defense = Defense(plain, Gauss(0.2), Vote(12))
    judged = reported.small(defense, name="vote", data=fakes.digits(count=4))
    rows = judged.evidence.joined(TRIED)
    assert rows is not None
    assert rows.num_rows == 120 * 4


def test_nothing_is_tried_again_where_nothing_is_random() -> None:
    assert reported.robust().evidence.joined(TRIED) is None


def test_certificates_hold_at_attacked_images(smoothed: Judged) -> None:
    finding = next(f for f in smoothed.findings if f.name == NAME)
    assert finding.status == "pass"
    assert "attacked within their certified radius, 0 lost" in finding.evidence


def test_a_certificate_of_another_class_fails(smoothed: Judged) -> None:
    """As if it had been issued for other noise than that which is voted under."""
    e = smoothed.evidence
    honest = dict(e.other)
    try:
        for name, rows in honest.items():
            if name.startswith(NAME):
                wrong = (rows["predicted"].to_numpy() + 1) % 10
                where = rows.schema.get_field_index("predicted")
                field = rows.schema.field("predicted")
                e.other[name] = rows.set_column(where, field, pa.array(wrong, field.type))
        assert certificate(e).status == "fail"
    finally:
        e.other.update(honest)


def test_certificates_are_not_asked_for_where_they_say_nothing() -> None:
    for judged in (reported.voted(), reported.robust()):  # L∞, and no noise
        finding = next(f for f in judged.findings if f.name == NAME)
        assert finding.status == "not run"


def test_off_is_the_same_at_strength_zero() -> None:
    data = DataSpec("digits", "test", "first:4")
    network = digits_network(Execution())
    whole = target("fc:50", data, lambda: network, Single())
    assert whole.channel == FC(50)
    left = target("off:fc:50", data, lambda: network, Single())
    assert (left.network, left.channel) == (whole.network, Identity())
    with pytest.raises(UserError, match=r"off:identity: expected a defense that can be switched"):
        target("off:identity", data, lambda: network, Single())


def test_gain_is_none_where_noise_makes_the_network_guess() -> None:
    """Of ten classes one in ten is right by guessing, and nothing is left of the network without noise."""
    plain = Foreign(fakes.plain(), fakes.SHAPE, "plain")
    drowned = reported.small(
        Defense(plain, Gauss(5.0)), name="gauss:5", epsilon=0.5, data=fakes.digits(count=60)
    )
    assert drowned.headline.value < 0.2
    assert drowned.difference is not None
    assert drowned.difference.value > 0
    assert drowned.gain != "REAL"
