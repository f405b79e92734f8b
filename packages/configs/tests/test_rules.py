"""Each rule: what breaks it, the message, and the nearest configuration that does not break it."""

import pytest

CNN = "nn.vision={kind: cnn}"
SCREEN = "nn={vision: {kind: cnn}}"
ATARI, PONG = "environment.vectorization=atari", "environment.id=ALE/Pong-v5"
ENVPOOL = "environment.vectorization=envpool"

BROKEN = {
    "workers with unequal numbers of environments": (
        ["environment.num_envs=8", "collectors={kind: process, workers: 3}"],
        "--set collectors: collectors.workers: expected a divisor of environment.num_envs = 8, got 3; workers have "
        "equal numbers of environments",
    ),
    "rounds of actors for a replay": (
        ["collectors.kind=ray"],
        "--set collectors.kind: collectors.mode: sync is for algorithms without a replay, got algorithm iqn; choose "
        "async",
    ),
    "actors with unequal numbers of environments": (
        ["environment.num_envs=8", "collectors={kind: ray, mode: async, workers: 3}"],
        "--set collectors: collectors.workers: expected a divisor of environment.num_envs = 8, got 3; workers have "
        "equal numbers of environments",
    ),
    "stacked_frames_are_seen": (
        ["environment.wrappers=[{kind: time_limit, max_episode_steps: 9}, {kind: frame_stack, num_frames: 4}]"],
        "--set environment.wrappers: environment.wrappers.1: frame_stack stacks images and nn.vision has kind none; "
        "choose an encoder there or remove the wrapper",
    ),
    "colours without an encoder": (
        ["environment.wrappers=[{kind: resize, height: 5, width: 7}]"],
        "--set environment.wrappers: environment.wrappers.0: resize changes images and nn.vision has kind none; "
        "choose an encoder there or remove the wrapper",
    ),
    "maximum of no images": (
        ["environment.wrappers=[{kind: frame_skip, num_frames: 4, max_last_two: true}]"],
        "--set environment.wrappers: environment.wrappers.0.max_last_two: is for images and nn.vision has kind none; "
        "choose an encoder there or set it to false",
    ),
    "telemetry_is_seen": (
        [CNN, "nn.vector={kind: none}", "environment.wrappers=[{kind: telemetry}]"],
        "--set environment.wrappers: environment.wrappers.0: telemetry adds a vector and nn.vector has kind none; "
        "choose mlp there or remove the wrapper",
    ),
    "a clock nobody reads": (
        [CNN, "nn.vector={kind: none}", "iqn.fixed_horizon={steps: 9}", "environment.wrappers=[{kind: clock}]"],
        "--set environment.wrappers: environment.wrappers.0: clock adds a vector and nn.vector has kind none; "
        "choose mlp there or remove the wrapper",
    ),
    "a clock nobody sets": (
        ["environment.wrappers=[{kind: clock}]"],
        "--set environment.wrappers: environment.wrappers.0: clock: is for iqn.fixed_horizon, which is not set; "
        "remove the wrapper",
    ),
    "two clocks": (
        ["environment.wrappers=[{kind: clock}, {kind: clock}]", "iqn.fixed_horizon={steps: 9}"],
        "--set environment.wrappers: environment.wrappers.1: clock: there is one already; remove the wrapper",
    ),
    "horizons_have_a_clock": (
        ["iqn.fixed_horizon={steps: 9}"],
        "--set iqn.fixed_horizon: iqn.fixed_horizon: needs a clock in the observation; add {kind: clock} to "
        "environment.wrappers",
    ),
    "statistics of a clock": (
        [
            "environment.wrappers=[{kind: clock}]",
            "iqn.fixed_horizon={steps: 9}",
            "nn.vector.normalization.kind=running",
        ],
        "--set nn.vector.normalization.kind: nn.vector.normalization.kind: running statistics are those of acting, "
        "where the clock of iqn.fixed_horizon is 0; choose fixed or none",
    ),
    "films between evaluations": (
        ["evaluation={interval: 50, video: {interval: 120}}"],
        "--set evaluation: evaluation.video.interval: expected a multiple of evaluation.interval = 50, got 120; "
        "set 100 or 150",
    ),
    "films more often than evaluations": (
        ["evaluation={interval: 50, video: {interval: 20}}"],
        "--set evaluation: evaluation.video.interval: expected a multiple of evaluation.interval = 50, got 20; set 50",
    ),
    "films of what draws nothing": (
        [ENVPOOL, "evaluation={interval: 50, video: {interval: 50}}"],
        "--set evaluation: evaluation.video: vectorization envpool draws no pictures; choose sync, or remove it",
    ),
    "images_can_be_cropped": (
        ["iqn.random_crop=2"],
        "--set iqn.random_crop: iqn.random_crop: is for images and nn.vision has kind none; remove it",
    ),
    "graphs_are_of_cuda": (
        ["iqn.cuda_graph=true"],
        "--set iqn.cuda_graph: iqn.cuda_graph: needs device cuda, got cpu; set it to false",
    ),
    "graphs are not compiled": (
        ["iqn.cuda_graph=true", "iqn.compile=true", "device=cuda"],
        "--set iqn.cuda_graph: iqn.cuda_graph: records what iqn.compile would compile; choose one of the two",
    ),
    "graphs have no sgd": (
        ["iqn.cuda_graph=true", "optimizer={kind: sgd}", "device=cuda"],
        "--set iqn.cuda_graph: iqn.cuda_graph: holds the optimiser too, which sgd does not allow; choose adam",
    ),
    "fixed_fractions_are_not_drawn": (
        ["iqn.num_fixed_quantiles=5", "iqn.num_cosines=9"],
        "--set iqn.num_cosines: iqn.num_cosines: iqn.num_fixed_quantiles leaves no fraction to draw or to embed; "
        "remove it",
    ),
    "fixed fractions have no activation": (
        ["iqn.num_fixed_quantiles=5", "iqn.cosine_activation=leaky_relu"],
        "--set iqn.cosine_activation: iqn.cosine_activation: iqn.num_fixed_quantiles leaves no fraction to draw or to "
        "embed; remove it",
    ),
    "fixed fractions have no embedding": (
        ["iqn.num_fixed_quantiles=5", "nn.freeze=[embedding]"],
        "--set iqn.num_fixed_quantiles: iqn.num_fixed_quantiles: this network has no part embedding, which nn names; "
        "remove it there",
    ),
    "colours_are_there": (
        [CNN, "environment.wrappers=[{kind: frame_stack, num_frames: 4}, {kind: grayscale}]"],
        "--set environment.wrappers: environment.wrappers.1: grayscale needs a colour image, after frame_stack there "
        "is none; write it before frame_stack, the innermost wrapper first",
    ),
    "grey twice": (
        [CNN, "environment.wrappers=[{kind: grayscale}, {kind: crop, top: 3}, {kind: grayscale}]"],
        "--set environment.wrappers: environment.wrappers.2: grayscale needs a colour image, after grayscale there is "
        "none; remove it",
    ),
    "wrappers of atari": (
        [ATARI, PONG, SCREEN, "environment.wrappers=[{kind: reward_clip}]"],
        "--set environment.wrappers: environment.wrappers: wrap single environments, vectorization atari has none; "
        "use environment.atari or choose vectorization sync",
    ),
    "a game of atari": (
        [ATARI, SCREEN],
        'x.yaml:2: environment.id: vectorization atari plays games of ALE, such as ALE/Pong-v5, got "CartPole-v1"; '
        "choose vectorization sync",
    ),
    "the screen of atari": (
        [ATARI, PONG],
        "x.yaml:3: nn: vectorization atari shows a screen and nothing else; choose an encoder for nn.vision and none "
        "for nn.vector",
    ),
    "arguments of atari": (
        [ATARI, PONG, SCREEN, "environment.kwargs.frameskip=2"],
        "--set environment.kwargs.frameskip: environment.kwargs: vectorization atari has its options in "
        "environment.atari; remove them",
    ),
    "a screen of envpool": (
        [ENVPOOL, PONG],
        "x.yaml:3: nn: vectorization envpool shows a screen and nothing else; choose an encoder for nn.vision and none "
        "for nn.vector",
    ),
    "envpool_has_the_options": (
        [ENVPOOL, PONG, SCREEN, "environment.atari={life_loss_info: true}"],
        "--set environment.atari: environment.atari.life_loss_info: vectorization envpool has no such option, expected "
        "false, got true; choose vectorization atari",
    ),
    "envpool without its maximum": (
        [ENVPOOL, PONG, SCREEN, "environment.atari={maxpool: false}"],
        "--set environment.atari: environment.atari.maxpool: vectorization envpool has no such option, expected true, "
        "got false; choose vectorization atari",
    ),
    "no idle frames in envpool": (
        [ENVPOOL, PONG, SCREEN, "environment.atari={noop_max: 0}"],
        "--set environment.atari: environment.atari.noop_max: vectorization envpool needs a value >= 1, got 0; choose "
        "vectorization atari",
    ),
    "what envpool is told": (
        [ENVPOOL, "environment.kwargs={seed: 3, num_threads: 2}"],
        "--set environment.kwargs: environment.kwargs.seed: is set by the trainer; remove it",
    ),
    "wrappers around envpool": (
        [ENVPOOL, "environment.wrappers=[{kind: reward_scale, scale: 0.1}]"],
        "--set environment.wrappers: environment.wrappers: wrap single environments, vectorization envpool has none; "
        "remove them or choose vectorization sync",
    ),
    "bounds_enclose_a_range": (
        ["environment.wrappers=[{kind: reward_clip, low: 1, high: 1}]"],
        "--set environment.wrappers: environment.wrappers.0.low: expected less than high = 1, got 1",
    ),
    "wrappers_wrap_single_environments": (
        ["environment.vectorization=vector_entry_point", "environment.wrappers=[{kind: reward_scale, scale: 0.1}]"],
        "--set environment.wrappers: environment.wrappers: wrap single environments, vectorization vector_entry_point "
        "has none; remove them or choose vectorization sync",
    ),
    "antithetic num_taus": (
        ["iqn.tau_sampling=antithetic", "iqn.num_taus=7"],
        "--set iqn.num_taus: iqn.num_taus: expected an even number, as tau_sampling is antithetic, got 7; "
        "or use stratified",
    ),
    "antithetic num_target_taus": (
        ["iqn.tau_sampling=antithetic", "iqn.num_target_taus=9"],
        "--set iqn.num_target_taus: iqn.num_target_taus: expected an even number, as tau_sampling is antithetic, "
        "got 9; or use stratified",
    ),
    "antithetic num_policy_taus": (
        ["iqn.tau_sampling=antithetic", "iqn.num_policy_taus=5"],
        "--set iqn.num_policy_taus: iqn.num_policy_taus: expected an even number, as tau_sampling is antithetic, "
        "got 5; or use stratified",
    ),
    "one exponent of weights": (
        ["replay={kind: prioritized, capacity: 500, warmup_steps: 100, weight_exponent: alpha, beta: 0.7}"],
        "--set replay: replay.beta: is not used where replay.weight_exponent is alpha; remove one of the two",
    ),
    "fixed fractions are not drawn": (
        ["iqn.num_fixed_quantiles=5", "iqn.num_target_taus=7"],
        "--set iqn.num_target_taus: iqn.num_target_taus: iqn.num_fixed_quantiles leaves no fraction to draw or to "
        "embed; remove it",
    ),
    "noisy_exploration_has_noise": (
        ["iqn.exploration={kind: noisy}"],
        "--set iqn.exploration: iqn.exploration.kind: noisy explores by the noise of the heads; "
        "set nn.heads.noisy: true or use epsilon",
    ),
    "updates paced twice": (
        ["replay.ratio=8", "iqn.update_interval=4"],
        "--set replay.ratio: replay.ratio: expected null beside iqn.update_interval = 4, got 8; write one of the two",
    ),
    "updates paced by nothing": (
        ["iqn.update_interval=null"],
        "--set iqn.update_interval: iqn.update_interval: expected a number of steps without replay.ratio, got null; "
        "write one",
    ),
    "shared_frames_are_there": (
        ["replay.share_frames=true"],
        "--set replay.share_frames: replay.share_frames: is for images and nn.vision has kind none; choose an encoder "
        "there or write null",
    ),
    "cut_windows_have_several_steps": (
        ["replay.cut_at_exploration=true"],
        "--set replay.cut_at_exploration: replay.cut_at_exploration: shortens windows, and iqn.num_steps = 1 leaves "
        "nothing to cut; raise it",
    ),
    "warm-up and total steps": (
        ["total_steps=99"],
        "x.yaml:6: replay.warmup_steps: expected at most total_steps = 99, got 100",
    ),
    "warm-up and capacity": (
        ["replay.capacity=99"],
        "x.yaml:6: replay.warmup_steps: expected at most replay.capacity = 99, got 100",
    ),
    "warm-up and batch size": (
        ["iqn.batch_size=101"],
        "x.yaml:6: replay.warmup_steps: expected at least 101, got 100: the first update needs iqn.batch_size = 101 "
        "finished transitions",
    ),
    "warm-up and open steps": (  # 32 + (10 - 1) * 8 = 104
        ["iqn.num_steps=10"],
        "x.yaml:6: replay.warmup_steps: expected at least 104, got 100: the first update needs iqn.batch_size = 32 "
        "finished transitions, 72 steps are still open then (num_steps - 1 in each environment)",
    ),
}


@pytest.mark.parametrize(("overrides", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_says_where_and_what(errors_of, overrides, message):
    assert errors_of(*overrides) == [message]


def test_a_batch_larger_than_the_buffer_is_named_beside_the_warm_up(errors_of):
    messages = errors_of("iqn.batch_size=150", "replay.capacity=149")
    assert "--set iqn.batch_size: iqn.batch_size: expected at most replay.capacity = 149, got 150" in messages
    assert len(messages) == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ["environment.wrappers=[{kind: frame_stack, num_frames: 4}]", CNN],
        ["environment.wrappers=[{kind: reward_clip, low: 0, high: 1}]"],
        ["environment.vectorization=vector_entry_point"],
        [ATARI, PONG, SCREEN, "environment.atari.frameskip=2", "environment.atari.repeat_action_probability=0.25"],
        [ENVPOOL, PONG, SCREEN, "environment.atari={frameskip: 2, noop_max: 1, episodic_life: true}"],
        [ENVPOOL, "environment.kwargs.num_threads=2"],
        [CNN, "environment.wrappers=[{kind: telemetry}, {kind: grayscale}, {kind: frame_stack, num_frames: 2}]"],
        [CNN, "environment.wrappers=[{kind: frame_skip, num_frames: 4, max_last_two: true}, {kind: crop, left: 1}]"],
        ["iqn.tau_sampling=antithetic", "iqn.num_taus=6"],
        ["iqn.tau_sampling=stratified", "iqn.num_taus=7"],
        ["iqn.exploration={kind: noisy}", "nn.heads.noisy=true"],
        ["replay.ratio=0.5"],
        ["replay.ratio=null", "iqn.update_interval=4"],
        [CNN, "replay.share_frames=true"],
        ["replay.cut_at_exploration=true", "iqn.num_steps=2"],
        ["replay={kind: prioritized, capacity: 500, warmup_steps: 100, weight_exponent: alpha}"],
        ["total_steps=100", "replay.capacity=100", "iqn.batch_size=100"],
        ["iqn.num_steps=9", "iqn.batch_size=36"],  # 36 + 8 * 8 = 100
    ],
    ids=lambda overrides: overrides[0],
)
def test_what_just_keeps_the_rules_loads(load, overrides):
    load("", *overrides)


def test_the_ratio_of_replay_stands_in_for_the_interval_of_updates(load):
    from tesserl_configs import RunConfig

    config = load("", "replay.ratio=0.5")
    assert config.iqn.update_interval is None
    assert RunConfig.model_validate(config.model_dump()) == config
    assert load().iqn.update_interval == 4


def test_all_broken_rules_are_reported_together(errors_of):
    messages = errors_of("nn.freeze=[vision]", "iqn.exploration={kind: noisy}", "iqn.batch_size=500")
    assert len(messages) == 3


def test_rules_hold_for_configurations_made_in_python(load):
    from tesserl_configs import RunConfig

    data = load().model_dump()
    data["iqn"]["exploration"] = {"kind": "noisy"}
    with pytest.raises(ValueError, match=r"set nn\.heads\.noisy: true or use epsilon"):
        RunConfig.model_validate(data)
