"""The side stream: it changes nothing on the CPU, and runs in the right order on CUDA."""

import pytest
import torch

from kernelviz_callback.training.cuda_stream import SideStream


def test_without_cuda_the_body_runs_and_there_is_no_mark() -> None:
    side, values, seen = SideStream(torch.device("cpu")), torch.ones(3), []
    mark = side.mark()
    assert mark is None
    with side.after(mark, [values]):
        seen.append(values.sum().item())
    assert seen == [3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_body_runs_on_another_stream_after_the_mark() -> None:
    device = torch.device("cuda", 0)
    side, values = SideStream(device), torch.zeros(1000, device=device)
    training_stream = torch.cuda.current_stream()
    for _ in range(1000):
        values.add_(1)
    mark = side.mark()
    with side.after(mark, [values]):
        assert torch.cuda.current_stream() != training_stream
        total = values.sum()
    torch.cuda.synchronize()
    assert total.item() == 1000 * 1000
    assert torch.cuda.current_stream() == training_stream


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_without_a_mark_is_read_on_the_stream_of_the_training() -> None:
    side, values = SideStream(torch.device("cuda")), torch.ones(3, device="cuda")
    training_stream = torch.cuda.current_stream()
    with side.after(None, [values]):
        assert torch.cuda.current_stream() == training_stream
