"""Random ``nn:`` blocks: each one is refused with the key at fault, or builds, runs and learns."""

import random
import types
from collections import Counter
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pydantic import BaseModel, ValidationError

from tesserl_configs import ConfigError, RunConfig
from tesserl_configs.messages import problems_of
from tesserl_configs.nn import LearningRateFactors, NNConfig
from tesserl_configs.vision import CNNVision
from tesserl_environments import ObservationLayout
from tesserl_trainer.networks.building import build_policy_network, build_quantile_network
from tesserl_trainer.networks.named_parts import learning_rate_groups

FEATURES, BATCH = 5, 3
RUN = {"total_steps": 10_000, "environment": {"id": "none"}}
ALGORITHMS = {"iqn": {"num_cosines": 3}, "ppo": {}}
ACTIONS = [
    spaces.Discrete(3),
    spaces.MultiDiscrete([4, 4]),
    spaces.MultiDiscrete([2, 5, 3]),
    spaces.Box(-1, 1, (2,)),
]


RARE = {"freeze", "learning_rate_factors", "preset", "vision_features", "pooling", "pool_size", "layer_norm"}
OFTEN = {NNConfig: 0.9, LearningRateFactors: 0.2}  # a key is drawn this often; 0.3 elsewhere, 0.03 where it is rare
FLOATS = {"dropout": [0.0, 0.1, 0.5], "feedforward_ratio": [1.0, 1.5, 2.0]}


class Blocks:
    """Draws blocks from the classes of the schema: mostly legal values, every key now and then, rarely nonsense."""

    def __init__(self, seed: int, hf_models: dict[str, str]) -> None:
        self.random = random.Random(seed)
        self.models = [*hf_models.values(), "/nowhere"]
        self.columns = self.random.randint(1, 2)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def block(self, model: type[BaseModel]) -> dict[str, Any]:
        drawn = {}
        for name, field in model.model_fields.items():
            if name == "kind":
                drawn[name] = get_args(field.annotation)[0]
            elif name in ("body", "kwargs"):  # of a module that nobody has written
                continue
            elif field.is_required() or self.chance(0.03 if name in RARE else OFTEN.get(model, 0.3)):
                drawn[name] = self.nonsense() if self.chance(0.003) else self.value(name, field.annotation)
        if drawn.get("kind") == "cnn" and model is CNNVision and self.chance(0.9):
            columns = ("channels", "kernel_sizes", "strides")
            drawn |= {name: [self.random.randint(1, 3) for _ in range(self.columns)] for name in columns}
        if self.chance(0.003):
            drawn["mispelt"] = 1
        return drawn

    def network(self, algorithm: str) -> dict[str, Any]:
        """An ``nn:`` block, most times without the keys that belong to other algorithms."""
        block = self.block(NNConfig)
        for part, kind in (("vision", "cnn"), ("vector", "mlp")):
            if self.chance(0.1):
                block[part] = {"kind": kind, **({"preset": "compact"} if kind == "cnn" else {})}
        heads = block.get("heads")
        if isinstance(heads, dict) and self.chance(0.95):
            strange = ["policy"] if algorithm == "iqn" else ["dueling", "noisy", "advantage"]
            strange += [] if heads.get("dueling") or algorithm != "iqn" else ["value"]
            block["heads"] = {name: value for name, value in heads.items() if name not in strange}
        return block

    def nonsense(self) -> Any:
        return self.random.choice([-1, 0, 1.5, "x", None, [], {}, {"kind": "cnn"}, [0], True])

    def value(self, name: str, annotation: Any) -> Any:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is Annotated:
            return self.value(name, arguments[0])
        if origin is Literal:
            return self.random.choice(arguments)
        if origin in (Union, types.UnionType):
            return self.value(name, self.random.choice(arguments))
        if origin is tuple:
            return self.values(name, arguments)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return self.block(annotation)
        if annotation is str:
            return self.random.choice(self.models) if name == "model" else "main"
        plain = {
            bool: [True, False],
            int: [1, 2, 2, 4, 4, 4, 8, 3],
            float: FLOATS.get(name, [0.5, 1.0, 0.1, 2.0]),
            type(None): [None],
        }
        return self.random.choice(plain[annotation])

    def values(self, name: str, arguments: tuple[Any, ...]) -> list[Any]:
        if arguments[-1] is not ...:
            return [self.value(name, argument) for argument in arguments]
        length = self.random.randint(0, 3)
        if name in ("mean", "std") and self.chance(0.8):
            length = FEATURES
        if name == "paddings" and self.chance(0.9):
            length = self.columns
        return [self.value(name, arguments[0]) for _ in range(length)]


def loaded(block, algorithm):
    """The validated configuration of a run."""
    data = {**RUN, "algorithm": algorithm, algorithm: ALGORITHMS[algorithm], "nn": block}
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise ConfigError(*(str(problem) for problem in problems_of(error, data))) from error


def network_of(blocks):
    """A random network, its inputs and its learning-rate groups."""
    choose = blocks.random.choice
    algorithm = choose(list(ALGORITHMS))
    block = blocks.network(algorithm)
    inputs = {
        "pixels": spaces.Box(0, 255, choose([(8, 8, 3), (12, 8, 1), (4, 4, 4), (5, 7, 2)]), np.uint8),
        "observation": spaces.Box(-1, 1, (FEATURES,)),
    }
    for part, key in (("vision", "pixels"), ("vector", "observation")):
        kind = block.get(part, {}).get("kind", "none") if isinstance(block.get(part, {}), dict) else "none"
        if (kind == "none") != blocks.chance(0.02):
            del inputs[key]
    config = loaded(block, algorithm)
    layout = ObservationLayout(spaces.Dict(inputs) if inputs else spaces.Box(-1, 1, (2,)))
    tensors = [torch.rand(BATCH, *layout.shapes[key]) for key in layout.keys]
    if algorithm == "iqn":
        network = build_quantile_network(config, layout, 3, choose([None, 2]))
        tensors.append(torch.rand(BATCH, 4))
    else:
        shared = config.nn.memory.kind != "none" or choose([True, False])
        network = build_policy_network(config.nn, layout, choose(ACTIONS), shared_body=shared)
        if network.state_keys:
            state = network.body.initial_state(BATCH)
            tensors += [torch.arange(BATCH).unsqueeze(1) == 1, *(torch.rand_like(part) for part in state)]
    return network, tensors, learning_rate_groups(network, config.nn.learning_rate_factors, 0.01)


def check_block(seed, hf_models):
    """Return whether the block of a seed builds; assert that it runs and learns, or is refused by a key of ``nn``."""
    messages = ()
    try:
        network, tensors, groups = network_of(Blocks(seed, hf_models))
    except ConfigError as error:
        messages = error.messages
    assert all(message.startswith("nn") for message in messages), messages
    if messages:
        return False
    outputs = network(*tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(output.isfinite().all() for output in outputs)
    sum(output.square().sum() for output in outputs).backward()
    learning = {id(parameter) for group in groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (id(parameter) in learning), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    torch.optim.SGD(groups).step()
    return True


def check_blocks(seeds, hf_models):
    count = Counter()
    for seed in seeds:
        torch.manual_seed(seed)
        try:
            count[check_block(seed, hf_models)] += 1
        except Exception as error:
            raise AssertionError(f"the block of seed {seed} neither runs nor is refused by its key") from error
    return count


@pytest.mark.parametrize("first", range(0, 2_000, 250))
def test_a_random_block_runs_or_is_refused_by_its_key(first, hf_models):
    count = check_blocks(range(first, first + 250), hf_models)
    assert min(count[True], count[False]) > 50  # neither case is rare


@pytest.mark.soak
@pytest.mark.parametrize("first", range(2_000, 22_000, 1_000))
def test_twenty_thousand_random_blocks(first, hf_models):
    assert sum(check_blocks(range(first, first + 1_000), hf_models).values()) == 1_000
