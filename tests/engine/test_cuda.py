"""The same task on a CPU and on a GPU: the same draws, hence the same statuses, classes and distances."""

import pytest
import torch

from noisychannel.attacks import DDN, PGD
from noisychannel.channels import Gauss
from noisychannel.data import DataSpec
from noisychannel.defenses import Defense
from noisychannel.engine import Craft, Execution, Measure, Store, run, serial, table
from noisychannel.experiments.setting import digits_network
from noisychannel.norms import L2
from noisychannel.threats import adaptive

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.parametrize("attack", [DDN(steps=40), PGD(L2(), epsilon=0.8, steps=20)], ids=repr)
def test_cuda_rows_equal_cpu_rows(attack, tmp_path) -> None:
    store = Store(tmp_path)
    data = DataSpec("digits", "test", "first:200")
    network = digits_network(Execution())  # trained once, on the CPU
    defense = Defense(network, Gauss(0.1))
    rows = {}
    for device in ("cpu", "cuda"):
        execution = Execution(device=device)
        craft = Craft(data, adaptive(defense, draws=4), attack, execution=execution)
        measure = Measure(data, defense, craft, draws=8, execution=execution)
        run([measure], store, serial, lambda _whole, _todo: lambda _amount: None)
        rows[device] = table(store, craft).to_pydict(), table(store, measure).to_pydict()
    (cpu, cpu_draws), (gpu, gpu_draws) = rows["cpu"], rows["cuda"]
    agree = sum(a == b for a, b in zip(cpu["status"], gpu["status"], strict=True))
    assert agree >= 0.995 * len(cpu["status"])
    assert cpu["forwards"] == gpu["forwards"]
    gaps = [abs(a - b) for a, b in zip(cpu["l2"], gpu["l2"], strict=True)]
    assert sorted(gaps)[int(0.95 * len(gaps))] <= 1e-3
    same = sum(a == b for a, b in zip(cpu_draws["predicted"], gpu_draws["predicted"], strict=True))
    assert same >= 0.99 * len(cpu_draws["predicted"])
    print(f"statuses {agree}/200, classes {same}/1600, largest L2 gap {max(gaps):.2e}")
