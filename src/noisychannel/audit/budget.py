"""How hard an audit tries: what each budget spends, and how sure its headline has to be."""

from dataclasses import dataclass, fields

from noisychannel.errors import UserError, expected

__all__ = ["BUDGETS", "Budget", "budget_of"]


@dataclass(frozen=True)
class Budget:
    """What an audit may spend on one image, and what it promises.

    Args:
        name: as users call it.
        half_width: of the headline's 95 % interval, beyond which the audit is under-powered (Wilson at 50 %: 150
            images for .08, 475 for .045, 940 for .032).
        steps: gradients of one run of a white-box attack, each over the attacker's draws.
        most_draws: where the ladder of draws per gradient ends.
        draws: where its first part ends, and per gradient of the attacks beside the ladder.
        draws_of_questions: that who has no gradient averages for one answer, and who guesses the channel for a
            gradient.
        selection: draws on which an attack on random answers compares the few candidates that it kept; half as many in
            controls.
        restarts: runs of the white-box attack whose loss did best.
        targets: classes aimed at by the targeted attack.
        queries: of each black-box attack.
        directions: random points of the ball.
        inner: points around each planted one of the binarization test.
        controls: images on which controls are made; they tell a broken attack, not a percentage.
        scoring: draws on which a random defense is scored.

    Raises:
        UserError: a number out of range.
    """

    name: str
    half_width: float
    steps: int
    most_draws: int
    draws: int
    draws_of_questions: int
    selection: int
    restarts: int
    targets: int
    queries: int
    directions: int
    inner: int
    controls: int
    scoring: int

    def __post_init__(self) -> None:
        if not 0 < self.half_width < 1:
            raise expected("half_width", "a share in (0, 1)", self.half_width)
        for field in fields(self):
            number = getattr(self, field.name)
            if isinstance(number, int) and number < 1:
                raise expected(field.name, "a whole number ≥ 1", number)

    @property
    def ladder(self) -> tuple[int, ...]:
        """Draws per gradient: 1, 2, 4 … `most_draws`."""
        rungs = [1]
        while rungs[-1] < self.most_draws:
            rungs.append(min(2 * rungs[-1], self.most_draws))
        return tuple(rungs)


BUDGETS: tuple[Budget, ...] = (
    Budget(
        name="quick",
        half_width=0.08,
        steps=20,
        most_draws=8,
        draws=4,
        draws_of_questions=1,
        selection=8,
        restarts=3,
        targets=3,
        queries=400,
        directions=100,
        inner=99,
        controls=32,
        scoring=24,
    ),
    Budget(
        name="standard",
        half_width=0.045,
        steps=100,
        most_draws=64,
        draws=16,
        draws_of_questions=4,
        selection=16,
        restarts=5,
        targets=9,
        queries=5000,
        directions=1000,
        inner=999,
        controls=100,
        scoring=64,
    ),
    Budget(
        name="deep",
        half_width=0.032,
        steps=200,
        most_draws=64,
        draws=64,
        draws_of_questions=16,
        selection=16,
        restarts=10,
        targets=9,
        queries=20_000,
        directions=10_000,
        inner=999,
        controls=200,
        scoring=128,
    ),
)


def budget_of(name: str) -> Budget:
    """A budget by name.

    Raises:
        UserError: another name.
    """
    for budget in BUDGETS:
        if name == budget.name:
            return budget
    known = ", ".join(b.name for b in BUDGETS)
    raise UserError(f"budget: expected one of {known}, got {name!r}")
