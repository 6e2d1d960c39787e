"""Made torch_outputs.json: outputs of the networks by PyTorch, written from their papers.

    python -m tests.models.torch_reference

The functions below read our variables and share no other code with the zoo: strides, paddings,
the places of activations and the order of concatenations are said here a second time.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from tests.models.small import random_images, random_variables, small_model, small_shape

FILE = Path(__file__).parent / "torch_outputs.json"


class Net:
    """Our variables, and the operations of torch on them; maps are NCHW."""

    def __init__(self, variables):
        self.params, self.stats = variables["params"], variables.get("batch_stats", {})

    def at(self, *path):
        def inside(tree):
            for key in path:
                tree = tree.get(key, {})
            return tree

        return Net({"params": inside(self.params), "batch_stats": inside(self.stats)})

    def tensor(self, name):
        return torch.from_numpy(np.asarray(self.params[name]))

    def conv(self, x, stride=1, padding=0, groups=1):
        kernel = self.tensor("kernel")
        if kernel.ndim == 2:
            kernel = kernel[None, None]
        bias = self.tensor("bias") if "bias" in self.params else None
        kernel = kernel.permute(3, 2, 0, 1)
        return functional.conv2d(x, kernel, bias, stride, padding, 1, groups)

    def norm(self, x, eps=1e-5):
        statistics = (torch.from_numpy(np.asarray(self.stats[k])) for k in ("mean", "var"))
        scale, bias = self.tensor("scale"), self.tensor("bias")
        return functional.batch_norm(x, *statistics, scale, bias, eps=eps)

    def cn(self, x, stride=1, padding=0, groups=1, eps=1e-5):
        """Convolution and BatchNorm."""
        return self.at("norm").norm(self.at("conv").conv(x, stride, padding, groups), eps)

    def linear(self, x):
        bias = self.tensor("bias") if "bias" in self.params else None
        return functional.linear(x, self.tensor("kernel").T, bias)


def shift(x, k):
    """Contiguous groups of C // k² channels, row-major directions, the rest unmoved."""
    h, group = k // 2, x.shape[1] // k**2
    padded = functional.pad(x, (h, h, h, h))
    moved = []
    for c in range(x.shape[1]):
        direction = c // group if group and c < group * k**2 else k * h + h
        dy, dx = direction // k, direction % k
        moved.append(padded[:, c, dy : dy + x.shape[2], dx : dx + x.shape[3]])
    return torch.stack(moved, 1)


def csc(net, x, k, stride=1):
    y = net.at("norm1").norm(net.at("conv1").conv(x)).relu()
    return net.at("norm2").norm(net.at("conv2").conv(shift(y, k), stride)).relu()


def shiftnet(net, x, kernels, concatenate):
    x = net.at("stem").cn(x, 2, 3).relu()
    for group, k in enumerate(kernels, start=1):
        first = csc(net.at(f"group{group}_block1"), x, k, 2)
        pooled = functional.avg_pool2d(x, 3, 2, 1)
        if concatenate:
            x = torch.cat([pooled, first], 1)
        else:
            more = first.shape[1] - pooled.shape[1]
            x = first + functional.pad(pooled, (0, 0, 0, 0, 0, more))
        x = x + csc(net.at(f"group{group}_block2"), x, k)
    return x.mean((2, 3))


def shiftnet_a(net, x):
    return net.at("classifier").linear(shiftnet(net, x, (5, 5, 3, 3), concatenate=True))


def shiftnet_c(net, x):
    return net.at("classifier").linear(shiftnet(net, x, (3, 3, 3, 3), concatenate=False))


def shiftfacenet(net, x):
    x = shiftnet(net.at("trunk"), x, (3, 3, 3, 3), concatenate=False)
    x = net.at("embedding_norm").norm(net.at("embedding").linear(x), 1e-3)
    return net.at("classifier").linear(x)


def shiftresnet50(net, x):
    x = functional.max_pool2d(net.at("stem").cn(x, 2, 3).relu(), 3, 2, 1)
    for group, blocks in enumerate((1, 2, 1, 1), start=1):
        for index in range(1, blocks + 1):
            block, stride = net.at(f"group{group}_block{index}"), 2 if group > 1 == index else 1
            y = block.at("norm1").norm(block.at("conv1").conv(x)).relu()
            y = csc(block.at("shift"), y, 3, stride)
            y = block.at("norm3").norm(block.at("conv3").conv(y))
            if index == 1:
                x = block.at("norm_shortcut").norm(block.at("conv_shortcut").conv(x, stride))
            x = (x + y).relu()
    return net.at("classifier").linear(x.mean((2, 3)))


def mobilenet(net, x):
    x = net.at("stem").cn(x, 2, 1).relu()
    strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
    for index, stride in enumerate(strides, start=1):
        x = net.at(f"block{index}_depthwise").cn(x, stride, 1, x.shape[1]).relu()
        x = net.at(f"block{index}_pointwise").cn(x).relu()
    return net.at("classifier").linear(x.mean((2, 3)))


def shufflenet(net, x):
    x = functional.max_pool2d(net.at("stem").cn(x, 2, 1).relu(), 3, 2, 1)
    for stage, units in ((2, 4), (3, 8), (4, 4)):
        for index in range(1, units + 1):
            unit, stride = net.at(f"stage{stage}_unit{index}"), 2 if index == 1 else 1
            y = unit.at("conv1").cn(x, groups=1 if (stage, index) == (2, 1) else 3).relu()
            b, c, h, w = y.shape
            y = y.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)
            y = unit.at("depthwise").cn(y, stride, 1, c)
            y = unit.at("conv2").cn(y, groups=3)
            pooled = functional.avg_pool2d(x, 3, 2, 1)
            x = (x + y if stride == 1 else torch.cat([pooled, y], 1)).relu()
    return net.at("classifier").linear(x.mean((2, 3)))


def googlenet(net, x):
    def conv(net, x, stride=1, padding=0):
        return net.at("conv").conv(x, stride, padding).relu()

    def pool(x):
        return functional.max_pool2d(x, 3, 2, ceil_mode=True)

    x = conv(net.at("conv1"), x, 2, 3)
    x = functional.local_response_norm(pool(x), 5, 1e-4, 0.75, 1.0)
    x = conv(net.at("conv2"), conv(net.at("reduce2"), x), 1, 1)
    x = functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)
    for stage, letters in ((3, "ab"), (4, "abcde"), (5, "ab")):
        x = pool(x)
        for letter in letters:
            m = net.at(f"inception{stage}{letter}")
            third = conv(m.at("conv3"), conv(m.at("reduce3"), x), padding=1)
            fifth = conv(m.at("conv5"), conv(m.at("reduce5"), x), padding=2)
            pooled = conv(m.at("pool"), functional.max_pool2d(x, 3, 1, 1))
            x = torch.cat([conv(m.at("conv1"), x), third, fifth, pooled], 1)
    return net.at("classifier").linear(x.mean((2, 3)))


def alexnet(net, x):
    def conv(name, x, **kwargs):
        return net.at(name, "conv").conv(x, **kwargs).relu()

    def norm_pool(x):
        return functional.max_pool2d(functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0), 3, 2)

    x = norm_pool(conv("conv1", x, stride=4, padding=2))
    x = norm_pool(conv("conv2", x, padding=2, groups=2))
    x = conv("conv3", x, padding=1)
    x = conv("conv4", x, padding=1, groups=2)
    x = functional.max_pool2d(conv("conv5", x, padding=1, groups=2), 3, 2)
    x = functional.adaptive_avg_pool2d(x, 6).permute(0, 2, 3, 1).flatten(1)
    x = net.at("hidden2").linear(net.at("hidden1").linear(x).relu()).relu()
    return net.at("classifier").linear(x)


def facenet(net, x):
    def conv(net, x, stride=1, padding=0):
        return net.cn(x, stride, padding, eps=1e-3).relu()

    def chain(net, branch, x, *settings):
        for index, (stride, padding) in enumerate(settings):
            x = conv(net.at(f"branch{branch}_conv{index}"), x, stride, padding)
        return x

    def residual(net, x, scale, last=None, activate=True):
        inside = net.at("branches")
        branches = [chain(inside, b, x, *settings) for b, settings in enumerate(last)]
        x = x + scale * net.at("up").conv(torch.cat(branches, 1))
        return x.relu() if activate else x

    one, same, strided = (1, 0), (1, 1), (2, 0)
    block17 = ((one,), (one, (1, (0, 3)), (1, (3, 0))))
    block8 = ((one,), (one, (1, (0, 1)), (1, (1, 0))))
    trunk = net.at("trunk")
    x = conv(trunk.at("conv1"), x, 2)
    x = conv(trunk.at("conv3"), conv(trunk.at("conv2"), x), 1, 1)
    x = conv(trunk.at("conv4"), functional.max_pool2d(x, 3, 2))
    x = conv(trunk.at("conv6"), conv(trunk.at("conv5"), x), 2)
    block35 = ((one,), (one, same), (one, same, same))
    x = residual(trunk.at("stage1_block1"), x, 0.17, block35)
    cut = trunk.at("reduction_a")
    branches = [chain(cut, 0, x, strided), chain(cut, 1, x, one, same, strided)]
    x = torch.cat([*branches, functional.max_pool2d(x, 3, 2)], 1)
    x = residual(trunk.at("stage2_block1"), x, 0.10, block17)
    cut = trunk.at("reduction_b")
    branches = [chain(cut, b, x, one, strided) for b in (0, 1)]
    branches.append(chain(cut, 2, x, one, same, strided))
    x = torch.cat([*branches, functional.max_pool2d(x, 3, 2)], 1)
    x = residual(trunk.at("stage3_block1"), x, 0.20, block8)
    x = residual(trunk.at("stage3_last"), x, 1.0, block8, activate=False)
    x = net.at("embedding").linear(x.mean((2, 3)))
    return net.at("classifier").linear(net.at("embedding_norm").norm(x, 1e-3))


NETWORKS = (
    *(shiftnet_a, shiftnet_c, shiftfacenet, shiftresnet50, mobilenet, shufflenet),
    *(googlenet, alexnet, facenet),
)


def main():
    outputs = {}
    for network in NETWORKS:
        name = network.__name__
        images, model = random_images(small_shape(name)), small_model(name)
        net = Net(random_variables(model, small_shape(name)))
        with torch.no_grad():
            x = torch.from_numpy(images).permute(0, 3, 1, 2)
            outputs[name] = network(net, x).numpy().astype(float).round(6).tolist()
    FILE.write_text(json.dumps(outputs, indent=1) + "\n")


if __name__ == "__main__":
    main()
