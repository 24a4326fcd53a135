"""Add the callback to a Trainer. The model and the data are those of the demo."""

from lightning.pytorch import Trainer

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.commands.demo import PhotoCrops, PhotoNet

trainer = Trainer(max_epochs=2, callbacks=[KernelVizCallback()])
trainer.fit(PhotoNet(), datamodule=PhotoCrops())
