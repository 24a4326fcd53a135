"""The whole of it: one callback in a Trainer. The model and the data are the demo's."""

from lightning.pytorch import Trainer

from kernelviz_callback import KernelVizCallback
from kernelviz_callback.commands.demo import PhotoCrops, PhotoNet

trainer = Trainer(max_epochs=2, callbacks=[KernelVizCallback()])
trainer.fit(PhotoNet(), datamodule=PhotoCrops())
