"""The probe from the data: which image is taken, and that the data is not changed by it."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TinyNet
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.training.batch_probe import probe_of_batch, probe_of_loader


@dataclass
class Sample:
    label: Tensor
    image: Tensor


IMAGES = torch.rand(6, 3, 8, 8)


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES,
        [IMAGES, torch.zeros(6)],
        (torch.zeros(6), {"image": IMAGES}),
        {"views": [IMAGES, IMAGES.flip(0)]},
        Sample(torch.zeros(6), IMAGES),
        IMAGES.double(),
    ],
    ids=["tensor", "list", "tuple of dict", "views", "dataclass", "double"],
)
def test_the_first_image_is_taken_from_any_collection(batch) -> None:
    probe = probe_of_batch(batch, "train_batch")
    assert torch.equal(probe.image, IMAGES[0])
    assert probe.name == "train_batch"


def test_the_middle_slice_of_a_clip_is_taken() -> None:
    clips = torch.rand(2, 3, 5, 8, 8)
    assert torch.equal(probe_of_batch([torch.zeros(2), clips], "x").image, clips[0, :, 2])
    assert torch.equal(probe_of_batch([clips, IMAGES], "x").image, IMAGES[0]), (
        "an image has priority over a clip"
    )


def test_the_image_that_the_model_reads_comes_before_a_mask() -> None:
    mask, image = torch.zeros(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    batch = {"mask": mask, "image": image}
    assert torch.equal(probe_of_batch(batch, "train_batch", 3).image, image[0])
    assert torch.equal(probe_of_batch(batch, "train_batch", 1).image, mask[0])
    assert torch.equal(probe_of_batch(batch, "train_batch", 7).image, mask[0])


@pytest.mark.parametrize("frames", [3, 8])
def test_the_channels_of_a_clip_are_those_that_the_model_reads(frames: int) -> None:
    clip = torch.rand(2, 3, frames, 4, 5)  # (B, C, T, H, W)
    for batch in (clip, clip.transpose(1, 2)) if frames != 3 else (clip,):
        found = probe_of_batch(batch, "train_batch", 3)
        assert torch.equal(found.image, clip[0, :, frames // 2])


@pytest.mark.parametrize("collection", [tuple, list])
def test_the_first_of_a_list_of_images_is_taken(collection) -> None:
    photos = collection([torch.rand(3, 8, 9), torch.rand(3, 12, 7)])
    boxes = collection([{"boxes": torch.zeros(2, 4)}, {"boxes": torch.zeros(1, 4)}])
    assert torch.equal(probe_of_batch((photos, boxes), "x").image, photos[0])
    assert torch.equal(probe_of_batch({"t": boxes, "x": photos}, "x").image, photos[0])
    assert torch.equal(probe_of_batch([photos, IMAGES], "x").image, IMAGES[0]), (
        "a batch of images has priority over a list"
    )


def test_two_batches_of_sequences_are_no_list_of_images() -> None:
    with pytest.raises(ValueError, match=r"has \(6, 10, 4\), \(6, 10, 4\)"):
        probe_of_batch([torch.rand(6, 10, 4), torch.rand(6, 10, 4)], "train_batch")


def test_the_error_for_an_image_with_nan_names_the_batch() -> None:
    with pytest.raises(ValueError, match=r"the probe \(train_batch\) has NaN"):
        probe_of_batch(IMAGES * torch.nan, "train_batch")


def test_a_checkpoint_with_a_probe_of_another_tensor_class_opens_without_that_class(
    fit, tmp_path: Path
) -> None:
    class Labelled(Tensor):
        """As MONAI and fastai have: operations and copies keep the class."""

    class Net(TinyNet):
        def on_after_batch_transfer(self, batch, _):
            return [batch[0].as_subclass(Labelled), *batch[1:]]

    trainer = fit(KernelVizCallback(probe="train_batch"), model=Net(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]["KernelVizCallback"]
    assert type(state["batch_probe"]) is Tensor


def test_the_error_for_a_batch_without_images_names_its_shapes() -> None:
    with pytest.raises(ValueError, match=r"has \(6, 10\), \(6,\)"):
        probe_of_batch([torch.zeros(6, 10), torch.zeros(6)], "train_batch")
    with pytest.raises(ValueError, match="has no tensor"):
        probe_of_batch("text", "train_batch")


@pytest.mark.parametrize("own_generator", [True, False])
def test_the_loader_gives_the_same_batches_after_a_probe_was_taken(own_generator: bool) -> None:
    def batches(*, take_probe: bool) -> list[Tensor]:
        torch.manual_seed(2)
        generator = torch.Generator().manual_seed(3) if own_generator else None
        loader = DataLoader(TensorDataset(IMAGES), batch_size=2, shuffle=True, generator=generator)
        if take_probe:
            probe = probe_of_loader([loader])
            assert any(torch.equal(probe.image, image) for image in IMAGES)
        return [batch for (batch,) in loader] + [torch.rand(3)]

    pairs = zip(batches(take_probe=True), batches(take_probe=False), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_the_image_is_the_first_one_of_the_loader() -> None:
    loader = DataLoader(TensorDataset(IMAGES), batch_size=2)
    assert torch.equal(probe_of_loader({"a": loader}).image, IMAGES[0])
    unbatched = DataLoader(TensorDataset(IMAGES[:, None]), batch_size=None)
    assert torch.equal(probe_of_loader(unbatched).image, IMAGES[0])


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("a stream must not be consumed")


@pytest.mark.parametrize("loaders", [None, [], DataLoader(Stream())])
def test_an_iterable_data_set_is_refused(loaders) -> None:
    with pytest.raises(ValueError, match="num_sanity_val_steps and limit_val_batches above 0"):
        probe_of_loader(loaders)


def test_the_search_consumes_no_iterator_and_ends_for_an_object_that_contains_itself() -> None:
    class Kind(Enum):
        TRAIN = 1

    class Sample:
        def __init__(self) -> None:
            self.itself = self
            self.image = torch.ones(1, 3, 4, 4)

    stream = iter([torch.zeros(1, 3, 4, 4)])
    batch = [Kind.TRAIN, "text", np.array(3), stream, Sample()]
    assert probe_of_batch(batch, "train_batch").image.min() == 1
    assert len(list(stream)) == 1


def test_the_error_for_an_empty_validation_set_says_so() -> None:
    empty = DataLoader(TensorDataset(torch.zeros(0, 3, 4, 4)), batch_size=1)
    with pytest.raises(ValueError, match="the validation data is empty"):
        probe_of_loader(empty)
