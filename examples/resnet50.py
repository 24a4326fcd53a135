"""Draw both pictures of ResNet-50's first layer, on the CPU or a GPU.

The pictures are the kernels of ``conv1`` and their responses to a photo. There is no training.

    python examples/resnet50.py                          # downloads the pretrained weights
    python examples/resnet50.py --weights resnet50.pth   # reads a state dict
"""

import argparse
import pickle
import time
from pathlib import Path
from urllib.error import URLError

import torch
from PIL import Image
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from kernelviz_callback import Probe, effective_weight, find_convolutions, geometry_of, load_probe
from kernelviz_callback.drawing.layer_pictures import kernel_picture, response_picture


def load_network(weights: str) -> nn.Module:
    """Build ResNet-50 with pretrained ("DEFAULT") or "random" weights, or with those of a file."""
    if weights == "random":
        return resnet50()
    if weights == "DEFAULT":
        try:
            return resnet50(weights=ResNet50_Weights.DEFAULT)
        except URLError as error:
            raise SystemExit(
                f"the pretrained weights could not be downloaded ({error.reason}); pass "
                "--weights FILE with a state dict of ResNet-50, or --weights random"
            ) from None
    network = resnet50()
    try:
        network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise SystemExit(f"there is no file {weights}") from None
    except (OSError, RuntimeError, TypeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"{weights} holds no state dict of ResNet-50: {reason}") from None
    return network


def load_astronaut(size: int) -> Probe:
    """Load the photo that is part of scikit-image."""
    from skimage import data

    return Probe(load_probe(Image.fromarray(data.astronaut()), size=size).image, "astronaut")


def main() -> None:
    """Draw the kernels and the responses, and print the time that this takes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="DEFAULT", help="DEFAULT, random, or a file")
    parser.add_argument("--probe", help="a photo (default: the astronaut of scikit-image)")
    parser.add_argument("--size", type=int, default=224, help="longer side of the photo, pixels")
    parser.add_argument("--output", type=Path, default=Path("runs/resnet50"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()

    network = load_network(options.weights).to(options.device)
    if options.probe:
        probe = load_probe(options.probe, size=options.size)
    else:
        probe = load_astronaut(options.size)
    [(layer, conv)] = find_convolutions(network).items()

    start = time.perf_counter()
    weights = effective_weight(conv)
    what = {"layer": f"ResNet-50 {layer}", "when": f"weights {options.weights}"}
    kernels = kernel_picture(weights, **what)
    responses = response_picture(weights, geometry_of(conv), probe, **what)
    took = time.perf_counter() - start

    options.output.mkdir(parents=True, exist_ok=True)
    kernels.save(options.output / "kernels.png")
    responses.save(options.output / "responses.png")
    print(f"{options.output / 'kernels.png'}\n{options.output / 'responses.png'}")
    print(f"convolved and drawn in {took * 1000:.0f} ms on {options.device}")


if __name__ == "__main__":
    main()
