"""The contract of each plugin kind as tests to inherit, and toy data to run them on.

For plugin authors::

    from mmrec_bench.testing import RecommenderTests

    class TestMyBaseline(RecommenderTests):
        def make(self):
            return MyBaseline(MyBaseline.Config())

Needs pytest (`pip install pytest`). `mmrec-bench check-plugin NAME` runs the same checks on what is
installed, without pytest.
"""

from mmrec_bench.contract.common import check_light_import
from mmrec_bench.contract.toys import (
    toy_context,
    toy_data,
    toy_items,
    toy_outcomes,
    toy_split,
    toy_training_data,
    toy_vectors,
)
from mmrec_bench.testing.components import check_config_round_trip
from mmrec_bench.testing.datasets import DatasetTests
from mmrec_bench.testing.encoders import EncoderTests
from mmrec_bench.testing.instructions import InstructionBuilderTests
from mmrec_bench.testing.metrics import MetricTests
from mmrec_bench.testing.recommenders import RecommenderTests

__all__ = [
    "DatasetTests",
    "EncoderTests",
    "InstructionBuilderTests",
    "MetricTests",
    "RecommenderTests",
    "check_config_round_trip",
    "check_light_import",
    "toy_context",
    "toy_data",
    "toy_items",
    "toy_outcomes",
    "toy_split",
    "toy_training_data",
    "toy_vectors",
]
