"""The lab that trials run searches and analyses in answers as the engine does."""

from __future__ import annotations

import torch
from support.labs import run

from lotteryfw.std.metrics import TopK
from lotteryfw.testkit.fake_lab import make_lab


def test_figures_of_metrics_have_the_metrics_own_names() -> None:
    lab = make_lab()
    figures = run(lab.evaluate(lab.dense(), metrics=[TopK(k=2), TopK(k=3)]))
    assert set(figures.metrics) == {"top_2", "top_3"}


def test_a_training_that_learns_a_mask_says_which_edges_were_selected() -> None:
    lab = make_lab()
    ticket = lab.learn_mask(0.5)
    learned = run(lab.train(ticket))
    selected = learned.selected()
    mask = lab.extract_ticket(ticket, learned, rewound=False).mask
    assert selected.keys() == mask.keys()
    for name, edges in selected.items():
        assert edges.dtype == torch.bool
        assert bool(edges[mask[name]].all())
