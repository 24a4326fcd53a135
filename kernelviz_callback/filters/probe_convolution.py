"""The convolution of one probe with the filters of a layer.

Averaging and convolution are both linear, so they may change places. The response averaged over
r x r pixels is the convolution, at stride r, of the kernel with the probe averaged over r x r
pixels at every place: the same numbers with less work.
"""

from collections.abc import Sequence
from copy import copy
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

# Memory limit of a chunk of filters: its kernels, its responses and its picture. It also limits the
# channels of a probe that are convolved at once, because torch copies them: six copies of 98 MiB
# were seen.
CHUNK_BYTES = 8 * 2**20
_LARGEST_WHOLE_PROBE = 16 * 2**20  # bytes; a larger probe is averaged part by part
_MOST_KEPT_BYTES = 32 * 2**20  # of all convolutions of a training
_MOST_PATCH_BYTES = 16 * 2**20  # of the patches of a probe; that of a 7x7 kernel is 7 MiB
# Convolutions are several times faster if the number of channels is a multiple of this.
FAST_MULTIPLE = 16
# Up to this many channels are convolved one by one. A grouped convolution of 3 channels takes three
# times as long as three convolutions.
_MOST_ALONE = 4


def response_size(
    probe_size: tuple[int, int], kernel_size: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """Return the height and width of a response at stride 1 without padding, in pixels.

    Args:
        probe_size: Height and width of the probe, in pixels.
        kernel_size: (kH, kW).
        dilation: Spacing of the kernel's weights in pixels, (vertical, horizontal).

    Raises:
        ValueError: If the kernel, its dilation included, is larger than the probe.

    Example:
        >>> response_size((224, 224), (7, 7), (1, 1))
        (218, 218)
    """
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel_size, strict=True))
    if reach[0] > probe_size[0] or reach[1] > probe_size[1]:
        raise ValueError(
            f"the kernel covers {reach[0]}x{reach[1]} pixels (dilation included) and the probe has "
            f"only {probe_size[0]}x{probe_size[1]}; use a larger one (probe_size=... for the chart)"
        )
    return probe_size[0] - reach[0] + 1, probe_size[1] - reach[1] + 1


class ProbeConvolution:
    """The convolution of one probe with filters of one shape, a few of them at a time.

    The probe is averaged over ``shrink`` x ``shrink`` pixels at every place: a small one once, a
    large one part by part, to limit the memory. On CUDA the numbers are float64, because a float32
    convolution may run in TF32, and the setting that prevents TF32 belongs to the training.

    Args:
        probe: The argument of `channel_responses`.
        shape: Shape of the layer's weights.
        dilation: The argument of `channel_responses`.
        groups: The argument of `channel_responses`.
        shrink: The argument of `channel_responses`.
        is_kept: Whether the object is used for many snapshots. Then it also keeps the patches of
            the probe that the kernels are multiplied with, if they need little memory.

    Raises:
        ValueError: In the cases of `channel_responses`.
    """

    def __init__(
        self,
        probe: Tensor,
        shape: Sequence[int],
        dilation: tuple[int, int],
        groups: int,
        shrink: int,
        *,
        is_kept: bool = False,
    ) -> None:
        filters, channels, *kernel = shape
        if filters % groups or probe.shape[0] != channels * groups:
            raise ValueError(
                f"weights {tuple(shape)} in {groups} group(s) filter {channels * groups} input "
                f"channels; the probe has {probe.shape[0]}"
            )
        full = response_size((probe.shape[1], probe.shape[2]), (kernel[0], kernel[1]), dilation)
        self.groups = groups
        self._exact = torch.float64 if probe.is_cuda else torch.float32
        self._dilation = dilation
        self._stride = shrink
        is_small = probe.numel() * self._exact.itemsize <= _LARGEST_WHOLE_PROBE
        with torch.no_grad():
            # Plane by plane: the sums on the way need several times the memory of what they add.
            self._image = (
                torch.stack([_averaged(plane.to(self._exact), shrink) for plane in probe])
                if is_small
                else probe
            )
        self._box = 1 if is_small else shrink  # what is still to be averaged
        self._size = full[0] // shrink, full[1] // shrink
        patch_bytes = 4 * probe.shape[0] * prod(kernel) * prod(self._size)
        self._patches: Tensor | None = None
        fits = patch_bytes <= _MOST_PATCH_BYTES and is_small and not probe.is_cuda
        if is_kept and groups == 1 and fits:
            # One channel after the other, shape (C, kH kW, H' W').
            self._patches = F.unfold(
                self._image[:, None], (kernel[0], kernel[1]), dilation=dilation, stride=shrink
            )

    @property
    def bytes_kept(self) -> int:
        """Memory of the averaged probe and its patches, in bytes."""
        kept = [self._image] if self._patches is None else [self._image, self._patches]
        return sum(part.numel() * part.element_size() for part in kept)

    def of_groups(self, first: int, last: int) -> "ProbeConvolution":
        """Return the convolution of the filters in the groups from ``first`` to before ``last``."""
        part = copy(self)
        channels = len(self._image) // self.groups
        part._image, part.groups = self._image[first * channels : last * channels], last - first
        return part

    def by_channel(self, weights: Tensor) -> Tensor:
        """Return the `channel_responses` of filters, shape (N, C, kH, kW)."""
        filters, channels, *kernel = weights.shape
        if self._patches is not None and _multiplies_exactly():
            by_channel = weights.flatten(2).transpose(0, 1)
            return self._multiply(by_channel, self._patches).transpose(0, 1)
        if self.groups == 1 and channels <= _MOST_ALONE:
            planes = [
                self._convolve(plane[None], weights[:, c, None], 1)
                for c, plane in enumerate(self._image)
            ]
            return torch.stack(planes, dim=1)
        kernels = weights.reshape(self.groups, -1, channels, *kernel).transpose(1, 2)
        found = self._convolve(self._image, kernels.reshape(-1, 1, *kernel), len(self._image))
        by_filter = found.reshape(self.groups, channels, -1, *found.shape[1:]).transpose(1, 2)
        return by_filter.reshape(filters, channels, *found.shape[1:])

    def summed(self, weights: Tensor) -> Tensor:
        """Return the `summed_responses` of filters, shape (N, C, kH, kW)."""
        if self._patches is not None and _multiplies_exactly():
            return self._multiply(weights.flatten(1), self._patches.flatten(0, 1))[:, None]
        if self.groups > 1:
            return self._convolve(self._image, weights, self.groups)[:, None]
        channel_bytes = self._image[0].numel() * self._exact.itemsize
        fitting = max(1, CHUNK_BYTES // channel_bytes // FAST_MULTIPLE) * FAST_MULTIPLE
        total = torch.zeros((), device=self._image.device)
        for image, part in zip(
            torch.split(self._image, fitting), torch.split(weights, fitting, dim=1), strict=True
        ):
            total = total + self._convolve(image, part, 1)
        return total[:, None]

    def _multiply(self, kernels: Tensor, patches: Tensor) -> Tensor:
        """Multiply kernels, shape (..., N, K), with patches, shape (..., K, H' W')."""
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            planes = kernels.to(self._exact) @ patches
        return planes.reshape(*planes.shape[:-1], *self._size)

    def _convolve(self, image: Tensor, kernels: Tensor, groups: int) -> Tensor:
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            planes = F.conv2d(
                _averaged(image.to(self._exact), self._box)[None],
                kernels.to(self._exact),
                stride=self._stride,
                dilation=self._dilation,
                groups=groups,
            )
            return planes[0].float()


class KeptConvolutions:
    """The convolutions of one probe, kept from one snapshot to the next while there is room.

    A copy in another process begins empty.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], ProbeConvolution] = {}
        self._bytes = 0

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return KeptConvolutions, ()

    def find(
        self,
        probe: Tensor,
        shape: Sequence[int],
        dilation: tuple[int, int],
        groups: int,
        shrink: int,
    ) -> ProbeConvolution:
        """Return a convolution, which is made if there is none. See `ProbeConvolution`.

        Args:
            probe: The same image in every call, with the number of channels that a layer reads.
            shape: Shape of the layer's weights.
            dilation: The argument of `channel_responses`.
            groups: The argument of `channel_responses`.
            shrink: The argument of `channel_responses`.
        """
        key = tuple(shape), probe.device, dilation, groups, shrink
        if key in self._kept:
            return self._kept[key]
        has_room = self._bytes < _MOST_KEPT_BYTES
        made = ProbeConvolution(probe, shape, dilation, groups, shrink, is_kept=has_room)
        if has_room:
            self._kept[key] = made
            self._bytes += made.bytes_kept
        return made


def _multiplies_exactly() -> bool:
    """Whether float32 matrices are multiplied in float32: a training may allow bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # the precision was set in the newer and in the older way
        return False


def _averaged(image: Tensor, box: int) -> Tensor:
    """Return the mean of the ``box`` x ``box`` pixels at the right of and below every pixel."""
    if box == 1:
        return image
    for axis in (-2, -1):
        image = _window_sums(image, axis, box)
    return image.div_(box**2)


def _window_sums(image: Tensor, axis: int, box: int) -> Tensor:
    """Return the sums of ``box`` > 1 neighbours along an axis.

    They are put together from the sums of 1, 2, 4, ... neighbours.
    """
    size = image.shape[axis] - box + 1
    parts, start, sums, span = [], 0, image, 1
    while True:
        if box & span:
            parts.append(sums.narrow(axis, start, size))
            start += span
        if 2 * span > box:
            return sum(parts[1:], start=parts[0])
        shorter = sums.shape[axis] - span
        sums = sums.narrow(axis, 0, shorter) + sums.narrow(axis, span, shorter)
        span *= 2
