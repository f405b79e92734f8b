"""Bodies in programs that know nothing of this project: Stable-Baselines3 and a plain classifier."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn.functional import cross_entropy

from tesserl_nn_components import (
    NATURE_CNN,
    ConcatFusion,
    Conv2dHead,
    ImpalaCNN,
    PatchViT,
    UnifiedFusion,
    VectorEncoder,
    from_pretrained,
    load_pretrained,
    save_pretrained,
)

IMAGE = (3, 12, 20)
SMALL_PPO = {"n_steps": 32, "batch_size": 16, "n_epochs": 1}


class TwoSenses(gymnasium.Env):
    """Pictures of noise and a vector; the reward is for doing what the vector's first number says."""

    observation_space = gymnasium.spaces.Dict(
        {
            "pixels": gymnasium.spaces.Box(0, 255, IMAGE, np.uint8),
            "observation": gymnasium.spaces.Box(-1, 1, (5,), np.float32),
        }
    )
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        reward = float(action == (self.observation[0] > 0))
        return self._observe(), reward, False, self.steps == 10, {}

    def _observe(self):
        pixels = self.np_random.integers(256, size=IMAGE, dtype=np.uint8)
        self.observation = self.np_random.uniform(-1, 1, 5).astype(np.float32)
        return {"pixels": pixels, "observation": self.observation}


class BodyExtractor(BaseFeaturesExtractor):
    """All that Stable-Baselines3 needs: the tensors of ``in_keys``, in their order.

    It divides pixels by 255 itself; with ``normalize_images=False`` it hands over floats from 0 to 255.
    """

    def __init__(self, observation_space, body):
        super().__init__(observation_space, features_dim=body.out_features)
        self.body = copy.deepcopy(body)  # algorithms with targets build the extractor twice

    def forward(self, observations):
        return self.body(*(observations[key] for key in self.body.in_keys))


def concat_body():
    return ConcatFusion(
        vision=ImpalaCNN(IMAGE, channels=(2, 3), pool_size=2), vector=VectorEncoder(5, hidden_sizes=[7])
    )


def token_body():
    vision = PatchViT(IMAGE, patch_size=4, d_model=8, num_layers=0, num_heads=2)
    return UnifiedFusion(vision=vision, vector=VectorEncoder(5, hidden_sizes=[]), out_features=9, d_model=8)


def policy_options(body):
    return {"features_extractor_class": BodyExtractor, "features_extractor_kwargs": {"body": body}}


@pytest.mark.parametrize("make_body", [concat_body, token_body])
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (PPO, SMALL_PPO),
        (A2C, {"n_steps": 16}),
        (DQN, {"learning_starts": 16, "train_freq": 16, "buffer_size": 64}),
    ],
    ids=["PPO", "A2C", "DQN"],
)
def test_a_body_is_the_features_extractor_of_a_stable_baselines3_policy(algorithm, options, make_body):
    body = make_body()
    model = algorithm(
        "MultiInputPolicy", TwoSenses(), policy_kwargs=policy_options(body), seed=0, device="cpu", **options
    )
    model.learn(48)
    network = model.q_net if algorithm is DQN else model.policy
    trained = network.features_extractor.body
    assert type(trained) is type(body)
    before = dict(body.named_parameters())
    unmoved = [name for name, value in trained.named_parameters() if torch.equal(value, before[name])]
    assert unmoved == []
    action, _ = model.predict(TwoSenses().reset(seed=1)[0])
    assert action in (0, 1)


def test_a_body_in_a_stable_baselines3_policy_sees_pixels_scaled_once():
    model = PPO("MultiInputPolicy", TwoSenses(), policy_kwargs=policy_options(concat_body()), **SMALL_PPO, device="cpu")
    seen = []
    stages = model.policy.features_extractor.body.vision.stages
    stages.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    observation, _ = TwoSenses().reset(seed=1)
    model.predict(observation)
    torch.testing.assert_close(seen[0][0], torch.from_numpy(observation["pixels"]) / 255)


def test_what_stable_baselines3_trained_starts_another_program(tmp_path):
    model = PPO("MultiInputPolicy", TwoSenses(), policy_kwargs=policy_options(concat_body()), **SMALL_PPO, device="cpu")
    model.learn(32)
    trained = model.policy.features_extractor.body
    save_pretrained(trained, tmp_path, config={"image_shape": IMAGE, "channels": (2, 3), "pool_size": 2})
    classifier = nn.Sequential(ImpalaCNN(IMAGE, channels=(2, 3), pool_size=2), nn.Linear(12, 4))
    load_pretrained(classifier[0], tmp_path, part="vision")
    pixels = torch.randint(256, (6, *IMAGE), dtype=torch.uint8)
    assert torch.equal(classifier[0](pixels), trained.vision(pixels))


@pytest.mark.parametrize(
    ("encoder", "num_updates"),
    [
        (lambda: Conv2dHead((1, 40, 36), **NATURE_CNN, hidden_sizes=None), 60),
        (lambda: ImpalaCNN((1, 40, 36), channels=(4, 8)), 60),
        (lambda: PatchViT((1, 40, 36), patch_size=4, d_model=16, num_layers=1, num_heads=2), 150),
    ],
    ids=["cnn", "impala", "vit"],
)
def test_an_encoder_learns_to_classify_pictures_in_a_plain_program(encoder, num_updates):
    def pictures(count):
        """A square at any height of the left or the right half, in noise."""
        labels = torch.randint(2, (count,))
        images = torch.randint(100, (count, 1, 40, 36), dtype=torch.uint8)
        for image, label in zip(images, labels, strict=True):
            row, column = int(torch.randint(28, ())), int(torch.randint(7, ()) + 18 * label)
            image[0, row : row + 12, column : column + 12] = 255
        return images, labels

    body = encoder()
    classifier = nn.Sequential(body, nn.Linear(body.out_features, 2))
    optimizer = torch.optim.Adam(classifier.parameters(), lr=3e-3)
    for _ in range(num_updates):
        images, labels = pictures(32)
        optimizer.zero_grad()
        cross_entropy(classifier(images), labels).backward()
        optimizer.step()
    images, labels = pictures(200)
    classifier.eval()
    # 1.0 with every one of five to seven seeds; a blind encoder stays at 0.5.
    assert (classifier(images).argmax(-1) == labels).float().mean() > 0.8


def test_a_classifier_starts_from_a_saved_encoder(tmp_path):
    config = {"image_shape": IMAGE, "channels": (2, 3), "pool_size": 2}
    encoder = ImpalaCNN(**config)
    save_pretrained(encoder, tmp_path, config=config)
    classifier = nn.Sequential(from_pretrained(ImpalaCNN, tmp_path), nn.Linear(12, 4))
    pixels = torch.randint(256, (6, *IMAGE), dtype=torch.uint8)
    assert torch.equal(classifier[0](pixels), encoder(pixels))
