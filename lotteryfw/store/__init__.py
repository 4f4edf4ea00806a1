"""Everything on disk: the store of computed objects, run folders, tickets.

Importing this package does not import torch.
"""

from lotteryfw.store.files import atomic_write, file_name, is_denied
from lotteryfw.store.folder import (
    EventLog,
    LevelRow,
    RunFolder,
    find_runs,
    strict_json,
    ticket_name,
)
from lotteryfw.store.locks import Busy
from lotteryfw.store.objects import Store, default_root
from lotteryfw.store.seal import Damaged, check_seal, seal
from lotteryfw.store.tickets import LoadedTicket, load_ticket, save_ticket, saved_stats
from lotteryfw.store.upkeep import Info, Swept
from lotteryfw.store.verification import Verified

__all__ = [
    "Busy",
    "Damaged",
    "EventLog",
    "Info",
    "LevelRow",
    "LoadedTicket",
    "RunFolder",
    "Store",
    "Swept",
    "Verified",
    "atomic_write",
    "check_seal",
    "default_root",
    "file_name",
    "find_runs",
    "is_denied",
    "load_ticket",
    "save_ticket",
    "saved_stats",
    "seal",
    "strict_json",
    "ticket_name",
]
