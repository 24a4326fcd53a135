"""A probe is loaded from a file, an image, a tensor or an array, and adapted to channels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from kernelviz_callback import (
    Probe,
    ProbeEnergy,
    channel_responses,
    compare,
    comparison_picture,
    geometry_of,
    load_probe,
    make_chart,
)
from kernelviz_callback.drawing.layer_pictures import response_picture
from kernelviz_callback.probe.probe import check_fit
from kernelviz_callback.probe.probe_energy import energy_for_layer


@pytest.fixture
def photo() -> Image.Image:
    y, x = np.mgrid[:60, :90]
    return Image.fromarray(np.stack([y * 4, x * 2, y + x], axis=-1).astype(np.uint8))


def test_the_default_is_the_chart() -> None:
    probe = load_probe(size=64)
    assert probe.name == "chart"
    assert torch.equal(probe.image, make_chart(64))


def test_a_small_image_file_is_read_without_change(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "photo.png")
    for path in (tmp_path / "photo.png", str(tmp_path / "photo.png")):
        probe = load_probe(path)
        assert probe.name == "photo.png"
        expected = torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() / 255
        assert torch.equal(probe.image, expected)


def test_a_large_image_is_shrunk_with_its_proportions_and_not_modified(photo: Image.Image) -> None:
    assert load_probe(photo, size=45).size == (30, 45)
    assert photo.size == (90, 60)


def test_a_photo_is_rotated_by_its_orientation(photo: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was rotated by 90 degrees
    photo.save(tmp_path / "turned.jpg", exif=exif)
    assert load_probe(tmp_path / "turned.jpg").size == (90, 60)


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("L", 1), ("1", 1), ("LA", 1), ("I", 1), ("F", 1), ("RGBA", 3), ("P", 3), ("CMYK", 3)],
)
def test_every_image_mode_of_pillow(photo: Image.Image, mode: str, channels: int) -> None:
    probe = load_probe(photo.convert(mode))
    assert probe.image.shape == (channels, 60, 90)
    assert 0 <= probe.image.min() < probe.image.max() <= 1


def test_a_sixteen_bit_image_keeps_its_contrast() -> None:
    depth = np.linspace(1000, 60000, 400).reshape(20, 20).astype(np.uint16)
    probe = load_probe(Image.fromarray(depth))
    assert probe.image.min() == 0
    assert probe.image.max() == 1


def test_tensors_and_arrays_keep_their_size_and_values() -> None:
    values = torch.randn(5, 20, 30)
    for source in (values, values.numpy(), values.double()):
        probe = load_probe(source, size=16)
        assert torch.equal(probe.image, values)
        assert probe.name == "tensor"
    levels = torch.arange(12, dtype=torch.uint8).view(3, 2, 2)
    assert torch.equal(load_probe(levels).image, levels / 255)
    assert load_probe(np.zeros((4, 6), dtype=bool)).image.shape == (1, 4, 6)


@pytest.mark.filterwarnings("error")
def test_an_array_of_any_memory_layout_has_the_same_probe(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 8, 9), dtype=np.float32)
    np.save(tmp_path / "photo.npy", values)
    same = [
        values.astype(">f4"),
        values[:, ::-1].copy()[:, ::-1],
        np.load(tmp_path / "photo.npy", mmap_mode="r"),
        np.ma.array(values),
    ]
    for array in same:
        assert load_probe(array).digest == load_probe(values).digest


def test_the_probe_has_no_class_of_the_data_set() -> None:
    class Labelled(Tensor):
        """As MONAI and fastai have: operations and copies keep the class."""

    values = torch.rand(3, 8, 8)
    probe = load_probe(values.as_subclass(Labelled))
    assert type(probe.image) is Tensor
    assert torch.equal(probe.image, values)


def test_the_probe_is_a_copy() -> None:
    values = torch.rand(3, 8, 8)
    probe = load_probe(values)
    digest = probe.digest
    values.zero_()
    assert probe.digest == digest


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"found \(2, 3, 8, 8\)"),
        (torch.zeros(3, 0, 8), r"found \(3, 0, 8\)"),
        (np.zeros((32, 32, 3)), r"looks like \(H, W, C\)"),
        (torch.full((1, 4, 4), torch.nan), "NaN"),
        (torch.zeros(1, 4, 4, dtype=torch.complex64), "real values"),
        (torch.eye(4).to_sparse(), r"dense values; found torch.sparse_coo of .*\.to_dense\(\)"),
        (torch.zeros(1, 4, 4, device="meta"), "dense values; .* on meta"),
        (Image.fromarray(np.full((4, 4), np.nan, np.float32)), "NaN"),
    ],
)
def test_values_that_are_not_an_image_are_refused(source, message) -> None:
    with pytest.raises(ValueError, match=message):
        load_probe(source)


def test_the_error_for_a_wrong_type_lists_the_right_types() -> None:
    with pytest.raises(TypeError, match=r'"train_batch" or "val_batch"; found int'):
        load_probe(3)


def test_a_missing_file_and_a_text_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.png' is not a file"):
        load_probe("nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"'https://nowhere.org/cat.png' is not a file"):
        load_probe("https://nowhere.org/cat.png")
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(ValueError, match="is not an image that Pillow can read"):
        load_probe(tmp_path / "notes.png")


def test_a_path_may_begin_with_the_home_folder(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    photo.save(tmp_path / "photo.png")
    assert load_probe("~/photo.png").digest == load_probe(photo).digest


@pytest.mark.parametrize("kind", ["PNG", "PPM", "SGI", "TIFF", "GIF", "BMP"])
def test_the_error_for_a_damaged_image_names_the_file(
    photo: Image.Image, tmp_path: Path, kind: str
) -> None:
    photo.resize((24, 16)).save(tmp_path / "photo", kind)
    sound = (tmp_path / "photo").read_bytes()
    refusals = []
    for place in range(0, 64, 3):
        damaged = bytearray(sound)
        damaged[place] ^= 0xFF
        (tmp_path / "damaged").write_bytes(damaged)
        try:
            load_probe(tmp_path / "damaged")
        except ValueError as error:
            refusals.append(str(error))
    assert refusals
    beginning = f"the probe {str(tmp_path / 'damaged')!r} is not an image that Pillow can read: "
    assert all(refusal.startswith(beginning) for refusal in refusals)


def test_a_huge_image_is_refused_before_it_is_decoded(
    photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo.save(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"photo.png' is not an image .* exceeds limit"):
        load_probe(tmp_path / "photo.png")


def test_a_probe_is_adapted_to_channels() -> None:
    rgb = Probe(torch.rand(3, 4, 4), "photo.png")
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)
    luminance = (rgb.image * weights).sum(0, keepdim=True)
    torch.testing.assert_close(rgb.for_channels(1), luminance)
    assert rgb.for_channels(3) is rgb.image
    grey = Probe(luminance, "grey.png")
    assert torch.equal(grey.for_channels(64), luminance.expand(64, -1, -1))
    chart = load_probe(size=16)
    assert torch.equal(chart.for_channels(4)[3], chart.for_channels(1)[0])


@pytest.mark.parametrize(("found", "wanted"), [(3, 4), (3, 2), (4, 3), (2, 1)])
def test_the_error_names_both_numbers_of_channels(found: int, wanted: int) -> None:
    with pytest.raises(ValueError, match=rf"reads {wanted} input channels .* has {found}"):
        Probe(torch.zeros(found, 4, 4), "tensor").for_channels(wanted)


def test_the_digest_depends_on_values_and_shape() -> None:
    a = Probe(torch.zeros(1, 4, 4), "a")
    assert a.digest == Probe(torch.zeros(1, 4, 4), "b").digest
    assert a.digest != Probe(torch.zeros(1, 2, 8), "a").digest
    assert a.digest != Probe(torch.ones(1, 4, 4), "a").digest


def test_a_probe_of_any_range_and_channels_becomes_a_picture() -> None:
    for channels in (1, 2, 3, 7):
        picture = Probe(torch.randn(channels, 6, 5), "tensor").to_picture()
        assert picture.shape == (6, 5, 3)
        assert picture.dtype == torch.uint8
    chart = make_chart(16)
    exact = (chart.permute(1, 2, 0) * 255).round().to(torch.uint8)
    assert torch.equal(Probe(chart, "chart").to_picture(), exact)


def test_the_digest_does_not_depend_on_the_memory_layout() -> None:
    image = torch.rand(3, 5, 6)
    transposed = image.transpose(1, 2)
    assert Probe(transposed, "a").digest == Probe(transposed.contiguous(), "b").digest
    assert Probe(transposed, "a").digest != Probe(image, "a").digest


@pytest.mark.parametrize(
    ("kernel", "dilation", "side"),
    [
        ((7, 7), (1, 1), 224),
        ((1, 196), (1, 1), 224),
        ((1, 197), (1, 1), 394),
        ((1, 256), (1, 1), 512),
        ((256, 1), (1, 1), 512),
        ((3, 3), (1, 150), 602),
        ((1, 1000), (1, 1), 1024),
        ((1, 1100), (1, 1), 1024),
    ],
)
def test_the_chart_is_drawn_larger_where_a_kernel_needs_it(
    kernel: tuple[int, int], dilation: tuple[int, int], side: int
) -> None:
    chart = load_probe()
    larger = chart.covering(kernel, dilation)
    assert larger.size == (side, side)
    assert (larger is chart) == (side == 224)
    assert torch.equal(larger.image, make_chart(side))
    assert larger.covering(kernel, dilation) is larger


def test_an_image_is_never_replaced_by_a_larger_one() -> None:
    photo = load_probe(torch.rand(3, 40, 40))
    assert photo.covering((1, 256)) is photo
    layer = (8, 3, 1, 256), geometry_of(nn.Conv2d(3, 8, (1, 256)))
    with pytest.raises(ValueError, match=r"the kernel covers 1x256 .* only 40x40"):
        check_fit(*layer, photo)
    check_fit(*layer, load_probe())


def test_every_use_of_the_chart_fits_a_long_kernel() -> None:
    first, last = nn.Conv2d(1, 6, (1, 256)), nn.Conv2d(1, 6, (5, 5))
    assert isinstance(energy_for_layer(load_probe(), first.weight.shape), ProbeEnergy)
    weights = first.weight.detach()
    picture = response_picture(weights, geometry_of(first), load_probe(), layer="conv")
    grey = Probe(make_chart(512), "chart").for_channels(1)
    assert channel_responses(grey, weights).shape == (6, 1, 512, 257)
    assert picture.tile(0).shape == (512 // 2, 257 // 2, 3)
    found = compare(first, last)
    assert found.last.match == "responses"
    assert found.last.responses_alike is not None
    assert comparison_picture(found, responses_to=load_probe()).pixels.numel()
