"""The loss around torchrl's actors and in its pipeline, and parity with torchrl where it has the same thing."""

import math
import warnings

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Independent, Laplace, Normal, kl_divergence, register_kl
from torchrl.collectors import Collector
from torchrl.data import (
    Bounded,
    Composite,
    LazyTensorStorage,
    SamplerWithoutReplacement,
    TensorDictReplayBuffer,
    Unbounded,
)
from torchrl.data import Categorical as CategoricalSpec
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import IndependentNormal, NormalParamExtractor, OneHotCategorical, ProbabilisticActor, TanhNormal
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.llm import GRPOLoss as LanguageGRPOLoss
from torchrl.objectives.llm import MCAdvantage
from torchrl.trainers import ReplayBufferTrainer, Trainer

from tesserl_grpo import (
    GRPOLoss,
    check_shared_start,
    flatten_steps,
    group_advantages,
    score_groups,
    step_weights,
)
from tesserl_policy import ReferencePolicy, gaussian_kl

FEATURES, DIMS = 5, 2


def actor(distribution, outputs, **options):
    """A torchrl actor of any distribution; its network is the first module."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(FEATURES, 7), nn.Tanh(), nn.Linear(7, outputs))
    keys = ["logits"]
    if issubclass(distribution, Normal | Independent | TanhNormal):
        network, keys = nn.Sequential(network, NormalParamExtractor()), ["loc", "scale"]
    module = TensorDictModule(network, in_keys=["observation"], out_keys=keys)
    return ProbabilisticActor(
        module, in_keys=keys, distribution_class=distribution, distribution_kwargs=options, return_log_prob=True
    )


ACTORS = {
    "categorical": (lambda: actor(Categorical, 3), ()),
    "one-hot": (lambda: actor(OneHotCategorical, 3), (3,)),
    "normal": (lambda: actor(IndependentNormal, 2 * DIMS), (DIMS,)),
    "tanh normal": (lambda: actor(TanhNormal, 2 * DIMS, low=-2.0, high=3.0), (DIMS,)),
    "normal of parts": (lambda: actor(Normal, 2 * DIMS), (DIMS,)),
}


def acted(policy, *shape):
    """Let an actor act, and score what it did by chance."""
    torch.manual_seed(1)
    batch = TensorDict({"observation": torch.randn(*shape, FEATURES)}, shape)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        policy(batch)
    if batch["action_log_prob"].dim() > len(shape):
        batch["action_log_prob"] = batch["action_log_prob"].sum(dim=-1)
    batch["advantage"] = torch.randn(*shape, 1)
    return batch


@pytest.mark.parametrize(("build", "action_shape"), ACTORS.values(), ids=ACTORS.keys())
@pytest.mark.parametrize("kl_kind", ["k3", "exact"])
def test_it_works_around_torchrls_actors(build, action_shape, kl_kind):
    policy = build()
    batch = acted(policy, 4, 6)
    assert batch["action"].shape == (4, 6, *action_shape)
    reference = ReferencePolicy(policy)
    loss = GRPOLoss(policy, kl_coef=0.1, kl_kind=kl_kind, entropy_coef=0.01, reference=reference)
    losses = loss(batch)
    assert float(losses["kl_approx"]) == pytest.approx(0, abs=1e-6)  # the ratio of the first pass is 1
    assert float(losses["clip_ratio/region_mean"]) == 0
    assert float(losses["kl"]) == pytest.approx(0, abs=1e-6)
    torch.testing.assert_close(losses["loss_objective"], -batch["advantage"].mean(), rtol=0, atol=1e-5)
    losses["loss_objective"].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in policy.parameters())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.3)
    moved = loss(batch)
    assert float(moved["kl"]) > 1e-4
    assert float(moved["entropy"]) != 0


def test_an_entropy_without_a_formula_is_estimated():
    policy = actor(TanhNormal, 2 * DIMS, low=-2.0, high=3.0)
    batch = acted(policy, 64, 64)
    with pytest.raises(NotImplementedError):
        policy.get_dist(batch.select("observation")).entropy()
    torch.testing.assert_close(GRPOLoss(policy)(batch)["entropy"], -batch["action_log_prob"].mean(), rtol=0, atol=0.1)


def test_the_exact_divergence_of_squashed_gaussians_is_that_of_the_gaussians():
    policy = actor(TanhNormal, 2 * DIMS, low=-2.0, high=3.0)
    batch, reference = acted(policy, 4, 6), ReferencePolicy(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.3)
    loss = GRPOLoss(policy, kl_coef=1.0, kl_kind="exact", reduction="dapo", reference=reference)(batch)
    parameters = [each.module[0].module(batch["observation"]) for each in (policy, reference.network)]
    distributions = [TanhNormal(*each, low=-2.0, high=3.0).root_dist for each in parameters]
    expected = gaussian_kl(*(value for each in distributions for value in (each.loc, each.scale)))
    torch.testing.assert_close(loss["loss_kl"], expected.mean())


class Shifted(torch.distributions.Distribution):
    """Somebody's own distribution: a Laplace around a location."""

    arg_constraints = {}  # noqa: RUF012

    def __init__(self, loc):
        self.inner = Independent(Laplace(loc, 1.0), 1)
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    def log_prob(self, value):
        return self.inner.log_prob(value)

    def entropy(self):
        return self.inner.entropy()


class ShiftedPolicy(nn.Module):
    in_keys = ("observation",)

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(FEATURES, DIMS)

    def policy_parameters(self, observation):
        return (self.network(observation),)

    def distribution(self, loc):
        return Shifted(loc)


def test_the_exact_divergence_of_other_distributions_is_that_which_is_registered_with_torch():
    batch = acted(actor(IndependentNormal, 2 * DIMS), 4, 6)
    policy = ShiftedPolicy()
    loss = GRPOLoss(policy, kl_coef=1.0, kl_kind="exact", reference=ReferencePolicy(policy))
    with pytest.raises(TypeError, match=r"got <class '.*Shifted'>; register it with torch.distributions"):
        loss(batch)
    register_kl(Shifted, Shifted)(lambda p, q: kl_divergence(p.inner.base_dist, q.inner.base_dist).sum(dim=-1))
    with torch.no_grad():
        policy.network.bias += 1.0
    expected = DIMS * math.exp(-1.0)  # of two Laplace distributions of scale 1 that are 1 apart
    torch.testing.assert_close(loss(batch)["kl"], torch.tensor(expected))


def test_on_flat_steps_it_is_torchrls_clipped_ppo_without_a_critic():
    policy = actor(Categorical, 3)
    batch = acted(policy, 64)
    batch["action_log_prob"] += 0.5 * torch.randn(64)
    ours = GRPOLoss(policy, clip_epsilon=0.1, clip_epsilon_high=0.3, entropy_coef=0.02, reduction="dapo")(batch)
    theirs = ClipPPOLoss(policy, None, clip_epsilon=(0.1, 0.3), entropy_coeff=0.02, critic_coeff=0.0)(batch)
    for key in ("loss_objective", "loss_entropy", "entropy", "kl_approx"):
        torch.testing.assert_close(ours[key], theirs[key])


class LanguageFace(nn.Module):
    """A policy with the interface that torchrl's GRPO loss for language models needs."""

    in_keys = ("observation",)

    def __init__(self, policy, mask):
        super().__init__()
        self.policy, self.mask = policy, mask

    def get_dist(self, tensordict, logits_key):
        distribution = self.policy.get_dist(tensordict.select("observation"))
        distribution.mask = self.mask
        return distribution


@pytest.mark.parametrize(("reduction", "aggregation"), [("grpo", "prompt_mean"), ("dapo", "token_mean")])
@pytest.mark.parametrize("lengths", [(6, 6, 6, 6), (6, 2, 3, 1)])
def test_it_is_torchrls_grpo_loss_for_language_models(reduction, aggregation, lengths):
    policy = actor(Categorical, 3)
    batch = acted(policy, 4, 6)
    mask = torch.arange(6) < torch.tensor(lengths).unsqueeze(-1)
    batch["action_log_prob"] += 0.5 * torch.randn(4, 6)
    batch["reference_log_prob"] = batch["action_log_prob"] + 0.5 * torch.randn(4, 6)
    batch["mask"] = mask
    theirs = LanguageGRPOLoss(
        LanguageFace(policy, mask),
        clip_epsilon=(0.1, 0.3),
        aggregation=aggregation,
        entropy_coeff=0.02,
        kl_to_ref_coeff=0.3,
    )
    theirs.set_keys(
        action="action",
        sample_log_prob="action_log_prob",
        advantage="advantage",
        ref_log_probs="reference_log_prob",
    )
    expected = theirs(batch.copy())
    options = {"clip_epsilon": 0.1, "clip_epsilon_high": 0.3, "entropy_coef": 0.02, "kl_coef": 0.3}
    ours = GRPOLoss(policy, reduction=reduction, **options)(batch)
    torch.testing.assert_close(ours["loss_objective"], expected.loss_objective.squeeze())
    torch.testing.assert_close(ours["loss_entropy"], expected.loss_entropy.squeeze())
    if min(lengths) == 6:  # theirs divides the divergence by all steps, padding too, whatever the aggregation
        torch.testing.assert_close(ours["loss_kl"], expected.loss_kl_to_ref)


def test_advantages_are_torchrls_on_groups_with_variance():
    rewards = [[1.0, 2.0], [0.5], [4.0, -1.0, 3.0]]
    transform = MCAdvantage(grpo_size=3, prompt_key="group", trajectory_return="sum")
    transform.rewards_key, found = ("next", "reward"), None
    for row in rewards:
        done = torch.zeros(len(row), 1, dtype=torch.bool)
        done[-1] = True
        step = {"reward": torch.tensor(row).unsqueeze(-1), "done": done, "terminated": done}
        found = transform.inv(TensorDict({"group": torch.zeros(len(row), 1), "next": step}, [len(row)]))
    returns = torch.tensor([[sum(row) for row in rewards]])
    expected = group_advantages(returns, scale="group", eps=1e-12)[0].repeat_interleave(torch.tensor([2, 1, 3]))
    torch.testing.assert_close(found["advantage"].flatten(), expected)


class Walk(EnvBase):
    """Move on a line from a start that all of a group share; reward 1 for each step to the right."""

    def __init__(self, num_groups=3, size=4, continuous=False):
        self.count = num_groups * size
        super().__init__(device="cpu", batch_size=[self.count])
        shape, self.continuous = (self.count,), continuous
        self.group = torch.arange(num_groups).repeat_interleave(size).unsqueeze(-1)
        self.observation_spec = Composite(
            observation=Unbounded((self.count, FEATURES)),
            group=Unbounded((self.count, 1), dtype=torch.int64),
            shape=shape,
        )
        self.action_spec = Bounded(-1.0, 1.0, (self.count, 1)) if continuous else CategoricalSpec(2, shape=shape)
        self.reward_spec = Unbounded((self.count, 1))
        flag = CategoricalSpec(2, shape=(self.count, 1), dtype=torch.bool)
        self.full_done_spec = Composite(done=flag, terminated=flag, truncated=flag, shape=shape)
        self.position = torch.zeros(self.count, 1)
        self.age = torch.zeros(self.count, 1)

    def _observe(self):
        return {"observation": self.position.expand(-1, FEATURES) / 10, "group": self.group}

    def _reset(self, tensordict=None):
        where = torch.ones(self.count, 1, dtype=torch.bool)
        if tensordict is not None and "_reset" in tensordict:
            where = tensordict["_reset"].view(self.count, 1)
        self.position = torch.where(where, self.group.float(), self.position)
        self.age = torch.where(where, 0.0, self.age)
        flags = {name: torch.zeros(self.count, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        return TensorDict({**self._observe(), **flags}, [self.count])

    def _step(self, tensordict):
        action = tensordict["action"].view(self.count, 1)
        move = action if self.continuous else 2.0 * action - 1
        self.position, self.age = self.position + move, self.age + 1
        terminated = self.age >= 5
        flags = {"done": terminated, "terminated": terminated, "truncated": torch.zeros_like(terminated)}
        return TensorDict({**self._observe(), "reward": move, **flags}, [self.count])

    def _set_seed(self, seed):
        pass


def collector(policy, num_batches, *, continuous=False):
    env = Walk(continuous=continuous)
    frames = env.count * 5
    return Collector(
        env,
        policy,
        frames_per_batch=frames,
        total_frames=num_batches * frames,
        trajs_per_batch=env.count,
        traj_format="padded",
        auto_register_policy_transforms=False,
    )


def scored_steps(batch):
    """Prepare a batch as a loop does between collector and minibatches."""
    check_shared_start(batch["observation"][:, 0], batch["group"][:, 0, 0])
    scored = score_groups(batch, credit="to_go", scale="batch").batch
    scored["step_weight"] = step_weights(scored["mask"])
    return flatten_steps(scored, keys=["observation", "action", "action_log_prob", "advantage", "step_weight"])


@pytest.mark.parametrize("continuous", [False, True])
def test_it_learns_from_torchrls_collector_and_replay_buffer(continuous):
    policy = actor(TanhNormal, 2, low=-1.0, high=1.0) if continuous else actor(Categorical, 2)
    loss = GRPOLoss(policy, entropy_coef=0.001)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-2)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(60), sampler=SamplerWithoutReplacement(), batch_size=20)
    rewards = []
    for batch in collector(policy, 25, continuous=continuous):
        rewards.append(float(batch["next", "reward"].mean()))
        buffer.empty()
        buffer.extend(scored_steps(batch))
        for _ in range(3 * 3):
            losses = loss(buffer.sample())
            sum(value for key, value in losses.items() if key.startswith("loss")).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert rewards[0] < 0.5
    assert sum(rewards[-3:]) / 3 > 0.8


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of its own defaults, torchrl 0.14.1
def test_torchrls_trainer_runs_the_loss_unchanged():
    policy = actor(Categorical, 2)
    loss = GRPOLoss(policy, entropy_coef=0.001)
    before = [parameter.clone() for parameter in policy.parameters()]
    trainer = Trainer(
        collector=collector(policy, 4),
        total_frames=4 * 60,
        frame_skip=1,
        optim_steps_per_batch=3,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=1e-2),
        progress_bar=False,
    )
    trainer.register_op("batch_process", scored_steps)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(60), sampler=SamplerWithoutReplacement(), batch_size=20)
    ReplayBufferTrainer(buffer, batch_size=20, flatten_tensordicts=False).register(trainer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        trainer.train()
    assert len(buffer) == 60
    assert all(not torch.equal(*pair) for pair in zip(before, policy.parameters(), strict=True))
