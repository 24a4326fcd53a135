"""The plot of a layer's health has the numbers of filters and the names of verdicts."""

import numpy as np
from faulty_layer import faulty_layer

from kernelviz_callback import kernel_health


def test_a_plot_has_bars_and_a_legend() -> None:
    figure, axes = kernel_health(faulty_layer()[0]).plot()
    assert axes.shape == (2, 2)
    heights = [bar.get_height() for bar in axes[0, 0].patches]
    assert np.argmax(np.nan_to_num(heights)) == 7
    figure.canvas.draw()
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown[:3] == ["no verdict", "non-finite", "near-zero"]
