"""lotteryfw: lottery-ticket studies as recipes.

This module is the public API: everything a plugin may import, and everything a script needs. `__init__.pyi` beside it
lists the names. They are loaded when they are first used, so importing it costs nothing and does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
