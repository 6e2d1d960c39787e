"""The shift operation as a literal loop over its definition."""

import numpy as np


def loop_shift(x: np.ndarray, offsets) -> np.ndarray:
    """`out[y, x, c] = in[y + dy_c, x + dx_c, c]`, zero outside."""
    x = np.asarray(x)
    out = np.zeros_like(x)
    height, width = x.shape[-3:-1]
    for channel, (dy, dx) in enumerate(offsets):
        for row in range(height):
            for column in range(width):
                if 0 <= row + dy < height and 0 <= column + dx < width:
                    out[..., row, column, channel] = x[..., row + dy, column + dx, channel]
    return out


def loop_adjoint(y: np.ndarray, offsets) -> np.ndarray:
    """The transpose of `loop_shift`: every output pixel goes back to where it came from."""
    y = np.asarray(y)
    back = np.zeros_like(y)
    height, width = y.shape[-3:-1]
    for channel, (dy, dx) in enumerate(offsets):
        for row in range(height):
            for column in range(width):
                if 0 <= row + dy < height and 0 <= column + dx < width:
                    back[..., row + dy, column + dx, channel] += y[..., row, column, channel]
    return back


def loop_offsets(channels: int, kernel_size: int, dilation: int, order: str) -> list:
    """The two orders, channel by channel, as in the paper and in the authors' CUDA kernel."""
    group = channels // kernel_size**2
    half = kernel_size // 2
    offsets = []
    for channel in range(channels):
        if channel >= group * kernel_size**2:
            offsets.append((0, 0))
        elif order == "grouped":
            direction = channel // group
            offsets.append(
                (
                    dilation * (direction // kernel_size - half),
                    dilation * (direction % kernel_size - half),
                )
            )
        else:
            offsets.append(
                (
                    dilation * ((channel // kernel_size) % kernel_size - half),
                    dilation * (channel % kernel_size - half),
                )
            )
    return offsets
