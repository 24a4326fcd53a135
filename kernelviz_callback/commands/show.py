"""``kernelviz show``: draw the kernels and responses of a checkpoint, to files or the screen."""

import argparse
import sys

from kernelviz_callback.checkpoints.checkpoint import open_checkpoint
from kernelviz_callback.checkpoints.find import find_checkpoints, find_newest
from kernelviz_callback.checkpoints.pictures import checkpoint_pictures
from kernelviz_callback.drawing.picture import Picture
from kernelviz_callback.probe.probe import load_probe
from kernelviz_callback.storage import replace_when_complete


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit status."""
    found = find_checkpoints(options.file)
    newest = find_newest(found)
    if len(found) > 1:
        print(f"the newest of {len(found)} checkpoints: {newest}")
    checkpoint = open_checkpoint(newest)
    if options.list:
        print(checkpoint.describe())
        return 0
    for remark in checkpoint.remarks(options.layer):
        print(f"kernelviz: {remark}", file=sys.stderr)
    pictures = checkpoint_pictures(
        checkpoint,
        options.layer,
        probe=load_probe(options.probe),
        response=options.response,
        scale=options.scale,
    )
    for kind, picture in pictures.items():
        if options.output is not None:
            path = options.output.with_stem(f"{options.output.stem}-{kind}")
            with replace_when_complete(path) as temporary:
                picture.save(temporary)
            print(path)
        else:
            _show(picture)
    return 0


def _show(picture: Picture) -> None:
    if not picture.show():
        raise OSError("found no program to show pictures; write them to files with -o NAME.png")
