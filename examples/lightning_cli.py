"""Configure the callback, the model and the data in YAML, with LightningCLI.

python examples/lightning_cli.py fit --config configs/photos.yaml
"""

from lightning.pytorch.cli import LightningCLI

if __name__ == "__main__":
    LightningCLI()
