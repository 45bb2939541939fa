"""Adaptation methods by name. A new one is a file with a `Method` and a line here; outside, `register_method`."""

from biwaa.methods.biwaa import Biwaa
from biwaa.methods.bnm import Bnm
from biwaa.methods.cdan import Cdan, CdanE
from biwaa.methods.dan import Dan
from biwaa.methods.dann import Dann
from biwaa.methods.deep_coral import DeepCoral
from biwaa.methods.fixmatch import FixMatch
from biwaa.methods.linear_probe import LinearProbe
from biwaa.methods.mcc import Mcc
from biwaa.methods.mcc_teacher import MccTeacher
from biwaa.methods.mdd import Mdd
from biwaa.methods.method import Method
from biwaa.methods.mstn import Mstn
from biwaa.methods.pace import Pace
from biwaa.methods.prototypes import Prototypes
from biwaa.methods.self_training import SelfTraining
from biwaa.methods.source_only import SourceOnly
from biwaa.registry import Registry

SOURCE_ONLY = "source_only"
METHODS: Registry[type[Method]] = Registry(
    "method",
    {
        "biwaa": Biwaa,
        "mcc_teacher": MccTeacher,
        "prototypes": Prototypes,
        SOURCE_ONLY: SourceOnly,
        "linear_probe": LinearProbe,
        "dann": Dann,
        "cdan": Cdan,
        "cdan_e": CdanE,
        "mdd": Mdd,
        "mstn": Mstn,
        "mcc": Mcc,
        "bnm": Bnm,
        "deep_coral": DeepCoral,
        "dan": Dan,
        "self_training": SelfTraining,
        "pace": Pace,
        "fixmatch": FixMatch,
    },
)
register_method = METHODS.register
"""Decorate a subclass of `Method` with `register_method(NAME)`, so that `method=NAME` trains it."""
