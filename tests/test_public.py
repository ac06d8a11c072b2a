"""What the package promises by name, and what its core needs installed."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

# Another name in a room is a promise to keep, one less a promise broken: change both here and in the CHANGELOG.
PUBLIC = {
    "admission": "check_classes check_examples check_fields check_role",
    "arithmetic": "settled",
    "attacks": (
        "APGD ATTACKS AdditiveNoise BlendedNoise Boundary CarliniWagner ContrastReduction DDN Doubt FGSM FMN"
        " FixedConstant HopSkipJump LocalSearch MIFGSM MinimalContrast Minimise MultiplePixels PGD SPSA SinglePixel"
        " Spatial Square TargetedAPGD authors_boundary authors_fixed_constant nearest_starts"
    ),
    "audit": (
        "Audit BUDGETS Budget CPU_ROWS Examination Facts Finding Judged Knobs Request as_attack audit budget_of"
        " check_fit conduct conducted examine exit_code foresee foretold processes render save target terminal_table"
        " twin_of"
    ),
    "batch": "Batch Goal Images Labels",
    "channels": (
        "CD CHANNELS Chain Clip FC Gauss Identity Laplace SVD Uniform parse_channel straight_through"
        " substituted"
    ),
    "children": "deaf end_with",
    "cli": "main",
    "data": "ArrayData DataSpec Dataset Range from_arrays from_uint8 series_range to_uint8",
    "decision": "DECISIONS Decision MeanProb Single Vote parse_decision",
    "defenses": (
        "AUTHORS_FIRST_BLOCKS BandLimited DEFENSES Defense FixedChannel FixedNetwork HalfPrecision Operated PNI"
        " ParamNet RobustNet Surgery altered answers chunks_of fixed_draws global_noise learnt_scales operate sites_of"
    ),
    "engine": (
        "Analyse Binarize Certify Craft Execution Executor Measure Pace Plan Store Task Tick Train Trained Workers"
        " adversarials answer base_of binarization_rows certificates cores history key_of pace plan ready run serial"
        " table trainings"
    ),
    "errors": "CheckpointError CorruptArtifact DataError MissingArtifact StoreError UserError expected no_exit reason",
    "experiments": "Cell Claim EXPERIMENTS Experiment Result Scale Setting read setting",
    "interop": (
        "Borrowed art_attack as_callable autoattack foolbox_attack from_art from_foolbox robustbench_network"
        " to_art to_foolbox torchattacks_attack"
    ),
    "interop.authors": "AuthorsUnits CIFAR10 IMAGENET authors_network table1_channels table3_channels",
    "measures": (
        "ABSTAIN AUTHORS_POWER Asked Binarized Certified Curvature Deltas Jacobian LayerStatistics Look Loss MEASURES"
        " Pictures Planted Planting QUESTIONS Question Readouts Recovery TaylorTerms certified check_smoothing draws"
        " eigenvalues examples gradient_norms is_piecewise_linear layer_statistics predicted"
    ),
    "networks": (
        "AUTHORS_NAMES Checkpoint FCN Foreign NETWORKS Normalize Opaque ResNet18 ResNet20 ResNet50 SmallNet VGG16"
        " authors_resnet20 imagenet_resnet50 prepare"
    ),
    "noise": "GaussLaw LAWS LaplaceLaw NoiseLaw UniformLaw",
    "norms": "L0 L2 Linf NORMS Norm per_example",
    "objectives": "CrossEntropy DLR Hinge Loss Margin fooled label_margin margin",
    "report.figure": "Badge Cell Facts Figure Grid Panel Picture Series Tone",
    "report.markdown": "markdown",
    "report.numbers": "difference_of equivalent mean_of median_of ratio_of_means share_of",
    "report.html": "Part Provenance Section page write_page",
    "report.plots": "COLOURS Style plotly_panel png save_png styles",
    "report.stats": "Estimate WorstCase accuracy correct_matrix paired_difference wilson worst_case",
    "rng": (
        "COPIES Role Stream asked bracket generator normal root root_name shared_normal stranger_seeded torch_seeded"
        " uniform"
    ),
    "spec": "Fingerprinted canonical describe key",
    "splitmix": "GOLDEN gauss mix unit",
    "threats": "Averaged Bpda DefenseView Success Threat adaptive assumes log_mean_prob non_adaptive",
    "training": (
        "AUTHORS_FCN AUTHORS_RESNET18 AUTHORS_RESNET20 AUTHORS_VGG16 Adversarial Augment Epoch FAST FAST_RESNET20"
        " Fitted OneCycle Plateau Recipe SCHEDULES Schedule Steps Tick Watch fit"
    ),
    "types": (
        "Adversarials Attack Backward Batch Channel Cost Goal Gradient Images Labels Logits Network Objective"
        " PerExample Query Sharing Status Trial View"
    ),
    "zoo": (
        "Card PRESETS Preset check_place clean_measure defense has_weights network preset shelf shorter train"
        " with_weights write_card"
    ),
}


@pytest.mark.parametrize("room", PUBLIC)
def test_public_names(room: str) -> None:
    module = importlib.import_module(f"noisychannel.{room}")
    assert sorted(module.__all__) == PUBLIC[room].split()
    assert all(hasattr(module, name) for name in module.__all__)


def test_no_room_is_forgotten() -> None:
    import noisychannel

    root = Path(noisychannel.__path__[0])
    rooms = {p.parent.name for p in root.glob("*/__init__.py")} | {
        p.stem for p in root.glob("*.py")
    }
    assert rooms - {"__init__", "__main__"} == {room.partition(".")[0] for room in PUBLIC}


REFUSED = ("datasets", "plotly", "matplotlib", "sklearn", "foolbox", "jinja2", "beartype")

# What a bare GPU machine does: read a Parquet folder, attack, store, and reduce.
CORE = f'''
import sys

REFUSED = {REFUSED!r}


class Absent:
    """As if these packages were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None


assert not set(REFUSED) & set(sys.modules)
sys.meta_path.insert(0, Absent())
for name in REFUSED:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)

import noisychannel.attacks, noisychannel.engine, noisychannel.threats  # noqa: E401
from noisychannel.audit.budget import BUDGETS
from noisychannel.audit.conduct import Judged, conduct
from noisychannel.audit.request import Request
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.engine import Execution, Store, run, serial
from noisychannel.networks import SmallNet
from noisychannel.norms import L2
from pathlib import Path

data = DataSpec(sys.argv[1])
assert data.shape == (1, 8, 8) and data.size == 4 and data.classes == 2
how = Execution(threads=1)
request = Request(
    "it", Defense(SmallNet(2, 1, 2), Gauss(0.1)), data, L2(), 0.1, BUDGETS[0], queries=8, execution=how
)
store = Store(Path(sys.argv[2]))
def step(name, wanted):
    run(wanted, store, serial, lambda whole, todo: [].append)
assert Judged(conduct(request, store, step)).headline.n == 4
assert not set(REFUSED) & set(sys.modules)
print("the core works")
'''


def test_the_core_works_without_what_is_absent_on_a_bare_machine(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = [[[(i + j + k) % 4 / 3 for k in range(8)] for j in range(8)] for i in range(4)]
    table = pa.table({"image": pixels, "label": [0, 1, 0, 1]})
    pq.write_table(table, folder / "test-00000-of-00001.parquet")
    done = subprocess.run(
        [sys.executable, "-c", CORE, str(folder), str(tmp_path / "store")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env={k: v for k, v in os.environ.items() if k != "NOISYCHANNEL_DATA"},
    )
    assert (done.returncode, done.stdout) == (0, "the core works\n"), done.stderr
