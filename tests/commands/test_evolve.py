"""Call ``kernelviz evolve`` on real files."""

import io
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from filter_sequences import drawn, sequence_of
from PIL import Image

from kernelviz_callback import Geometry, KernelVizCallback, Snapshot, save_snapshot
from kernelviz_callback.cli import main
from kernelviz_callback.commands import evolve
from kernelviz_callback.commands.history import LayerHistory
from kernelviz_callback.drawing.animation.sampling import MOST_FRAMES
from kernelviz_callback.drawing.animation.strip import film_strip
from kernelviz_callback.training.films import draw_films

EVERY_STEP = {"every_n_train_steps": 1}
PLAIN = Geometry("Conv2d", (1, 1), (0, 0), (1, 1), 1)
STEPS = (0, 1, 2, 4, 8, 16, 30, 60)


def weights(step: int) -> torch.Tensor:
    return drawn(8, 3, 5, 5, seed=step) * (1 + step)


def snapshots(folder: Path, steps: tuple[int, ...] = STEPS) -> Path:
    for step in steps:
        named = {"conv": weights(step), "body": drawn(4, 8, 3, 3, seed=step)}
        geometry = dict.fromkeys(named, PLAIN)
        save_snapshot(Snapshot(step, step // 10, 0.0, named, geometry), folder / "kernelviz")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return snapshots(tmp_path / "run")


def frames_of(path: Path) -> int:
    with Image.open(path) as image:
        return getattr(image, "n_frames", 1)


def width_of(path: Path) -> int:
    with Image.open(path) as image:
        return image.size[0]


def test_without_an_output_snapshots_and_layers_are_listed(
    run: Path, tmp_path: Path, capsys
) -> None:
    for arguments in ([str(run)], [str(run), "--list", "-o", str(tmp_path / "film.png")]):
        assert main(["evolve", *arguments]) == 0
        printed = capsys.readouterr().out
        assert "8 snapshots, steps 0 to 60" in printed
        assert "step-00000060.safetensors" in printed
        assert "conv: 8x3x5x5" in printed
        assert "body: 4x8x3x3" in printed
        assert "evolution.gif" in printed
    assert not (tmp_path / "film.png").exists()


def test_the_film_strip_shows_the_snapshots(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "film.png"
    assert main(["evolve", str(run), "-o", str(out)]) == 0
    expected = film_strip(sequence_of({step: weights(step) for step in STEPS}))
    assert np.array_equal(np.asarray(Image.open(out)), expected.pixels.numpy())


def test_every_kind_of_file_is_written(run: Path, tmp_path: Path, capsys) -> None:
    outputs = [tmp_path / f"o.{suffix}" for suffix in ("png", "svg", "pdf", "gif", "mp4")]
    named = [o for path in outputs for o in ("-o", str(path))]
    assert main(["evolve", str(run), "--layer", "body", "--scale", "filter", *named]) == 0
    printed = capsys.readouterr().out
    assert all(str(path) in printed for path in outputs)
    assert frames_of(tmp_path / "o.gif") == len(STEPS)
    assert (tmp_path / "o.svg").read_text().startswith("<?xml")
    assert (tmp_path / "o.pdf").read_bytes().startswith(b"%PDF")


def test_a_video_has_all_snapshots_and_holds_the_last(tmp_path: Path) -> None:
    run = snapshots(tmp_path / "run", tuple(range(100)))
    outputs = ["-o", str(tmp_path / "o.mp4"), "-o", str(tmp_path / "o.gif")]
    assert main(["evolve", str(run), *outputs]) == 0
    with av.open(str(tmp_path / "o.mp4")) as file:
        [stream] = file.streams
        assert stream.frames == 100 + 2 * stream.average_rate
    assert frames_of(tmp_path / "o.gif") == 100 > MOST_FRAMES


def test_principal_planes_do_not_change_their_sign_in_a_film(tmp_path: Path) -> None:
    """Filters of 12 bands, whose pattern hardly changes, but its sum crosses zero."""
    shares = drawn(4, 12, 1, 1)
    pattern = torch.tensor([[1.0, -1.0], [1.0, -1.0]]).repeat(2, 2)
    steps = (0, 1, 2, 3, 4, 5)
    for step in steps:
        weights = {"conv": shares * (pattern + 0.01 * (-1) ** step)}
        save_snapshot(Snapshot(step, 0, 0.0, weights, {"conv": PLAIN}), tmp_path / "run")
    outputs = [o for s in ("png", "gif", "mp4") for o in ("-o", str(tmp_path / f"o.{s}"))]
    assert main(["evolve", str(tmp_path / "run"), *outputs]) == 0
    with av.open(str(tmp_path / "o.mp4")) as file:
        video = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)][: len(steps)]
    with Image.open(tmp_path / "o.gif") as image:
        animation = []
        for k in range(len(steps)):
            image.seek(k)
            animation.append(np.asarray(image.convert("RGB")))
    for pictures in (video, animation):
        above = pictures[0].shape[0] * 3 // 5  # kernels alone, without the step below them
        for before, after in pairwise(picture[:above].astype(int) for picture in pictures):
            assert np.abs(before - after).mean() < 5
    expected = film_strip(sequence_of({s: shares * (pattern + 0.01 * (-1) ** s) for s in steps}))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "o.png")), expected.pixels)


def test_a_single_snapshot_is_shown_with_a_note(run: Path, tmp_path: Path, capsys) -> None:
    one = run / "kernelviz" / "step-00000008.safetensors"
    outputs = [o for s in ("png", "gif", "mp4") for o in ("-o", str(tmp_path / f"o.{s}"))]
    assert main(["evolve", str(one), *outputs]) == 0
    assert "1 snapshot, step 8: there is no change to show yet" in capsys.readouterr().out
    assert frames_of(tmp_path / "o.gif") == 1


def test_a_checkpoint_without_a_step_is_shown_with_a_note(tmp_path: Path, capsys) -> None:
    torch.save({"conv.weight": drawn(4, 3, 3, 3)}, tmp_path / "last.pt")
    assert main(["evolve", str(tmp_path / "last.pt")]) == 0
    assert (
        "the checkpoint does not state its step: it is shown as step 0" in capsys.readouterr().out
    )


def test_a_network_without_a_convolution_is_an_error(tmp_path: Path, capsys) -> None:
    torch.save({"head.weight": drawn(4, 3)}, tmp_path / "noconv.ckpt")
    assert main(["evolve", str(tmp_path / "noconv.ckpt")]) == 2
    printed = capsys.readouterr()
    assert "noconv.ckpt: found no 2-D convolution" in printed.err
    assert printed.out == ""


def test_the_help_calls_its_argument_run(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evolve", "--help"])
    printed = capsys.readouterr().out
    assert "RUN may be a Lightning checkpoint" in printed
    assert "FILE" not in printed


def test_unreadable_snapshots_are_reported_once_and_the_others_shown(
    run: Path, tmp_path: Path, capsys
) -> None:
    for step in (0, 8):
        path = run / "kernelviz" / f"step-{step:08d}.safetensors"
        path.write_bytes(path.read_bytes()[:-40] if step else b"\x08")
    outputs = [o for s in ("png", "gif", "mp4") for o in ("-o", str(tmp_path / f"o.{s}"))]
    assert main(["evolve", str(run), *outputs]) == 2
    printed = capsys.readouterr()
    for step in (0, 8):
        assert sum(f"step-{step:08d}" in line for line in printed.err.splitlines()) == 1
    assert frames_of(tmp_path / "o.gif") == len(STEPS) - 2
    with av.open(str(tmp_path / "o.mp4")) as file:
        [stream] = file.streams
        assert stream.frames == len(STEPS) - 2 + 2 * stream.average_rate


def test_checkpoints_and_snapshots_are_ordered_by_step(run: Path, tmp_path: Path, capsys) -> None:
    checkpoint = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"net.conv.weight": weights(99)}, "global_step": 99}, checkpoint)
    out = tmp_path / "film.png"
    assert main(["evolve", str(checkpoint), str(run), "-o", str(out)]) == 0
    assert "9 snapshots, steps 0 to 99" in capsys.readouterr().out
    expected = film_strip(sequence_of({step: weights(step) for step in (*STEPS, 99)}))
    assert np.array_equal(np.asarray(Image.open(out)), expected.pixels.numpy())


def test_checkpoints_without_steps_are_numbered(tmp_path: Path, capsys) -> None:
    package = find_spec("facenet_pytorch")
    assert package is not None
    pnet = str(Path(str(package.origin)).parent / "data" / "pnet.pt")
    torch.save({"conv1.weight": drawn(10, 3, 3, 3)}, tmp_path / "start.pt")
    out = tmp_path / "film.png"
    assert main(["evolve", str(tmp_path / "start.pt"), pnet, "-o", str(out)]) == 0
    assert "2 of 2 do not state their step: all are numbered from 0" in capsys.readouterr().out


def test_two_trainings_are_refused_and_named(tmp_path: Path, capsys) -> None:
    runs = [str(snapshots(tmp_path / "runs" / name)) for name in ("bad", "good")]
    out = tmp_path / "mix.png"
    for named in (runs, [str(tmp_path / "runs" / "*")]):
        assert main(["evolve", *named, "-o", str(out)]) == 2
        assert f"2 trainings: {runs[0]}, {runs[1]}; name one" in capsys.readouterr().err
    assert not out.exists()
    assert main(["evolve", str(tmp_path / "runs")]) == 2
    assert "it has checkpoints in its subfolders, bad, good; name one" in capsys.readouterr().err


def test_the_folders_of_a_resumed_training_are_joined(fit, tmp_path: Path, capsys) -> None:
    first = fit(KernelVizCallback(**EVERY_STEP))
    first.save_checkpoint(tmp_path / "last.ckpt")
    folders = [str(first.log_dir)]
    for _ in range(2):
        later = fit(KernelVizCallback(**EVERY_STEP), ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
        folders.append(str(later.log_dir))
    assert main(["evolve", folders[1], folders[0]]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(
        f"17 snapshots, steps 0 to 16\nresumed at step 8 in {folders[1]}\n"
    )
    assert printed.err == ""
    assert main(["evolve", *folders]) == 2
    assert "3 trainings" in capsys.readouterr().err


@pytest.mark.parametrize("later", [(16, 20, 31), (16,)])
def test_snapshots_after_the_step_of_the_resume_are_left_out(
    run: Path, tmp_path: Path, capsys, later: tuple[int, ...]
) -> None:
    resumed, out = snapshots(tmp_path / "resumed", later), tmp_path / "film.png"
    assert main(["evolve", str(run), str(resumed), str(run), "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{5 + len(later)} snapshots, steps 0 to {later[-1]}\n"
        f"resumed at step 16 in {resumed}: later snapshots in {run} left out\n"
    )
    steps = (0, 1, 2, 4, 8, *later)
    expected = film_strip(sequence_of({step: weights(step) for step in steps}))
    assert np.array_equal(np.asarray(Image.open(out)), expected.pixels.numpy())


def test_another_training_that_begins_later_causes_a_warning(tmp_path: Path, capsys) -> None:
    for start, flipped in ((0, False), (100, True)):
        for step in (start, start + 1):
            own = drawn(16, 3, 5, 5) * (1 + step)
            own = own.flip(0) if flipped else own
            save_snapshot(
                Snapshot(step, 0, 0.0, {"conv": own}, {"conv": PLAIN}), tmp_path / f"{start}"
            )
    out = str(tmp_path / "film.png")
    assert main(["evolve", str(tmp_path / "0"), str(tmp_path / "100"), "-o", out]) == 0
    assert (
        "are in another order than those before it; the two may be from" in capsys.readouterr().err
    )


def test_both_subfolders_of_a_run_folder_are_one_training(run: Path, tmp_path: Path) -> None:
    (run / "checkpoints").mkdir()
    for step in (70, 80):
        torch.save({"conv.weight": weights(step)}, run / "checkpoints" / f"step={step}.ckpt")
    assert main(["evolve", str(run / "kernelviz"), str(run / "checkpoints")]) == 0


def test_filters_in_another_order_cause_a_warning(tmp_path: Path, capsys) -> None:
    start = drawn(16, 3, 5, 5)
    for step, moved in enumerate((start, start * 1.1, start.flip(0), start.flip(0) * 2)):
        torch.save({"conv.weight": moved}, tmp_path / f"step={step}.pt")
    names = [str(tmp_path / f"step={step}.pt") for step in range(4)]
    out = ["-o", str(tmp_path / "film.png")]
    assert main(["evolve", *names[:2], *out]) == 0
    assert capsys.readouterr().err == ""
    assert main(["evolve", *names, *out]) == 0
    warned = (
        f"the filters of {names[2]} are in another order than those before it; the two may be "
        "from different trainings"
    )
    assert capsys.readouterr().err == f"kernelviz: {warned}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "missing: the file or folder does not exist"),
        (["RUN", "--layer", "head", "-o", "o.png"], "found no single layer 'head'"),
        (["RUN", "-o", "nowhere/o.png"], "the folder nowhere does not exist"),
        (["RUN", "-o", "/proc/x.gif"], "kernelviz: /proc/x.gif: it cannot be written: "),
        (["RUN", "-o", "/proc/x.html"], "kernelviz: /proc/x.html: it cannot be written: "),
        (["RUN", "-o", "/proc/x.mp4"], "kernelviz: /proc/x.mp4: it cannot be written: "),
        (["RUN", "-o", "o.gif", "--probe", "x.png"], "--probe is for a report"),
    ],
)
def test_errors_are_one_line_and_exit_with_two(
    run: Path, tmp_path: Path, monkeypatch, capsys, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["evolve", *(str(run) if a == "RUN" else a for a in arguments)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_the_other_outputs_are_written_if_one_fails(run: Path, tmp_path: Path) -> None:
    names = [tmp_path / f"o.{suffix}" for suffix in ("mp4", "gif", "png")]
    for path in names[:2]:
        path.mkdir()
    assert main(["evolve", str(run), *(o for p in names for o in ("-o", str(p)))]) == 2
    assert names[2].is_file()


def test_an_interrupted_output_keeps_the_existing_file(
    run: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    names = [tmp_path / f"o.{suffix}" for suffix in ("mp4", "gif", "html")]
    for path in names:
        path.write_bytes(b"before")
    calls = 0

    def interrupted(read: Callable[[LayerHistory, int], Any]) -> Callable[[LayerHistory, int], Any]:
        def count_and_read(history: LayerHistory, step: int) -> Any:
            nonlocal calls
            calls += 1
            if calls > 2 * len(STEPS):  # the video is being encoded
                raise KeyboardInterrupt
            return read(history, step)

        return count_and_read

    for method in ("read", "read_with_record"):
        monkeypatch.setattr(LayerHistory, method, interrupted(getattr(LayerHistory, method)))
    for path in names:
        calls = 0 if path.suffix == ".mp4" else 2 * len(STEPS)
        assert main(["evolve", str(run), "-o", str(path)]) == 130
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == (
        dict.fromkeys(names, b"before")
    )
    monkeypatch.undo()
    for path in names:
        assert main(["evolve", str(run), "-o", str(path)]) == 0
        assert path.stat().st_size > 100
    assert len([path for path in tmp_path.iterdir() if path.is_file()]) == len(names)


def test_a_missing_encoder_is_an_error_before_the_work(
    run: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["evolve", str(run), "-o", str(tmp_path / "o.mp4")]) == 2
    printed = capsys.readouterr()
    assert 'pip install "kernelviz-callback[video]"' in printed.err
    assert printed.out == ""


def test_an_animation_is_larger_than_a_logged_one_and_limited_in_size(
    tmp_path: Path, monkeypatch
) -> None:
    run = snapshots(tmp_path / "run", tuple(range(40)))
    out = tmp_path / "o.gif"
    assert main(["evolve", str(run), "-o", str(out)]) == 0
    assert width_of(out) > 600
    monkeypatch.setattr(evolve, "_MOST_GIF_BYTES", 60_000)
    assert main(["evolve", str(run), "-o", str(out)]) == 0
    assert out.stat().st_size <= 60_000


def test_progress_is_not_shown_without_a_terminal(run: Path, tmp_path: Path) -> None:
    code = f"from kernelviz_callback.cli import main; main(['evolve', {str(run)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("filters", [(8, 8, 6, 6, 12, 12), (8, 8, 6, 6, 8, 8)])
def test_a_layer_that_changed_is_shown_as_in_the_films_of_the_training(
    tmp_path: Path, capsys, filters: tuple[int, ...]
) -> None:
    folder = tmp_path / "run" / "kernelviz"
    for step, count in enumerate(filters):
        named = {"conv": drawn(count, 3, 5, 5, seed=step)}
        save_snapshot(Snapshot(step, 0, 0.0, named, {"conv": PLAIN}), folder)
    outputs = [o for s in ("png", "gif", "mp4", "html") for o in ("-o", str(tmp_path / f"o.{s}"))]
    assert main(["evolve", str(tmp_path / "run"), *outputs]) == 0
    printed = capsys.readouterr()
    last = filters[-1]
    if last == 12:
        assert "conv changed: 4 of 6 left out, in which it does not have its newest shape, " in (
            printed.out
        )
        assert printed.err == ""
    else:
        assert printed.err.count("expected 8x3x5x5 of conv; found 6x3x5x5") == 2
    shown = [step for step, count in enumerate(filters) if count == last]
    with Image.open(io.BytesIO(draw_films(folder)["evolution/conv"].content)) as logged:
        assert frames_of(tmp_path / "o.gif") == logged.n_frames == len(shown)
    page = (tmp_path / "o.html").read_text()
    assert [step for step in range(6) if f'"step":{step},' in page] == shown
