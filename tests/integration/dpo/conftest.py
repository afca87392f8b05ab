"""Tiny checkpoints of three families, and each trained once, for all DPO tests."""

import pytest

from csr.rendering import load_processor
from tests.dpo_runs import MAKERS, ROOT, train
from tests.preference_pairs import make_pairs, write_pairs


@pytest.fixture(scope="session")
def families(tmp_path_factory):
    """Family -> (checkpoint, processor, pairs, folder of the pairs table)."""
    made = {}
    for name, maker in MAKERS.items():
        root = tmp_path_factory.mktemp(name)
        checkpoint = maker(root / "checkpoint")
        processor = load_processor(str(checkpoint))
        pairs = make_pairs(root / "images", processor)
        made[name] = (checkpoint, processor, pairs, write_pairs(root / "pairs", pairs))
    return made


@pytest.fixture(scope="session")
def llava(families):
    return families["llava"]


@pytest.fixture(scope="session")
def trained(families, tmp_path_factory):
    """Family -> the result of `train`."""
    return {
        name: train(checkpoint, pairs_path, tmp_path_factory.mktemp(f"{name}_out"))
        for name, (checkpoint, _, _, pairs_path) in families.items()
    }


@pytest.fixture
def cpu_shards(monkeypatch):
    """Training processes take this CPU for GPUs: accelerate shards nothing on a CPU."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "cpu_shards")
