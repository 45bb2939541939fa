"""DAN: the maximum mean discrepancy of the features under several Gaussian kernels made small.

Long et al., "Learning Transferable Features with Deep Adaptation Networks", ICML 2015, equations 1 to 4, with
evenly weighted kernels whose widths span 2^-3 to 2 times the mean squared distance.
"""

from torch import nn

from biwaa.functional import mean_discrepancy
from biwaa.methods.method import Batch, Loss, Method, classification


class Dan(Method):
    """Source classification and the discrepancy of the bottleneck features."""

    def losses(self, classifier: nn.Module, batch: Batch, step: int) -> dict[str, Loss]:
        """Classification and discrepancy."""
        distance = mean_discrepancy(batch.source.features, batch.target.features)
        return {"classification": classification(batch), "discrepancy": Loss(distance)}
