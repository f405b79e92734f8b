"""torchrl's contract on the loss of PQN: keys, reductions, reset parameters."""

import pytest

from tesserl_policy.testing import check_loss_contract, check_reductions
from tesserl_pqn import PQNLoss

from .test_loss import batch, network


@pytest.mark.parametrize("num_quantiles", [None, 9])
def test_the_contract_of_torchrls_losses_holds(num_quantiles):
    def make_loss(**options):
        return PQNLoss(network(num_quantiles, hidden_sizes=(13,)), **options)

    check_loss_contract(make_loss, batch(num_quantiles))
    check_reductions(make_loss, batch(num_quantiles), num_valid=11)
