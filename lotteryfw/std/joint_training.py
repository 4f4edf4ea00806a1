"""The search that trains weights and masks together."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lotteryfw import Lab, MaskSearch, Search
from lotteryfw.std.searches import RETRAINED


class JointTraining(MaskSearch):
    """Joint training: one training learns a mask and the weights under it.

    Level 1 is the mask that the training ended with. The variant "ticket" has the figures of that
    training under the mask, "retrained" those of the mask trained afresh, from where the rewind
    policy says.
    """

    use = "joint_training"
    formula = "w_0 and scores → train both → mask of the scores (→ rewind → train the mask)"
    source = (
        "Savarese et al. 2020, Winning the Lottery with Continuous Sparsification, section 4; "
        "Kusupati et al. 2020"
    )
    variants = (RETRAINED,)

    density: Annotated[float, Field(gt=0, le=1)] | None = None
    """For a parametrization that keeps a number of weights; left out where it finds its density."""
    dense: bool = True
    """Also train the dense network, as level 0, to compare with."""
    retrain: bool = False
    """Also train the mask that was found as a ticket, from the start: is it a winning ticket?"""

    def search(self, lab: Lab) -> Search[None]:
        if self.dense:
            dense = lab.dense()
            trained = yield from lab.train(dense)
            lab.record(0, dense, trained)
        # weights and scores begin together, at the weights of the dense network's step 0
        start = lab.learn_mask(self.density)
        learned = yield from lab.train(start)
        ticket = lab.extract_ticket(start, learned, rewound=True)
        # the figures are those of the training, and controls start where the ticket would
        lab.record(1, ticket, learned)
        if self.retrain:
            retrained = yield from lab.train(ticket, RETRAINED)
            lab.record(1, ticket, retrained, RETRAINED)
