"""A part's name: equal parts have equal keys, and every number, text, version and fingerprint is in the key."""

import json
import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisychannel.attacks import DDN, PGD, Minimise
from noisychannel.channels import CD, FC, SVD, Chain, Clip, Gauss, Uniform
from noisychannel.decision import MeanProb, Vote
from noisychannel.errors import UserError
from noisychannel.norms import L2
from noisychannel.spec import canonical, describe, key


@dataclass(frozen=True)
class Inner:
    version: ClassVar[int] = 1
    sigma: float = 0.5
    steps: int = 3


@dataclass(frozen=True)
class Part:
    version: ClassVar[int] = 1
    scale: float = 1.0
    maybe: float | None = None
    mean: tuple[float, ...] = ()
    pair: tuple[float, int] = (1.0, 1)
    either: int | float = 1
    spans: tuple[tuple[float, ...], ...] | None = None
    count: int = 1
    name: str = "a"
    flag: bool = True
    inner: Inner = Inner()
    many: tuple[Inner, ...] = (Inner(), Inner(sigma=0.25))
    shown: float = field(default=1.0, repr=True)
    live: Any = field(default=None, repr=False)


PART = Part()
OTHERS: list[dict[str, Any]] = [
    {"scale": math.nextafter(1.0, 2.0)},
    {"scale": math.inf},
    {"scale": -math.inf},
    {"maybe": 0.0},
    {"maybe": 1.0},
    {"mean": (0.5,)},
    {"mean": (0.5, 0.5)},
    {"mean": (0.5, 0.25)},
    {"mean": (0.25, 0.5)},
    {"pair": (1.0, 2)},
    {"pair": (2.0, 1)},
    {"either": 1.5},
    {"spans": ()},
    {"spans": ((1.0,),)},
    {"spans": ((1.0, 2.0),)},
    {"spans": ((1.0,), (2.0,))},
    {"count": 2},
    {"count": 2**62},
    {"name": "A"},
    {"name": ""},
    {"name": "σ"},
    {"name": 'a"'},
    {"flag": False},
    {"inner": Inner(sigma=0.25)},
    {"inner": Inner(steps=4)},
    {"many": ()},
    {"many": (Inner(sigma=0.25), Inner())},
    {"many": (Inner(),)},
    {"shown": 2.0},
]


def test_every_value_is_in_the_key() -> None:
    keys = {key(replace(PART, **change)) for change in OTHERS}
    assert len(keys | {key(PART)}) == len(OTHERS) + 1


def test_key_is_a_hash_of_the_text() -> None:
    assert len(key(PART)) == 32
    assert set(key(PART)) <= set("0123456789abcdef")
    assert json.loads(canonical(PART)) == describe(PART)
    assert " " not in canonical(Gauss(0.1))


@pytest.mark.parametrize("raised", [Part, Inner])
def test_version_is_in_the_key(raised: type, monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(PART)
    monkeypatch.setattr(raised, "version", 2)
    assert key(PART) != before


def test_the_type_is_in_the_key() -> None:
    assert key(Gauss(0.1)) != key(Uniform(0.1))
    assert key(Vote(4)) != key(MeanProb(4))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Gauss(1), Gauss(1.0)),
        (PGD(step_size=1), PGD(step_size=1.0)),
        (SVD(10, (0, 1)), SVD(10.0, (0.0, 1.0))),
        (Chain(Gauss(1), Clip(0, 1)), Chain(Gauss(1.0), Clip(0.0, 1.0))),
        (Part(pair=(1, 1)), Part(pair=(1.0, 1))),
        (Part(spans=((1, 2),)), Part(spans=((1.0, 2.0),))),
        (Part(many=(Inner(sigma=1),)), Part(many=(Inner(sigma=1.0),))),
        (Gauss(-0.0), Gauss(0.0)),
        (CD(values=16), CD(bits=4)),
    ],
    ids=repr,
)
def test_equal_parts_have_equal_keys(one: object, other: object) -> None:
    """Caches and sets take equal parts for one another, so their keys must not differ."""
    assert one == other
    assert hash(one) == hash(other)
    assert key(one) == key(other)


def test_integers_stay_integers_where_declared() -> None:
    assert describe(Part(count=3))["count"] == 3
    assert isinstance(describe(Part(count=3))["count"], int)
    assert isinstance(describe(Part(pair=(1, 2)))["pair"][1], int)
    assert isinstance(describe(Part())["either"], int)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
@settings(max_examples=200, deadline=None)
def test_floats_are_told_apart_to_the_last_bit(a: float, b: float) -> None:
    assert (key(Part(scale=a)) == key(Part(scale=b))) is (a == b)
    assert key(Part(scale=a)) == key(Part(scale=float(repr(a))))


def test_field_order_does_not_matter() -> None:
    """The same class with its fields in another order has the same text."""

    def made(order: list[str]) -> object:
        kind = type(
            "Made", (), {"__annotations__": dict.fromkeys(order, float), "a": 1.0, "b": 2.0}
        )
        return dataclass(frozen=True)(kind)()

    assert canonical(made(["a", "b"])) == canonical(made(["b", "a"]))
    assert describe({"x": 1, "y": 2}) == describe({"y": 2, "x": 1})
    assert canonical({"x": 1, "y": 2}) == canonical({"y": 2, "x": 1})


@dataclass(frozen=True)
class Marked:
    version: ClassVar[int] = 1
    print_of: str = field(repr=False)
    path: str = field(repr=False, default="/here")

    def fingerprint(self) -> str:
        return self.print_of


def test_the_fingerprint_is_in_the_key_and_live_objects_are_not() -> None:
    assert key(Marked("a")) != key(Marked("b"))
    assert key(Marked("a", "/here")) == key(Marked("a", "/there"))
    assert key(Part(live=torch.zeros(1))) == key(Part())
    assert key((Marked("a"),)) != key((Marked("b"),))


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (math.nan, "spec: expected numbers, got NaN"),
        (torch.zeros(1), "expected frozen dataclasses of numbers, text and lists, got a Tensor"),
        (len, "got a builtin_function_or_method"),
        (b"bytes", "got a bytes"),
        ({1, 2}, "got a set"),
        (Gauss, "got a type"),
        (1j, "got a complex"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_what_has_no_canonical_form_is_refused(value: object, sentence: str) -> None:
    @dataclass(frozen=True)
    class Holder:
        value: Any

    for part in (value, Holder(value), [value], {"deep": (Holder(value),)}):
        with pytest.raises(UserError, match=sentence):
            key(part)


# Golden rows: a change here renames every stored artifact. If that is meant, raise the part's version
# (its behaviour changed) or say in CHANGELOG.md that stores begin anew (the canonical form changed).
GOLDEN = [
    (
        Gauss(0.1),
        '{"sigma":0.1,"type":"channels.additive.Gauss","version":1}',
        "d1be5d43d29958a285951f8476137358",
    ),
    (
        Chain(CD(4), Clip()),
        (
            '{"parts":[{"bits":4,"type":"channels.colour_depth.CD","values":null,"version":1},'
            '{"high":1.0,"low":0.0,"type":"channels.plain.Clip","version":1}],'
            '"type":"channels.chain.Chain","version":1}'
        ),
        "62636581df43e5cc1074a8fe10b55b7c",
    ),
    (
        FC(30, mask="authors"),
        '{"compression":30.0,"mask":"authors","type":"channels.frequency.FC","version":1}',
        "ed7a8c973334901cf657875425de7fc9",
    ),
    (Vote(16), '{"k":16,"type":"decision.Vote","version":1}', "234f601cc700c3735072b72a737fcbd8"),
    (
        DDN(),
        '{"gamma":0.2,"initial":1.0,"last_gamma":0.01,"steps":50,"type":"attacks.ddn.DDN","version":3}',
        "6064b1bfd86b6a737c549a5da3af0391",
    ),
    (
        PGD(L2(), epsilon=1),
        (
            '{"epsilon":1.0,"keep":"best","loss":{"type":"objectives.CrossEntropy","version":1},'
            '"norm":{"type":"norms.L2","version":2},"random_start":true,"restarts":1,"step_size":null,"steps":40,'
            '"stop_early":false,"type":"attacks.gradient.PGD","version":2}'
        ),
        "026cc9a2aeb7744cf245897933c6c4a5",
    ),
    (Minimise(), None, "3f01258d70cf144bdb6727712542ca64"),
]


@pytest.mark.parametrize(("part", "text", "name"), GOLDEN, ids=lambda v: type(v).__name__)
def test_golden_keys(part: object, text: str | None, name: str) -> None:
    if text is not None:
        assert canonical(part) == text
    assert key(part) == name
