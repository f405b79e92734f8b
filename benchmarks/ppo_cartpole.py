"""PPO on CartPole end to end: steps per second against SB3, torchrl and a bare loop; time per part; seconds to 475."""

import sys
from contextlib import ExitStack
from pathlib import Path

import torch
import yaml
from tensordict import TensorDict
from torch import Tensor, nn

from common.breakdown import breakdown, print_breakdown
from common.harness import HEADER, Bar, Comparison, Worker, arguments, compare, finish
from common.target import Contestant, time_to_target
from floors.ppo_loop import Settings, advantage_estimates, ppo_loss
from tesserl_actor_critic import ActorCritic, PPOLoss, generalized_advantage_estimate
from tesserl_configs import load_config
from tesserl_nn_components import MLP

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "benchmarks/settings/ppo_cartpole.yaml"
SB3 = yaml.safe_load((ROOT / "benchmarks/settings/sb3_ppo.yaml").read_text())
TARGET, EPISODES, INTERVAL = 475.0, 100, 5_000


def plain_settings() -> dict[str, object]:
    """Return the ``ppo:`` block under the names of the floor, which torchrl's worker also uses."""
    config = load_config(CONFIG)
    names = Settings.__dataclass_fields__.keys() - {"learning_rate"}
    return {name: getattr(config.ppo, name) for name in names} | {"learning_rate": config.optimizer.learning_rate}


class Body(MLP):
    in_keys = ("observation",)


def check_same() -> None:
    """Check that the floor's loss, gradients and advantages equal ours to 1e-6, relative to the largest of each."""
    settings = Settings(**plain_settings())
    torch.manual_seed(0)
    for own, its in [*losses_and_gradients(settings), advantages(settings)]:
        difference = float((own - its).abs().max() / its.abs().max())
        if not difference <= 1e-6:
            raise SystemExit(f"the floor is no floor: loss, gradients or advantages differ by {difference:.1e}")


def losses_and_gradients(settings: Settings) -> list[tuple[Tensor, Tensor]]:
    """Return pairs of our results and the floor's on a minibatch."""
    body, critic_body = (Body(4, [64, 64], activation=nn.Tanh) for _ in range(2))
    network = ActorCritic(body, action_space=2, critic_body=critic_body)
    coefficients = {"value_coef": settings.value_coef, "entropy_coef": settings.entropy_coef}
    loss = PPOLoss(network, clip_epsilon=settings.clip_epsilon, **coefficients)
    observation, action, old_log_probs = torch.randn(256, 4), torch.randint(2, (256,)), -torch.rand(256)
    advantage, target = torch.randn(256), torch.randn(256)
    batch = {
        "observation": observation,
        "action": action,
        "action_log_prob": old_log_probs,
        "advantage": advantage.unsqueeze(-1),
        "value_target": target.unsqueeze(-1),
    }
    ours = sum(value for name, value in loss(TensorDict(batch, [256])).items() if name.startswith("loss"))
    ours.backward()
    modules = (network.body, network.policy, network.critic_body, network.value)
    mine = [parameter for module in modules for parameter in module.parameters()]
    other = [nn.Parameter(parameter.detach().clone()) for parameter in mine]
    plain = ppo_loss(other, observation, action, old_log_probs, advantage, target, settings)
    plain.backward()
    gradients = [(own.grad, its.grad) for own, its in zip(mine, other, strict=True)]
    return [(ours.detach(), plain.detach()), *gradients]


def advantages(settings: Settings) -> tuple[Tensor, Tensor]:
    """Return our and the floor's advantages of a rollout with terminated and truncated episodes."""
    reward, value, next_value = torch.randn(3, 128, 8)
    terminated, truncated = torch.rand(2, 128, 8) < 0.05
    ours, _ = generalized_advantage_estimate(
        *(tensor.T for tensor in (reward, value, next_value, terminated, truncated)),
        discount=settings.discount,
        gae_lambda=settings.gae_lambda,
    )
    steps = (tensor.numpy() for tensor in (reward, value, next_value, terminated, terminated | truncated))
    return ours.T, torch.from_numpy(advantage_estimates(*steps, settings))


def speed(rounds: int, steps: int, python: str) -> tuple[list[Comparison], dict[str, dict[str, float]]]:
    """Compare environment steps per second at the same settings; also return each side's microseconds by part."""
    check_same()
    plain = {"task": "CartPole-v1", "num_envs": 8, "seed": 1, "ppo": plain_settings()}
    with ExitStack() as stack:

        def start(script: str, settings: dict[str, object], interpreter: str = sys.executable) -> Worker:
            worker = stack.enter_context(Worker(script, settings, python=interpreter))
            worker.measure(1_024)
            return worker

        ours = start("our_loop.py", {"config": str(CONFIG), "overrides": ["seed=1"]})
        vectorised = ["seed=1", "environment.vectorization=vector_entry_point"]
        own_environments = start("our_loop.py", {"config": str(CONFIG), "overrides": vectorised})
        floor = start("floor_ppo.py", plain)
        compiled = start("floor_ppo.py", {**plain, "compiled": True})
        sb3 = start("sb3_ppo.py", {**SB3["cartpole_speed"], "seed": 1}, python)
        serial = start("torchrl_ppo.py", {**plain, "environments": "serial"})
        wrapped = start("torchrl_ppo.py", {**plain, "environments": "wrapped"})
        rows = [
            ("PPO on CartPole, by SB3", sb3, ours, Bar("speed", 2.0), steps),
            ("the bare loop, by SB3", sb3, floor, Bar("speed"), steps),
            ("PPO on CartPole, by the bare loop", floor, ours, Bar("speed", 0.85), steps),
            ("the same, by the bare loop, compiled", compiled, ours, Bar("speed"), steps),
            ("the same, vectorised CartPole, by SB3", sb3, own_environments, Bar("speed"), steps),
            ("PPO on CartPole, by torchrl, SerialEnv", serial, ours, Bar("speed", 5.0), steps // 4),
            ("the same, by torchrl, GymWrapper", wrapped, ours, Bar("speed"), steps // 4),
        ]
        comparisons = [
            compare(
                name,
                lambda: peer.measure(number),  # noqa: B023 (called in this pass of the loop)
                lambda: side.measure(number),  # noqa: B023
                bar,
                rounds=rounds,
            )
            for name, peer, side, bar, number in rows
        ]
        return comparisons, {"ours": breakdown(ours, steps), "bare loop": breakdown(floor, steps)}


def target(seeds: int, python: str) -> tuple[Comparison, list[dict[str, object]]]:
    """Compare seconds of training until a greedy evaluation reaches 475: the zoo's settings and our file."""
    evaluation = {"interval": INTERVAL, "episodes": EPISODES, "seed": 10_000, "max_episode_steps": 500}
    zoo = {**SB3["cartpole_target"], "evaluation": evaluation, "target": TARGET}
    overrides = [f"evaluation.interval={INTERVAL}", f"evaluation.episodes={EPISODES}"]
    config = ROOT / "configs/ppo/cartpole.yaml"
    ours = {"config": str(config), "target": TARGET}
    return time_to_target(
        "seconds to a return of 475, by SB3",
        Contestant("SB3", "sb3_ppo.py", lambda seed: {"seed": seed, **zoo}, 100_000, python),
        Contestant(
            "ours",
            "our_loop.py",
            lambda seed: {"overrides": [f"seed={seed}", *overrides], **ours},
            load_config(config).total_steps,
        ),
        seeds,
    )


def main() -> None:
    parser = arguments(__doc__, seconds=0.0)
    parser.add_argument("--steps", type=int, default=20_480, help="environment steps of one measurement (20480)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the time to the target (5)")
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has SB3 installed")
    parser.add_argument("--part", choices=["speed", "target", "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="one round, one seed: does everything run?")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps, options.seeds = 1, 4_096, 1
    print(HEADER)
    comparisons, parts, runs = [], {}, []
    if options.part != "target":
        comparisons, parts = speed(options.rounds, options.steps, options.peers_python)
        print_breakdown(parts)
    if options.part != "speed":
        comparison, runs = target(options.seeds, options.peers_python)
        comparisons.append(comparison)
    finish("ppo_cartpole", comparisons, microseconds=parts, runs=runs)


if __name__ == "__main__":
    main()
