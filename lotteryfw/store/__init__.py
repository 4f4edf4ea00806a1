"""What is kept on disk: the store of computed objects, run folders, tickets. Importing it does not import torch."""

from lotteryfw.store.files import atomic_write, file_name
from lotteryfw.store.folder import LevelRow, RunFolder, find_runs, strict_json
from lotteryfw.store.objects import Busy, Store, default_root
from lotteryfw.store.seeds import load_seed_ticket, save_seed_ticket
from lotteryfw.store.tickets import LoadedTicket, load_ticket, save_ticket
from lotteryfw.store.upkeep import Info, Swept, Verified

__all__ = [
    "Busy",
    "Info",
    "LevelRow",
    "LoadedTicket",
    "RunFolder",
    "Store",
    "Swept",
    "Verified",
    "atomic_write",
    "default_root",
    "file_name",
    "find_runs",
    "load_seed_ticket",
    "load_ticket",
    "save_seed_ticket",
    "save_ticket",
    "strict_json",
]
