"""Everything on disk: the store of computed objects, run folders, tickets.

Importing this package does not import torch.
"""

from lotteryfw.store.checksums import Damage
from lotteryfw.store.event_log import EventLog
from lotteryfw.store.failed_cells import FailedCell, failed_cells
from lotteryfw.store.files import atomic_write, file_name, is_denied
from lotteryfw.store.folder import RunFolder, find_runs, ticket_name
from lotteryfw.store.level_table import METRIC, LevelRow
from lotteryfw.store.locks import Busy
from lotteryfw.store.objects import Store, default_root
from lotteryfw.store.seal import Damaged, check_seal, seal
from lotteryfw.store.spool_files import check_spooled
from lotteryfw.store.strict_json import strict_json
from lotteryfw.store.tickets import REWOUND, LoadedTicket, load_ticket, save_ticket, saved_stats
from lotteryfw.store.upkeep import Info, Swept
from lotteryfw.store.verification import Verified

__all__ = [
    "METRIC",
    "REWOUND",
    "Busy",
    "Damage",
    "Damaged",
    "EventLog",
    "FailedCell",
    "Info",
    "LevelRow",
    "LoadedTicket",
    "RunFolder",
    "Store",
    "Swept",
    "Verified",
    "atomic_write",
    "check_seal",
    "check_spooled",
    "default_root",
    "failed_cells",
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
