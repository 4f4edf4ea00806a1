# The public API: what `import lotteryfw` offers. `__init__.py` reads this list.

from .api.component import (
    Component as Component,
)
from .api.data import (
    Box as Box,
)
from .api.data import (
    Dataset as Dataset,
)
from .api.data import (
    DatasetInfo as DatasetInfo,
)
from .api.data import (
    DrawBox as DrawBox,
)
from .api.data import (
    ExampleReader as ExampleReader,
)
from .api.data import (
    StreamedDataset as StreamedDataset,
)
from .api.data import (
    StreamedSubset as StreamedSubset,
)
from .api.data import (
    Subset as Subset,
)
from .api.errors import (
    ContractError as ContractError,
)
from .api.errors import (
    DataError as DataError,
)
from .api.errors import (
    LotteryError as LotteryError,
)
from .api.errors import (
    PluginError as PluginError,
)
from .api.errors import (
    RecipeError as RecipeError,
)
from .api.errors import (
    StoreError as StoreError,
)
from .api.errors import (
    TrainingDiverged as TrainingDiverged,
)
from .api.errors import (
    UsageError as UsageError,
)
from .api.events import (
    CellFinished as CellFinished,
)
from .api.events import (
    Evaluated as Evaluated,
)
from .api.events import (
    Finding as Finding,
)
from .api.events import (
    JobFailed as JobFailed,
)
from .api.events import (
    JobFinished as JobFinished,
)
from .api.events import (
    LayerCollapsed as LayerCollapsed,
)
from .api.events import (
    LevelFinished as LevelFinished,
)
from .api.events import (
    RunFinished as RunFinished,
)
from .api.events import (
    RunStarted as RunStarted,
)
from .api.events import (
    TrainingProgress as TrainingProgress,
)
from .api.fingerprints import (
    files_fingerprint as files_fingerprint,
)
from .api.functions import (
    ImportedFunction as ImportedFunction,
)
from .api.hookspecs import (
    hookimpl as hookimpl,
)
from .api.kinds import (
    Analysis as Analysis,
)
from .api.kinds import (
    Augmentation as Augmentation,
)
from .api.kinds import (
    AuxiliaryOutputs as AuxiliaryOutputs,
)
from .api.kinds import (
    Control as Control,
)
from .api.kinds import (
    DataSource as DataSource,
)
from .api.kinds import (
    Initialiser as Initialiser,
)
from .api.kinds import (
    Mask0Action as Mask0Action,
)
from .api.kinds import (
    Mask1Action as Mask1Action,
)
from .api.kinds import (
    MaskCriterion as MaskCriterion,
)
from .api.kinds import (
    MaskSearch as MaskSearch,
)
from .api.kinds import (
    Metric as Metric,
)
from .api.kinds import (
    ModelFamily as ModelFamily,
)
from .api.kinds import (
    Objective as Objective,
)
from .api.kinds import (
    Optimizer as Optimizer,
)
from .api.kinds import (
    Parametrization as Parametrization,
)
from .api.kinds import (
    RewindPolicy as RewindPolicy,
)
from .api.kinds import (
    Schedule as Schedule,
)
from .api.kinds import (
    Scope as Scope,
)
from .api.kinds import (
    SearchAlgorithm as SearchAlgorithm,
)
from .api.kinds import (
    TextModelFamily as TextModelFamily,
)
from .api.lab import (
    Lab as Lab,
)
from .api.lab import (
    Search as Search,
)
from .api.layers import (
    LATEST as LATEST,
)
from .api.layers import (
    ControlLayer as ControlLayer,
)
from .api.layers import (
    Group as Group,
)
from .api.layers import (
    Layer as Layer,
)
from .api.layers import (
    LayerInfo as LayerInfo,
)
from .api.layers import (
    MaskedLayer as MaskedLayer,
)
from .api.layers import (
    MaskedNetwork as MaskedNetwork,
)
from .api.layers import (
    Need as Need,
)
from .api.layers import (
    UpdateFactors as UpdateFactors,
)
from .api.mask_updates import (
    MaskUpdate as MaskUpdate,
)
from .api.mask_updates import (
    TrainingNetwork as TrainingNetwork,
)
from .api.metrics import (
    Evaluation as Evaluation,
)
from .api.probe import (
    NetworkCriterion as NetworkCriterion,
)
from .api.probe import (
    Probe as Probe,
)
from .api.results import (
    AnalysisResult as AnalysisResult,
)
from .api.results import (
    LevelResult as LevelResult,
)
from .api.rng import (
    stream as stream,
)
from .api.steps import (
    Clock as Clock,
)
from .api.steps import (
    Step as Step,
)
from .api.tickets import (
    RewindPoint as RewindPoint,
)
from .api.tickets import (
    Ticket as Ticket,
)
from .api.tickets import (
    Trained as Trained,
)
from .runner import (
    Interrupted as Interrupted,
)
from .runner import (
    Listener as Listener,
)
from .runner import (
    Plan as Plan,
)
from .runner import (
    Run as Run,
)
from .runner import (
    export as export,
)
from .runner.seed_tickets import (
    load_seed_ticket as load_seed_ticket,
)
from .search.top_k import (
    IncrementalTopK as IncrementalTopK,
)
from .search.top_k import (
    budget as budget,
)
from .search.top_k import (
    straight_through as straight_through,
)
from .session import (
    check as check,
)
from .session import (
    plan as plan,
)
from .session import (
    run as run,
)
from .store import (
    load_ticket as load_ticket,
)
