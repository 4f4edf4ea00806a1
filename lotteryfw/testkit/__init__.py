"""Trials: each puts a component to work as the engine would, and says which of its kind's promises it broke.

In a plugin's own tests:

    from lotteryfw.testkit import trial

    def test_my_criterion():
        trial(MyCriterion, {"power": 3})
"""

from lotteryfw.testkit.fixtures import make_layer
from lotteryfw.testkit.plugins import Verdict, check_plugin
from lotteryfw.testkit.probes import make_probe, small_conv_net
from lotteryfw.testkit.subject import Skipped
from lotteryfw.testkit.trials import trial

__all__ = [
    "Skipped",
    "Verdict",
    "check_plugin",
    "make_layer",
    "make_probe",
    "small_conv_net",
    "trial",
]
