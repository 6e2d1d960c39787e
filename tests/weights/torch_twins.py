"""PyTorch networks with the names of the public implementations, to compare logits with."""

import torch
from torch import nn
from torch.nn import functional


def conv(inputs, outputs, size=1, stride=1, groups=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)


class CudaShift(nn.Module):
    """The channel order of the authors' CUDA kernel, kernel size 3."""

    def forward(self, x):
        channels = x.shape[1]
        padded = functional.pad(x, (1, 1, 1, 1))
        height, width = x.shape[2:]
        moved = []
        for c in range(channels):
            dx, dy = (c % 3, c // 3 % 3) if c < channels // 9 * 9 else (1, 1)
            moved.append(padded[:, c, dy : dy + height, dx : dx + width])
        return torch.stack(moved, 1)


class CifarBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv(inputs, outputs, stride=stride), nn.BatchNorm2d(outputs)
            )


class ShiftBlock(CifarBlock):
    def __init__(self, inputs, outputs, stride, expansion=3):
        super().__init__(inputs, outputs, stride)
        middle = int(expansion * outputs)
        self.conv1, self.bn1 = conv(inputs, middle), nn.BatchNorm2d(middle)
        self.shift2 = CudaShift()
        self.conv2, self.bn2 = conv(middle, outputs, stride=stride), nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        return self.bn2(self.conv2(self.shift2(y))).relu() + self.shortcut(x)


class BasicBlock(CifarBlock):
    def __init__(self, inputs, outputs, stride):
        super().__init__(inputs, outputs, stride)
        self.conv1, self.bn1 = conv(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs, 3), nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.shortcut(x)).relu()


class DepthwiseBlock(CifarBlock):
    def __init__(self, inputs, outputs, stride):
        super().__init__(inputs, outputs, stride)
        self.conv1, self.bn1 = conv(inputs, outputs), nn.BatchNorm2d(outputs)
        self.depth, self.bn2 = conv(outputs, outputs, 3, groups=outputs), nn.BatchNorm2d(outputs)
        self.conv3, self.bn3 = conv(outputs, outputs, stride=stride), nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = self.bn2(self.depth(self.bn1(self.conv1(x)).relu()))
        return (self.bn3(self.conv3(y)) + self.shortcut(x)).relu()


class CifarNet(nn.Module):
    def __init__(self, block, num_classes=10):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 16, 3), nn.BatchNorm2d(16)
        inputs = 16
        for group, outputs in enumerate((16, 32, 64), start=1):
            blocks = []
            for index in range(3):
                blocks.append(block(inputs, outputs, 2 if group > 1 and index == 0 else 1))
                inputs = outputs
            setattr(self, f"layer{group}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class Bottleneck(nn.Module):
    def __init__(self, inputs, planes, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, planes), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = conv(planes, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = conv(planes, 4 * planes), nn.BatchNorm2d(4 * planes)
        self.downsample = None
        if stride != 1 or inputs != 4 * planes:
            self.downsample = nn.Sequential(
                conv(inputs, 4 * planes, stride=stride), nn.BatchNorm2d(4 * planes)
            )

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu())).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    def __init__(self, planes=(64, 128, 256, 512), num_classes=1000):
        super().__init__()
        self.conv1, self.bn1 = conv(3, planes[0], 7, 2), nn.BatchNorm2d(planes[0])
        inputs = planes[0]
        for group, count in enumerate((3, 4, 6, 3)):
            blocks = []
            for index in range(count):
                stride = 2 if group and index == 0 else 1
                blocks.append(Bottleneck(inputs, planes[group], stride))
                inputs = 4 * planes[group]
            setattr(self, f"layer{group + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x):
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, counts=(2, 2, 3, 3, 3), hidden=4096, num_classes=1000):
        super().__init__()
        layers, inputs = [], 3
        for outputs, count in zip((64, 128, 256, 512, 512), counts, strict=True):
            for _ in range(count):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 49, hidden), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class Fire(nn.Module):
    def __init__(self, inputs, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


class SqueezeNet11(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool, Fire(64, 16, 64), Fire(128, 16, 64)),
            *(pool, Fire(128, 32, 128), Fire(256, 32, 128), pool),
            *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
        )
        self.classifier = nn.Sequential(nn.Dropout(), nn.Conv2d(512, num_classes, 1), nn.ReLU())

    def forward(self, x):
        return self.classifier(self.features(x)).mean((2, 3))


def randomize(module, images, seed=0):
    """Weights of He's size, statistics unlike a fresh network's, and outputs up to 10 in size."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            if tensor.ndim > 1:
                tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
            elif name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            else:
                tensor.uniform_(-0.1, 0.3, generator=generator)
        module.eval()
        largest = module(images).abs().max()
        for parameter in list(module.parameters())[-2:]:
            parameter *= 10 / largest
    return module


class StyleConv(nn.Module):
    """A reflection-padded convolution, perhaps after nearest upsampling."""

    def __init__(self, inputs, outputs, size, stride=1, upsample=1):
        super().__init__()
        self.upsample, self.pad = upsample, nn.ReflectionPad2d(size // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, size, stride)

    def forward(self, x):
        if self.upsample > 1:
            x = functional.interpolate(x, scale_factor=self.upsample, mode="nearest")
        return self.conv2d(self.pad(x))


class StyleShift(nn.Module):
    def __init__(self, inputs, outputs, stride=1):
        super().__init__()
        self.shift, self.conv = CudaShift(), nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x):
        return self.conv(self.shift(x))


class UpsampleShift(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv2d = StyleShift(inputs, outputs)

    def forward(self, x):
        return self.conv2d(functional.interpolate(x, scale_factor=2, mode="nearest"))


class StyleResidual(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.conv1, self.in1 = layer(128, 128), nn.InstanceNorm2d(128, affine=True)
        self.conv2, self.in2 = layer(128, 128), nn.InstanceNorm2d(128, affine=True)

    def forward(self, x):
        return x + self.in2(self.conv2(self.in1(self.conv1(x)).relu()))


class StyleNet(nn.Module):
    """The text's variant: kernels 9/3/3 … 3/3/9."""

    def __init__(self, shift=False):
        super().__init__()

        def layer(inputs, outputs, stride=1, upsample=1):
            if not shift:
                return StyleConv(inputs, outputs, 3, stride, upsample)
            return (
                UpsampleShift(inputs, outputs)
                if upsample > 1
                else StyleShift(inputs, outputs, stride)
            )

        self.conv1, self.conv2, self.conv3 = (
            StyleConv(3, 32, 9),
            layer(32, 64, 2),
            layer(64, 128, 2),
        )
        for index in range(1, 6):
            setattr(self, f"res{index}", StyleResidual(layer))
        self.deconv1, self.deconv2 = layer(128, 64, upsample=2), layer(64, 32, upsample=2)
        for index, features in enumerate((32, 64, 128, 64, 32), start=1):
            setattr(self, f"in{index}", nn.InstanceNorm2d(features, affine=True))
        self.deconv3 = StyleConv(32, 3, 9)

    def forward(self, x):
        for index in (1, 2, 3):
            conv, norm = getattr(self, f"conv{index}"), getattr(self, f"in{index}")
            x = norm(conv(x)).relu()
        for index in range(1, 6):
            x = getattr(self, f"res{index}")(x)
        x = self.in4(self.deconv1(x)).relu()
        return self.deconv3(self.in5(self.deconv2(x)).relu())
