"""Load the probe, the fixed image that filters are convolved with, and adapt it to a layer."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kernelviz_callback.filters.responses import kernel_reach, response_size
from kernelviz_callback.model.convolutions import Geometry
from kernelviz_callback.probe.probe_chart import make_chart

if TYPE_CHECKING:
    ProbeSource: TypeAlias = str | Path | Image.Image | Tensor | np.ndarray | None
else:  # the types that a configuration file can hold; LightningCLI would list all subclasses
    ProbeSource = str | Path | None

_MOST_PIXELS = 2**26  # of an image file: 256 MiB in memory
CHART = "chart"
LARGEST_CHART = 1024  # pixels: the Kernels tab takes no larger image
_LEAST_SHARE = 8  # a response is at least such a part of the chart, or the chart is drawn larger
BATCH_SOURCES = ("train_batch", "val_batch")


@dataclass(frozen=True)
class Probe:
    """One image and the name of its source.

    Attributes:
        image: Shape (C, H, W), float32, finite, on the CPU. Photographs and the chart are in [0,
            1]. Tensors, arrays and batches keep their range.
        name: "chart", a file name, "image", "tensor", "train_batch" or "val_batch".
    """

    image: Tensor
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[1], self.image.shape[2]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the shape and the values. Responses to equal probes can be compared."""
        digest = hashlib.sha256("x".join(map(str, self.image.shape)).encode())
        digest.update(np.ascontiguousarray(self.image.numpy()).data)
        return digest.hexdigest()

    def for_channels(self, channels: int) -> Tensor:
        """Adapt the probe to a layer that reads ``channels`` input channels.

        RGB becomes grey by its luminance (ITU-R BT.601: 0.2989 R + 0.587 G + 0.114 B). A grey probe
        is repeated over all channels. The chart fits every layer: it is in colour if the layer
        reads three channels, otherwise every channel is its luminance.

        Args:
            channels: Number of channels that the layer reads.

        Returns:
            Shape (channels, H, W), float32. Equal channels share their memory.

        Raises:
            ValueError: If the probe cannot be adapted. The message names both numbers of channels.

        Example:
            >>> Probe(torch.rand(3, 8, 8), "photo.png").for_channels(1).shape
            torch.Size([1, 8, 8])
        """
        found = self.image.shape[0]
        if found == channels:
            return self.image
        if found == 3 and (channels == 1 or self.name == CHART):
            return _grey(self.image).expand(channels, -1, -1)
        if found == 1:
            return self.image.expand(channels, -1, -1)
        raise ValueError(
            f"the layer reads {channels} input channels and the probe ({self.name}) has {found}; "
            f"use a grey image, the test chart, or from Python a tensor of shape ({channels}, H, W)"
        )

    def covering(self, kernel: tuple[int, int], dilation: tuple[int, int] = (1, 1)) -> "Probe":
        """Return the probe, or a larger chart if the response to this chart would be a thin line.

        The larger chart has twice the reach of the kernel, at most `LARGEST_CHART` pixels. Only the
        chart can be drawn at another size, so any other probe is returned as it is.

        Args:
            kernel: (kH, kW).
            dilation: Dilation of the convolution, (vertical, horizontal).

        Example:
            >>> chart = load_probe()
            >>> chart.covering((7, 7)).size, chart.covering((1, 256)).size
            ((224, 224), (512, 512))
        """
        reach, side = max(kernel_reach(kernel, dilation)), min(self.size)
        needed = min(2 * reach, LARGEST_CHART)
        if self.name != CHART or side - reach >= side // _LEAST_SHARE or needed <= side:
            return self
        return Probe(make_chart(needed), CHART)

    def in_grey(self) -> "Probe":
        """Return the probe with one channel, its luminance or mean, which fits every layer."""
        is_colour = self.image.shape[0] == 3
        mean = self.image.mean(0, keepdim=True)
        return Probe(_grey(self.image) if is_colour else mean, self.name)

    def to_picture(self) -> Tensor:
        """Convert the probe to a picture: shape (H, W, 3), uint8, on the CPU.

        The smallest range that contains [0, 1] and all values is mapped to [0, 255]. If the probe
        has two channels, or more than three, the picture shows their mean.
        """
        image = self.image
        if image.shape[0] == 2 or image.shape[0] > 3:
            image = image.mean(0, keepdim=True)
        low, high = min(0.0, image.min().item()), max(1.0, image.max().item())
        grey_or_rgb = ((image - low) / (high - low) * 255).round().to(torch.uint8)
        return grey_or_rgb.expand(3, -1, -1).permute(1, 2, 0).contiguous()


def check_probe_size(size: object) -> None:
    """Check the type and the value of the ``probe_size`` argument.

    Raises:
        ValueError: If ``size`` is not a whole number of at least 1.
    """
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(f"probe_size must be a whole number of pixels; found {size!r}")


def load_probe(source: ProbeSource = None, *, size: int = 224) -> Probe:
    """Make a probe from an image file, an image, a tensor or an array.

    Args:
        source: None for the built-in chart; the path of an image file, or a PIL image; or a tensor
            or array of shape (C, H, W) or (H, W). If the longer side of an image has more than
            ``size`` pixels, the image is shrunk to this size. Tensors and arrays keep their size.
            Tensors and arrays of whole numbers are divided by 255.
        size: Size of the chart, and maximal size of an image, in pixels. For some layers the chart
            is drawn larger, see `Probe.covering`.

    Raises:
        FileNotFoundError: If the path does not exist.
        ValueError: If the file is not an image, or the tensor or array has the wrong shape, type or
            values.
        TypeError: If ``source`` has another type.

    Example:
        >>> load_probe(np.zeros((3, 32, 48), dtype=np.uint8)).size
        (32, 48)
    """
    if source is None:
        return Probe(make_chart(size), CHART)
    if isinstance(source, str | Path):
        return Probe(_from_image(_open(source), size), Path(source).name)
    if isinstance(source, Image.Image):
        return Probe(_from_image(source, size), "image")
    if isinstance(source, np.ndarray):
        # torch refuses arrays of another byte order, and warns about those that are read-only.
        source = torch.from_numpy(np.array(source, source.dtype.newbyteorder("="), order="C"))
    if isinstance(source, Tensor):
        return probe_of_tensor(source, "tensor")
    raise TypeError(
        "probe must be None, the path of an image, a PIL image, a tensor or array (C, H, W), "
        f'"train_batch" or "val_batch"; found {type(source).__name__}'
    )


def probe_of_tensor(values: Tensor, name: str) -> Probe:
    """Make a probe from a tensor.

    Args:
        values: Shape (C, H, W) or (H, W), not modified. Whole numbers are divided by 255.
        name: The name of the probe.

    Raises:
        ValueError: If the shape, type or values are not those of an image.
    """
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(
            f"a probe tensor needs the shape (C, H, W) or (H, W); found {tuple(values.shape)}"
        )
    if values.layout != torch.strided or values.is_meta or values.is_quantized:
        raise ValueError(
            f"a probe tensor needs dense values; found {values.layout} of {values.dtype} on "
            f"{values.device}; use .to_dense() or .dequantize(), or pass another tensor"
        )
    if values.shape[-1] in (1, 3, 4) and values.shape[0] > 16:
        raise ValueError(
            f"a probe tensor needs the shape (C, H, W); found {tuple(values.shape)}, which looks "
            "like (H, W, C); use .permute(2, 0, 1) or .transpose(2, 0, 1)"
        )
    if values.is_complex():
        raise ValueError(f"a probe tensor needs real values; found {values.dtype}")
    scale = 1.0 if values.is_floating_point() or values.dtype == torch.bool else 255.0
    # Not the subclass of the data set: a checkpoint with it could not be read without its code.
    plain = values.detach().as_subclass(Tensor)
    image = plain.to("cpu", torch.float32, copy=True).contiguous() / scale
    if not image.isfinite().all():
        raise ValueError(f"the probe ({name}) has NaN or infinite values; pass a finite image")
    return Probe(image, name)


def check_fit(shape: Sequence[int], geometry: Geometry, probe: Probe) -> None:
    """Raise a `ValueError` unless the probe can be convolved with the filters of a layer.

    Args:
        shape: Shape of the layer's weights. A 1-D layer needs no probe, so every probe fits it.
        geometry: Geometry of the layer.
        probe: The probe, before it is adapted to the channels of the layer.
    """
    if len(shape) == 3:
        return
    _, channels, *_, height, width = shape
    probe.for_channels(channels * geometry.groups)
    covering = probe.covering((height, width), geometry.plane_dilation)
    response_size(covering.size, (height, width), geometry.plane_dilation)


def readable_by_layer(probe: Probe, shape: Sequence[int], geometry: Geometry) -> Probe:
    """Return the probe, or the probe in grey if the layer cannot read it otherwise.

    A deeper layer reads feature maps, not an image. If it has no feature maps, its responses are
    computed as if each of its input channels were the grey probe.

    Args:
        probe: The probe, before it is adapted to the channels of the layer.
        shape: Shape of the layer's weights.
        geometry: Geometry of the layer.
    """
    try:
        check_fit(shape, geometry, probe)
    except ValueError:
        return probe.in_grey()
    return probe


def _open(source: str | Path) -> Image.Image:
    path = Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"the probe {str(source)!r} is not a file; pass the path of an image"
        )
    try:
        with Image.open(path) as file:
            if file.width * file.height > _MOST_PIXELS:
                raise ValueError(f"it has {file.width:,} x {file.height:,} pixels")
            image: Image.Image = file.copy()
            return image
    except Exception as error:  # for a damaged or huge file, Pillow raises many types of errors
        raise ValueError(
            f"the probe {str(source)!r} is not an image that Pillow can read: {error}"
        ) from error


def _from_image(image: Image.Image, size: int) -> Tensor:
    image = ImageOps.exif_transpose(image)
    if image.mode not in ("L", "RGB"):
        grey = image.mode in ("1", "I", "F", "LA") or image.mode.startswith("I;16")
        image = _eight_bits(image) if grey else image.convert("RGB")
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(
        np.array(image)
    )  # a function of torchvision would use the default device
    return pixels.reshape(image.height, image.width, -1).permute(2, 0, 1).contiguous().float() / 255


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("1", "LA"):
        return image.convert("L")
    values = np.asarray(image, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the probe has NaN or infinite values; pass a finite image")
    span = float(values.max() - values.min()) or 1.0
    return Image.fromarray(np.rint((values - values.min()) / span * 255).astype(np.uint8), "L")


def _grey(image: Tensor) -> Tensor:
    # torchvision takes a second to import, and a process that draws RGB layers does not need it.
    from torchvision.transforms.v2.functional import rgb_to_grayscale

    grey: Tensor = rgb_to_grayscale(image)
    return grey
