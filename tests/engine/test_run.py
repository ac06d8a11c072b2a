"""Plans and tasks: keys, resuming, and the promise that equal keys mean equal bytes."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from linear import FixedNetwork, LinearNetwork
from noisychannel.attacks import DDN, PGD
from noisychannel.channels import FC, Gauss
from noisychannel.data import DataSpec, from_arrays
from noisychannel.decision import Vote
from noisychannel.defenses import PNI, Defense, Operated
from noisychannel.engine import (
    Craft,
    Execution,
    Measure,
    Plan,
    Store,
    Task,
    Train,
    Trained,
    adversarials,
    key_of,
    plan,
    run,
    serial,
    table,
)
from noisychannel.errors import MissingArtifact, StoreError, UserError
from noisychannel.networks import Foreign, SmallNet
from noisychannel.norms import L2
from noisychannel.threats import adaptive, non_adaptive
from noisychannel.training import Recipe

DATA = DataSpec("digits", subset="first:20")
NETWORK = LinearNetwork(shape=(1, 8, 8), classes=10, gain=5.0)
DEFENSE = Defense(NETWORK, Gauss(0.1))
HOW = Execution(micro_batch=8, threads=1)
CRAFT = Craft(DATA, adaptive(DEFENSE, draws=2), PGD(L2(), epsilon=0.5, steps=5), execution=HOW)
MEASURE = Measure(DATA, DEFENSE, CRAFT, draws=3, execution=HOW)
TRAIN = Train(
    SmallNet(width=2),
    DataSpec("digits", subset="first:40"),
    Recipe(epochs=1, batch_size=20),
    execution=HOW,
)


def unwatched(whole: Plan, todo: Plan) -> Callable[[float], None]:
    return [].append


def made(root: Path, *tasks: Task) -> Store:
    store = Store(root)
    run(tasks, store, serial, unwatched)
    return store


def joined(tables: list[pa.Table], name: str) -> list[Any]:
    return pa.concat_tables(tables)[name].to_pylist()


def bytes_of(store: Store) -> dict[str, bytes]:
    files = [p for p in (store.root / "objects").rglob("*") if p.is_file() and p.name != "run.json"]
    return {str(p.relative_to(store.root)): p.read_bytes() for p in files}


# ---------------------------------------------------------------- plans


def test_needs_come_first_and_once() -> None:
    trained = Defense(Trained(TRAIN), Gauss(0.1))
    crafts = [Craft(DATA, threat, DDN()) for threat in (non_adaptive(trained), adaptive(trained))]
    measures = [Measure(DATA, trained, craft) for craft in crafts]
    wanted = [*measures, *crafts, Measure(DATA, trained), measures[0], replace(measures[1])]
    tasks = plan(wanted).tasks
    keys = [key_of(t) for t in tasks]
    assert len(tasks) == len(set(keys)) == 6
    assert keys[0] == key_of(TRAIN)
    for place, task in enumerate(tasks):
        assert all(keys.index(key_of(need)) < place for need in task.needs())
    assert set(keys) == {key_of(t) for t in [TRAIN, *crafts, *measures, Measure(DATA, trained)]}
    assert plan([]).tasks == ()
    assert plan(wanted).work == sum(t.work for t in tasks)


def test_a_training_begins_from_another_s_weights(tmp_path: Path) -> None:
    noisy = replace(TRAIN, network=Operated(TRAIN.network, PNI()), start=TRAIN)
    assert key_of(noisy) != key_of(replace(noisy, start=None))
    still = replace(noisy, recipe=Recipe(epochs=1, batch_size=20, learning_rate=1e-30))
    store = made(tmp_path, still)
    first, after = (
        safetensors.torch.load(store.read(key_of(t), "weights.safetensors")) for t in (TRAIN, still)
    )
    assert first.keys() <= after.keys()
    assert all(name.endswith("alpha_w") for name in after.keys() - first.keys())
    assert torch.equal(first["classifier.weight"], after["classifier.weight"])
    other = replace(TRAIN, network=SmallNet(width=3), start=TRAIN)
    with pytest.raises(UserError, match="start: expected a training of the same network"):
        made(tmp_path, other)


def test_resuming_is_plan_minus_store(tmp_path: Path) -> None:
    clean = Measure(DATA, DEFENSE, execution=HOW)
    store = made(tmp_path, CRAFT)
    whole = plan([MEASURE, clean])
    assert [key_of(t) for t in whole.todo(store).tasks] == [key_of(MEASURE), key_of(clean)]
    before = bytes_of(store)
    seen: list[tuple[int, int]] = []

    def watch(whole: Plan, todo: Plan) -> Callable[[float], None]:
        seen.append((len(whole.tasks), len(todo.tasks)))
        return ticks.append

    ticks: list[float] = []
    run([MEASURE, clean], store, serial, watch)
    assert seen == [(3, 2)]
    assert sum(ticks) == pytest.approx(MEASURE.work + clean.work)
    assert before.items() <= bytes_of(store).items()
    run([MEASURE, clean], store, serial, watch)
    assert seen[-1] == (3, 0)
    assert whole.todo(store).tasks == ()


def test_nothing_runs_where_nothing_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    def executor(todo: Plan, store: Store, tick: Callable[[float], None]) -> None:
        raise AssertionError

    with pytest.raises(StoreError, match="cannot be written"):
        run([CRAFT], Store(tmp_path / "file"), executor, unwatched)


def test_reading_what_was_not_made(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifact, match="not computed yet"):
        table(Store(tmp_path), CRAFT)
    with pytest.raises(MissingArtifact, match="not computed yet"):
        adversarials(Store(tmp_path), CRAFT)


# ---------------------------------------------------------------- keys


def others() -> dict[str, tuple[Task, Task]]:
    """Pairs of tasks that differ in one thing."""
    executions = {
        "threads": replace(HOW, threads=2),
        "device": replace(HOW, device="cuda"),
        "micro batch": replace(HOW, micro_batch=9),
        "max rows": replace(HOW, max_rows=100),
    }
    found: dict[str, tuple[Task, Task]] = {}
    for name, how in executions.items():
        for task in (CRAFT, MEASURE, TRAIN):
            found[f"{name} of {type(task).__name__}"] = (task, replace(task, execution=how))
    for task in (CRAFT, MEASURE, TRAIN):
        found[f"seed of {type(task).__name__}"] = (task, replace(task, seed=1))
    threat = CRAFT.threat
    crafts = {
        "epsilon": replace(CRAFT, attack=replace(CRAFT.attack, epsilon=0.6)),
        "steps": replace(CRAFT, attack=replace(CRAFT.attack, steps=6)),
        "norm": replace(CRAFT, attack=PGD(epsilon=0.5, steps=5)),
        "target": replace(CRAFT, target_offset=1),
        "eot draws": replace(CRAFT, threat=replace(threat, draws=3)),
        "averaged": replace(CRAFT, threat=replace(threat, averaged="mean_logit")),
        "backward": replace(CRAFT, threat=replace(threat, backward="at_input")),
        "selection": replace(CRAFT, threat=replace(threat, selection_draws=8)),
        "channel": replace(CRAFT, threat=adaptive(Defense(NETWORK, Gauss(0.2)), draws=2)),
        "rule": replace(CRAFT, threat=adaptive(replace(DEFENSE, decision=Vote(3)), draws=2)),
        "network": replace(
            CRAFT, threat=adaptive(Defense(replace(NETWORK, seed=1), Gauss(0.1)), draws=2)
        ),
        "subset": replace(CRAFT, data=DataSpec("digits", subset="first:21")),
        "split": replace(CRAFT, data=DataSpec("digits", "train", "first:20")),
        "slice": replace(CRAFT, data=DATA.slice(0, 20)),
    }
    found |= {f"{name} of Craft": (CRAFT, other) for name, other in crafts.items()}
    measures = {
        "draws": replace(MEASURE, draws=4),
        "clean": replace(MEASURE, craft=None),
        "rescaled": replace(MEASURE, rescale_l2=0.5),
        "defense": replace(MEASURE, defense=Defense(NETWORK, Gauss(0.2))),
        "craft": replace(MEASURE, craft=replace(CRAFT, seed=1)),
    }
    found |= {f"{name} of Measure": (MEASURE, other) for name, other in measures.items()}
    recipe = TRAIN.recipe
    trains = {
        "epochs": replace(TRAIN, recipe=replace(recipe, epochs=2)),
        "rate": replace(TRAIN, recipe=replace(recipe, learning_rate=0.2)),
        "width": replace(TRAIN, network=SmallNet(width=3)),
        "initial": replace(TRAIN, network=SmallNet(width=2, seed=1)),
        "data": replace(TRAIN, data=DataSpec("digits", subset="first:60")),
    }
    found |= {f"{name} of Train": (TRAIN, other) for name, other in trains.items()}
    trained = [Measure(DATA, Defense(Trained(t))) for t in (TRAIN, replace(TRAIN, seed=1))]
    return {**found, "the training behind a Measure": (trained[0], trained[1])}


@pytest.mark.parametrize("name", others())
def test_key_changes_with(name: str) -> None:
    one, other = others()[name]
    assert key_of(one) != key_of(other)


@pytest.mark.parametrize("part", [Craft, Measure, Train, Execution, DataSpec, LinearNetwork])
def test_key_changes_with_the_version(part: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from noisychannel.spec import key

    task = TRAIN if part is Train else MEASURE
    before = key(task)
    monkeypatch.setattr(part, "version", part.version + 1)
    assert key(task) != before


def test_key_does_not_change_with_the_path(tmp_path: Path) -> None:
    """The same Parquet files in two folders are the same data; one other pixel, and they are not."""
    keys = []
    for name, pixel in (("here", 0.5), ("there/deeper", 0.5), ("other", 0.25)):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        images = [[[pixel] * 8] * 8, [[0.0] * 8] * 8]
        rows = pa.table({"image": images, "label": [0, 1]})
        pq.write_table(rows, folder / "test-00000-of-00001.parquet")
        keys.append(key_of(Craft(DataSpec(str(folder)), non_adaptive(Defense(NETWORK)), DDN())))
    assert keys[0] == keys[1] != keys[2]


def test_arrays_are_named_by_their_content() -> None:
    x, y = torch.rand(4, 1, 8, 8), [0, 1, 2, 3]
    nudged = x.clone()
    nudged[0, 0, 0, 0] = 1 - nudged[0, 0, 0, 0]
    made = [
        from_arrays(x, y),
        from_arrays(x.clone(), y, name="b"),
        from_arrays(nudged, y),
        from_arrays(x, y[::-1]),
    ]
    keys = [key_of(Measure(data, DEFENSE)) for data in made]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


class Stranger(nn.Module):
    def __init__(self, shift: float) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(shift))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :10] + self.shift * torch.arange(10.0)


def test_two_strangers_in_one_process_have_two_keys() -> None:
    networks = [Foreign(Stranger(shift).eval(), (1, 8, 8)) for shift in (0.0, 1.0)]
    assert len({key_of(Measure(DATA, Defense(n))) for n in networks}) == 2


def test_bad_tasks_are_refused() -> None:
    with pytest.raises(UserError, match="draws: expected at least the 16 of Vote"):
        Measure(DATA, replace(DEFENSE, decision=Vote(16)), draws=3)
    with pytest.raises(UserError, match="data: expected the craft's own examples"):
        Measure(DATA.slice(0, 3), DEFENSE, CRAFT)
    for name in ("threads", "micro_batch", "max_rows"):
        with pytest.raises(UserError, match=f"{name}: expected a whole number ≥ 1, got 0"):
            Execution(**{name: 0})


# ---------------------------------------------------------------- bytes


def test_same_task_same_bytes(tmp_path: Path) -> None:
    trained = Measure(DATA, Defense(Trained(TRAIN), Gauss(0.1)), draws=2, execution=HOW)
    one = bytes_of(made(tmp_path / "one", MEASURE, trained))
    torch.rand(10)
    torch.set_num_threads(2)
    made(tmp_path / "two", trained)
    two = bytes_of(made(tmp_path / "two", MEASURE))
    assert one == two
    assert len(one) == 4 + 3 + 3 + 4  # a craft, two measures, a training


def test_torchs_generator_is_neither_read_nor_moved(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    made(tmp_path, MEASURE)
    assert torch.equal(torch.get_rng_state(), before)


def test_micro_batch_and_slices_change_nobodys_fate(tmp_path: Path) -> None:
    """Same draws, so the same statuses, and distances to 1e-3."""
    x = DATA.load().x
    data = from_arrays(x, NETWORK.build()(x).argmax(dim=1), classes=10)  # right to begin with
    craft = replace(CRAFT, data=data, attack=PGD(L2(), epsilon=0.1, steps=5))
    sizes = [
        replace(craft, execution=replace(HOW, micro_batch=n, max_rows=m))
        for n, m in ((8, 512), (20, 512), (3, 512), (8, 8))
    ]
    slices = [replace(craft, data=data.slice(*part)) for part in ((0, 7), (7, 8), (8, 20))]
    store = made(tmp_path, *sizes, *slices)
    whole, *same = [table(store, craft) for craft in sizes]
    cut = [table(store, craft) for craft in slices]
    for name in ("index", "label", "status", "forwards", "backwards"):
        for other in same:
            assert other[name].to_pylist() == whole[name].to_pylist()
        assert joined(cut, name) == whole[name].to_pylist()
    for name in ("l2", "linf"):
        for other in same:
            assert other[name].to_pylist() == pytest.approx(whole[name].to_pylist(), abs=1e-3)
        assert joined(cut, name) == pytest.approx(whole[name].to_pylist(), abs=1e-3)
    assert len(set(whole["status"].to_pylist())) == 2  # else this shows little


def test_measuring_draws_are_the_same_in_slices(tmp_path: Path) -> None:
    """The clean examples, so that only draws can differ."""
    clean = Measure(DATA, DEFENSE, draws=3, execution=HOW)
    others = [
        replace(clean, execution=replace(HOW, micro_batch=3)),
        replace(clean, execution=replace(HOW, max_rows=2)),
    ]
    slices = [replace(clean, data=DATA.slice(*part)) for part in ((0, 5), (5, 20))]
    store = made(tmp_path, clean, *others, *slices)
    whole = table(store, clean)
    for rows in [table(store, m) for m in others]:
        assert rows["predicted"].to_pylist() == whole["predicted"].to_pylist()
        assert rows["margin"].to_pylist() == pytest.approx(whole["margin"].to_pylist(), abs=1e-4)
    parts = [table(store, m) for m in slices]
    for name in ("index", "draw", "predicted"):
        assert joined(parts, name) == whole[name].to_pylist()
    moved = joined(parts, "defended_l2")
    assert moved == pytest.approx(whole["defended_l2"].to_pylist(), abs=1e-5)
    assert len({round(m, 7) for m in moved}) == 60  # every example and draw has noise of its own


def test_rescaled_candidates_have_the_length(tmp_path: Path) -> None:
    plain = Defense(NETWORK)
    craft = Craft(DATA, non_adaptive(plain), PGD(L2(), epsilon=0.1, steps=5), execution=HOW)
    measure = Measure(DATA, plain, craft, rescale_l2=0.05, execution=HOW)
    rows = table(made(tmp_path, measure), measure)
    assert rows["defended_l2"].to_pylist() == pytest.approx([0.05] * 20, rel=0.3)
    assert max(rows["defended_l2"].to_pylist()) <= 0.05 * (1 + 1e-5)


def test_tables_hold_what_was_made(tmp_path: Path) -> None:
    """Distances by hand from the stored candidates; labels, margins and probabilities that agree."""
    store = made(tmp_path, MEASURE)
    rows, draws, x = table(store, CRAFT), table(store, MEASURE), adversarials(store, CRAFT)
    clean = DATA.load()
    assert rows["index"].to_pylist() == clean.index.tolist()
    assert rows["label"].to_pylist() == clean.y.tolist()
    assert rows["target"].to_pylist() == [-1] * 20
    torch.testing.assert_close(
        torch.tensor(rows["l2"].to_pylist()),
        (x - clean.x).flatten(1).norm(dim=1),
        check_dtype=False,
    )
    p = torch.tensor(draws["probabilities"].to_pylist())
    assert p.shape == (60, 10)
    torch.testing.assert_close(p.sum(dim=1), torch.ones(60))
    assert p.argmax(dim=1).tolist() == draws["predicted"].to_pylist()
    wrong = [m < 0 for m in draws["margin"].to_pylist()]
    same = zip(draws["predicted"].to_pylist(), draws["label"].to_pylist(), strict=True)
    assert wrong == [a != b for a, b in same]
    assert (
        pq.read_metadata(io.BytesIO(store.read(key_of(CRAFT), "examples.parquet"))).num_rows == 20
    )


# ---------------------------------------------------------------- one bad example


class _Touchy(nn.Module):
    def __init__(self, inner: nn.Module, everything: bool) -> None:
        super().__init__()
        self.inner, self.everything = inner, everything

    def forward(self, x: Tensor) -> Tensor:
        if self.everything or bool((x.flatten(1).mean(dim=1) > 0.7).any()):
            raise RuntimeError("too bright")
        return self.inner(x)


@dataclass(frozen=True)
class TouchyNetwork(FixedNetwork):
    """The linear network, but it raises for bright images."""

    everything: bool = False

    def build(self) -> nn.Module:
        return _Touchy(NETWORK.build(), self.everything).eval()


def test_a_network_that_raises_fails_one_example(tmp_path: Path) -> None:
    clean = DATA.load()
    x = clean.x.clone()
    x[5] = 0.99
    bright, healthy = from_arrays(x, clean.y), from_arrays(clean.x, clean.y)
    attack = PGD(L2(), epsilon=0.5, steps=5)
    crafts = [
        Craft(data, non_adaptive(Defense(network)), attack, execution=HOW)
        for data, network in ((bright, TouchyNetwork()), (healthy, NETWORK))
    ]
    # The threat is in the root of the draws, so give both the same start.
    crafts = [replace(c, attack=replace(attack, random_start=False)) for c in crafts]
    store = made(tmp_path, *crafts)
    seen, as_ever = (table(store, c) for c in crafts)
    assert [i for i, s in enumerate(seen["status"].to_pylist()) if s == "failed"] == [5]
    for name in ("status", "l2", "backwards"):
        a, b = seen[name].to_pylist(), as_ever[name].to_pylist()
        del a[5], b[5]
        assert a == (pytest.approx(b, abs=1e-3) if name == "l2" else b)


def test_a_network_that_always_raises_stops_the_task(tmp_path: Path) -> None:
    craft = Craft(
        DATA, non_adaptive(Defense(TouchyNetwork(everything=True))), DDN(steps=2), execution=HOW
    )
    with pytest.raises(RuntimeError, match="too bright"):
        made(tmp_path, craft)
    assert not Store(tmp_path).has(key_of(craft))


def test_execution_does_not_reach_the_draws(tmp_path: Path) -> None:
    """FC and Gauss alike: the root of a Craft's draws holds its seed, threat and attack, and nothing else."""
    for threat in (CRAFT.threat, adaptive(Defense(NETWORK, FC(50.0)))):
        craft = replace(CRAFT, threat=threat)
        names = {
            replace(craft, execution=replace(HOW, threads=2)).stream_name,
            replace(craft, data=DATA.slice(3, 4)).stream_name,
            craft.stream_name,
        }
        assert len(names) == 1
        changed = [
            replace(craft, seed=1),
            replace(craft, attack=DDN()),
            replace(craft, target_offset=2),
        ]
        assert not names & {c.stream_name for c in changed}
