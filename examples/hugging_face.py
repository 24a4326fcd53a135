"""Watch a Hugging Face Trainer: its callback takes the snapshots.

pip install "transformers[torch]" && python examples/hugging_face.py
"""

from typing import Any

import torch
from torch import nn
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from kernelviz_callback import KernelWatcher


class WatchKernels(TrainerCallback):
    """Take a snapshot at the start and after every logged step."""

    def __init__(self, log_dir: str, **options: Any) -> None:
        self.log_dir, self.options = log_dir, options

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Take a snapshot of the weights before the first step."""
        assert model is not None
        self.watcher = KernelWatcher(model, self.log_dir, **self.options)
        self.watcher.snapshot(state.global_step)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Take a snapshot each time the Trainer logs."""
        self.watcher.snapshot(state.global_step, epoch=int(state.epoch or 0))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Wait until everything is written."""
        self.watcher.close()


def main(output_dir: str = "runs/hugging_face", max_steps: int = 20) -> None:
    """Train a small ResNet on noise."""
    torch.manual_seed(0)
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], num_labels=2)
    )
    data = [{"pixel_values": torch.rand(3, 32, 32), "labels": n % 2} for n in range(64)]
    arguments = TrainingArguments(
        output_dir,
        max_steps=max_steps,
        logging_steps=5,
        per_device_train_batch_size=8,
        report_to="none",
        save_strategy="no",
        use_cpu=not torch.cuda.is_available(),
    )
    Trainer(model, arguments, train_dataset=data, callbacks=[WatchKernels(output_dir)]).train()


if __name__ == "__main__":
    main()
