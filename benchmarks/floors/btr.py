"""One update of Beyond The Rainbow: the passes of ``IQNLoss`` on its network, in the order in which they run.

Parameters and buffers have the names of the state dict of the compared network. Transitions are tensors on
the device of the parameters: pixels ``[B, C, H, W]`` uint8, ``action`` ``[B]``, ``reward`` (of n steps) ``[B]``,
``steps`` ``[B]``, ``terminated`` ``[B]`` and ``weight`` ``[B]``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from floors.encoders import State, impala, linear, part
from floors.iqn import pairwise_loss

NOISY = [f"head.{stream}.layers.{index}" for stream in ("advantage", "value") for index in (0, 2)]


def btr_loss(
    online: State,
    target: State,
    frequencies: Tensor,
    transitions: Mapping[str, Tensor],
    *,
    discount: float,
    num_taus: int,
    munchausen: tuple[float, float, float],
    log_policy: str,
) -> tuple[Tensor, Tensor]:
    """Return the weighted mean of the loss, and the absolute temporal difference error ``[B]``.

    ``munchausen`` are weight, temperature and clip; ``log_policy`` is the network of its bonus.
    """
    t, batch_size = transitions, len(transitions["reward"])
    device, alpha, temperature, clip = t["reward"].device, *munchausen

    def value(p: State, features: Tensor) -> Tensor:
        return quantiles(p, features, torch.rand(num_taus, device=device), frequencies).mean(1)

    with torch.no_grad():
        draw_noise(target)
        next_features = body(target, t["next_pixels"])
        taus = torch.rand(batch_size, num_taus, device=device)
        next_quantiles = quantiles(target, next_features, taus, frequencies)
        values = value(target, body(target, t["pixels"])) if log_policy == "target" else None
        next_values = value(target, next_features)
        draw_noise(online)
    features = body(online, t["pixels"])
    taus = torch.rand(batch_size, num_taus, device=device)
    index = t["action"].view(-1, 1, 1).expand(-1, num_taus, 1)
    predicted = quantiles(online, features, taus, frequencies).gather(-1, index).squeeze(-1)
    with torch.no_grad():
        values = value(online, features) if values is None else values
        bonus = log_softmax(values, temperature).gather(-1, t["action"].unsqueeze(-1)).squeeze(-1).clamp(clip, 0)
        log_probs = log_softmax(next_values, temperature).unsqueeze(1)
        soft = ((log_probs / temperature).exp() * (next_quantiles - log_probs)).sum(-1)
        factor = torch.where(t["terminated"], 0.0, discount ** t["steps"]).unsqueeze(-1)
        targets = (t["reward"] + alpha * bonus).unsqueeze(-1) + factor * soft
        td_error = (targets.unsqueeze(1) - predicted.unsqueeze(2)).abs().mean((1, 2))
    return (t["weight"] * pairwise_loss(predicted, taus, targets)).mean(), td_error


def body(p: State, pixels: Tensor) -> Tensor:
    return impala(part(p, "body"), pixels, pool_size=6, spectral=True)


def quantiles(p: State, features: Tensor, taus: Tensor, frequencies: Tensor) -> Tensor:
    """Return quantile values ``[B, K, A]`` in float32."""
    embedding = linear(p, "embedding", torch.cos(taus.unsqueeze(-1) * frequencies)).relu_()
    hidden = features.unsqueeze(1) * embedding
    advantage, value = (stream(p, f"head.{name}.layers", hidden) for name in ("advantage", "value"))
    return (value + (advantage - advantage.mean(-1, keepdim=True))).float()


def stream(p: State, name: str, x: Tensor) -> Tensor:
    return noisy(p, f"{name}.2", noisy(p, f"{name}.0", x).relu_())


def noisy(p: State, name: str, x: Tensor) -> Tensor:
    p = part(p, name)
    weight = torch.addcmul(p["weight_mu"], p["weight_sigma"], torch.outer(p["epsilon_out"], p["epsilon_in"]))
    bias = torch.addcmul(p["bias_mu"], p["bias_sigma"], p["epsilon_out"].clone())
    return torch.nn.functional.linear(x, weight, bias)


def draw_noise(p: State) -> None:
    for name in NOISY:
        rows, columns = p[f"{name}.epsilon_out"], p[f"{name}.epsilon_in"]
        noise = torch.randn(len(columns) + len(rows), device=rows.device)
        noise = noise.sign() * noise.abs().sqrt()
        columns.copy_(noise[: len(columns)])
        rows.copy_(noise[len(columns) :])


def log_softmax(values: Tensor, temperature: float) -> Tensor:
    """Return ``temperature * log softmax(values / temperature)``."""
    values = values - values.amax(-1, keepdim=True)
    return values - temperature * torch.logsumexp(values / temperature, -1, keepdim=True)
