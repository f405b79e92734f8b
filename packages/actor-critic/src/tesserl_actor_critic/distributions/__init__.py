"""Distributions over actions, without the overhead of ``torch.distributions`` on small networks.

Shapes: ``*B`` any batch shape, ``A`` actions, ``N`` action blocks or choices, ``D`` action dimensions.
Log-probabilities and entropies are those of the whole action, ``[*B]``: sums over the blocks, choices or dimensions.
Arguments are not validated. Parameters in half precision are computed with in float32.
"""

from tesserl_actor_critic.distributions.continuous import DiagonalNormal, TanhNormal
from tesserl_actor_critic.distributions.discrete import Categorical, MultiCategorical

__all__ = ["Categorical", "DiagonalNormal", "MultiCategorical", "TanhNormal"]
