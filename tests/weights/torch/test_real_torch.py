"""Files that the installed PyTorch writes give the tensors that it reads."""

import io
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights.torch.file import read_torch
from tests.weights.torch_files import (
    KERNEL,
    assert_same,
    saved,
)


class TestRealTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("is_zip", [True, False])
    def test_types_and_views(self, tmp_path, torch, is_zip):
        torch.manual_seed(0)
        base = torch.randn(6, 8)
        state = OrderedDict(
            half=torch.randn(3).half(),
            brain=torch.randn(2, 2).bfloat16(),
            long=torch.tensor(2**40),
            flags=torch.tensor([True, False]),
            odd=torch.randn(2, 3, dtype=torch.complex64),
            small=torch.tensor([1, 65535], dtype=torch.uint16),
            transposed=base.T,
            part=base[2:5, ::3],
            expanded=torch.ones(1).expand(4, 5),
            none=torch.zeros(0, 3),
            parameter=torch.nn.Parameter(torch.randn(4)),
        )
        if not is_zip:
            del state["small"]  # torch.save refuses it there.
        options = {"_use_new_zipfile_serialization": is_zip}
        torch.save(state, tmp_path / "a.pth", **options)
        brain = state["brain"].float().numpy().astype(ml_dtypes.bfloat16)
        expected = {n: x.detach().numpy() for n, x in state.items() if n != "brain"}
        expected = {name: brain if name == "brain" else expected[name] for name in state}
        assert_same(read_torch(tmp_path / "a.pth").tensors, expected)

    @pytest.mark.parametrize("is_zip", [True, False])
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_whole_module_in_data_parallel(self, tmp_path, torch, is_zip, protocol):
        nn = torch.nn
        block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        net = nn.Sequential(block, nn.Linear(4, 2))
        net[1].weight = nn.Parameter(net[1].weight.detach().clone())
        net.register_buffer("temporary", torch.ones(2), persistent=False)
        root = {"net": nn.DataParallel(net), "acc": torch.tensor(93.25), "epoch": 7}
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
        root |= {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        options = {"_use_new_zipfile_serialization": is_zip, "pickle_protocol": protocol}
        torch.save(root, tmp_path / "a.t7", **options)
        file = read_torch(tmp_path / "a.t7")
        assert_same(file.tensors, {name: x.numpy() for name, x in net.state_dict().items()})
        assert file.metadata == {"acc": 93.25, "epoch": 7}

    @pytest.mark.filterwarnings("ignore::UserWarning")  # Some kinds are prototypes.
    def test_other_tensors_are_refused_by_name(self, tmp_path, torch):
        kinds = {
            "quantized": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "sparse": torch.eye(3).to_sparse(),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "without data": torch.ones(2, device="meta"),
            "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        }
        for kind, tensor in kinds.items():
            torch.save({"a.weight": tensor}, tmp_path / "a.pth")
            with pytest.raises(InputError, match=f"tensor 'a.weight' is .*{kind}"):
                read_torch(tmp_path / "a.pth")

    def test_torch_reads_what_the_helpers_write(self, tmp_path, torch):
        # Otherwise the tests without torch would test a format of our own.
        for options in ({}, {"legacy": True}):
            path = saved(tmp_path / "a.pth", **options)
            theirs = torch.load(path, weights_only=True)
            ours = read_torch(path).tensors
            assert_same(ours, {name: x.numpy() for name, x in theirs.items()})
        stream = io.BytesIO(saved(tmp_path / "a.t7", legacy=True, python2=True).read_bytes())
        theirs = torch.load(stream, weights_only=False, encoding="latin1")
        np.testing.assert_array_equal(theirs["conv.weight"].numpy(), KERNEL)
