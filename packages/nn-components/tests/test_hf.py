import copy
import functools
import pickle
import subprocess
import sys

import pytest
import torch
from torch import nn

from tesserl_nn_components import HFEmbeddingTrunk, HFVisionEncoder, PostConcatFusion, UnifiedFusion, VectorEncoder

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


def vit(**options):
    return transformers.ViTConfig(**TINY, intermediate_size=16, image_size=8, patch_size=4, **options)


def dinov2():
    return transformers.Dinov2Config(**TINY, mlp_ratio=2, image_size=12, patch_size=4, use_mask_token=True)


def resnet():
    return transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic")


def bert(**options):
    options = {"max_position_embeddings": 16} | options
    return transformers.BertConfig(**TINY, intermediate_size=16, vocab_size=5, **options)


CONFIGS = {"vit": vit, "dinov2": dinov2}


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("config", CONFIGS)
def test_any_channels_size_and_leading_dimensions(config, channels, lead):
    encoder = HFVisionEncoder((channels, 10, 14), CONFIGS[config](), out_features=5)
    pixels = torch.randint(256, (*lead, channels, 10, 14), dtype=torch.uint8)
    assert encoder(pixels).shape == (*lead, 5)
    assert encoder.tokens(pixels).shape == (*lead, encoder.num_tokens, 5)
    # the patches of the model's own image size, and the class token
    assert encoder.num_tokens == {"vit": 4, "dinov2": 9}[config] + 1


@pytest.mark.parametrize("pooling", ["cls", "mean", "attention"])
@pytest.mark.parametrize("config", CONFIGS)
def test_every_parameter_that_wants_a_gradient_gets_one(config, pooling):
    encoder = HFVisionEncoder(
        (4, 10, 14), CONFIGS[config](), out_features=6, pooling=pooling, refine_layers=1, refine_heads=2
    )
    encoder(torch.rand(2, 4, 10, 14)).pow(3).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.requires_grad != (p.grad is not None)] == []
    resting = {name for name, p in encoder.named_parameters() if not p.requires_grad}
    expected = {"vit": ["backbone.pooler.dense.weight", "backbone.pooler.dense.bias"]}.get(
        config, ["backbone.embeddings.mask_token"]
    )
    assert resting == set(expected)


def test_frozen_model_has_no_gradient_and_stays_in_evaluation_mode():
    config = vit(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    encoder = HFVisionEncoder((3, 8, 8), config, out_features=5, frozen=True).train()
    assert not any(part.training for part in encoder.backbone.modules())
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(encoder(pixels), encoder(pixels))
    encoder(pixels).sum().backward()
    assert {name for name, p in encoder.named_parameters() if p.grad is not None} == {
        "project.1.weight",
        "project.1.bias",
    }


def test_a_model_that_is_not_frozen_is_in_training_mode():
    encoder = HFVisionEncoder((3, 8, 8), vit(hidden_dropout_prob=0.5))
    pixels = torch.rand(2, 3, 8, 8)
    assert encoder.backbone.training
    assert not torch.equal(encoder(pixels), encoder(pixels))


def test_pixels_reach_the_model_resized_and_normalised():
    encoder = HFVisionEncoder((3, 8, 8), vit(), pixel_mean=[0.1, 0.2, 0.3], pixel_std=[0.5, 1.0, 2.0])
    pixels = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).reshape(3, 1, 1), torch.tensor([0.5, 1.0, 2.0]).reshape(3, 1, 1)
    expected = encoder.backbone((pixels / 255 - mean) / std).last_hidden_state
    torch.testing.assert_close(encoder.tokens(pixels), expected)
    torch.testing.assert_close(encoder(pixels), expected[:, 0])


def test_a_constant_image_keeps_its_value_when_resized():
    small = HFVisionEncoder((3, 8, 8), vit())
    for size in ((5, 6), (20, 30)):
        other = HFVisionEncoder((3, *size), vit())
        other.load_state_dict(small.state_dict())
        torch.testing.assert_close(other(torch.full((1, 3, *size), 0.3)), small(torch.full((1, 3, 8, 8), 0.3)))


def test_one_grey_channel_is_the_same_as_three_equal_ones():
    grey, colour = HFVisionEncoder((1, 10, 14), vit()), HFVisionEncoder((3, 10, 14), vit())
    colour.load_state_dict(grey.state_dict())
    pixels = torch.rand(2, 1, 10, 14)
    torch.testing.assert_close(grey(pixels), colour(pixels.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("channels", [4, 6])
def test_a_frame_stack_starts_as_the_mean_over_frames(channels):
    stack, colour = HFVisionEncoder((channels, 8, 8), vit()), HFVisionEncoder((3, 8, 8), vit())
    colour.load_state_dict({key: value for key, value in stack.state_dict().items() if key != "channels.weight"})
    pixels = torch.rand(2, channels, 8, 8)
    grey = pixels.mean(1, keepdim=True).expand(-1, 3, -1, -1)  # four grey frames
    coloured = (pixels[:, :3] + pixels[:, -3:]) / 2  # two frames of three colours
    torch.testing.assert_close(stack(pixels), colour(grey if channels == 4 else coloured))


@pytest.mark.parametrize("use_backbone_api", [False, True])
def test_feature_maps_become_tokens(use_backbone_api):
    encoder = HFVisionEncoder((3, 32, 32), resnet(), pooling="mean", use_backbone_api=use_backbone_api)
    assert encoder.num_tokens == 16
    assert encoder.out_features == 6
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, 6)


@pytest.mark.parametrize("use_backbone_api", [False, True])
def test_pooling_a_missing_class_token_is_refused(use_backbone_api):
    with pytest.raises(ValueError, match="has no class token; use pooling"):
        HFVisionEncoder((3, 32, 32), resnet(), use_backbone_api=use_backbone_api)


def test_building_draws_no_random_numbers_beyond_the_weights():
    def after(build):
        torch.manual_seed(1)
        build()
        return torch.get_rng_state()

    config = vit(hidden_dropout_prob=0.5)
    assert torch.equal(
        after(lambda: HFVisionEncoder((3, 8, 8), config)), after(lambda: transformers.AutoModel.from_config(config))
    )


def test_a_saved_directory_brings_weights_and_pixel_statistics(tmp_path):
    model = transformers.AutoModel.from_config(vit())
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    record = '{"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    (tmp_path / "preprocessor_config.json").write_text(record)
    encoder = HFVisionEncoder((3, 8, 8), str(tmp_path), local_files_only=True)
    assert encoder.pixel_mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.pixel_std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    for name, value in model.state_dict().items():
        torch.testing.assert_close(encoder.backbone.state_dict()[name], value.float())


def test_unknown_pixel_statistics_must_be_given(tmp_path):
    model = transformers.AutoModel.from_config(vit())
    model.save_pretrained(tmp_path)
    for source in (str(tmp_path), model):
        with pytest.raises(ValueError, match="pixel_mean and pixel_std of ViTConfig are not known; give them"):
            HFVisionEncoder((3, 8, 8), source)
        HFVisionEncoder((3, 8, 8), source, pixel_mean=[0.5], pixel_std=[0.5])


@pytest.mark.parametrize("options", [{"pixel_mean": [0.5] * 2}, {"pixel_std": [0.5, 0.5, 0.0]}])
def test_statistics_that_do_not_fit_are_refused(options):
    with pytest.raises(ValueError, match=r"must be 1 or 3 numbers \(positive for pixel_std\)"):
        HFVisionEncoder((3, 8, 8), vit(), **options)


def test_trunk_reads_tokens_as_embeddings_and_trains():
    trunk = HFEmbeddingTrunk(5, 6, model=bert())
    tokens = torch.randn(2, 3, 5, 6)
    assert trunk(tokens).shape == (2, 3, 6)
    torch.testing.assert_close(trunk.eval()(tokens)[1, 2], trunk(tokens[1, 2]))
    trunk.train()(tokens).pow(3).sum().backward()
    assert [name for name, p in trunk.named_parameters() if p.requires_grad != (p.grad is not None)] == []
    assert not trunk.model.embeddings.word_embeddings.weight.requires_grad


def test_trunk_refuses_more_tokens_than_positions():
    with pytest.raises(ValueError, match="position for each of 17 tokens, got 16"):
        HFEmbeddingTrunk(17, 6, model=bert())


def bodies():
    trunk = functools.partial(HFEmbeddingTrunk, model=bert())
    options = {"vector": VectorEncoder(5, hidden_sizes=[7]), "out_features": 11, "d_model": 6, "trunk": trunk}
    yield UnifiedFusion(vision=HFVisionEncoder((4, 10, 14), vit()), **copy.deepcopy(options))
    yield PostConcatFusion(vision=HFVisionEncoder((4, 10, 14), vit()), layout="token_sequence", **options)


def test_fusion_of_a_hub_encoder_and_a_hub_trunk():
    for body, tokens in zip(bodies(), (5 + 1, 1 + 4), strict=True):
        assert body.trunk.num_tokens == tokens
        inputs = torch.rand(2, 3, 4, 10, 14), torch.randn(2, 3, 5)
        body.eval()
        for twin in (copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
            assert torch.equal(twin(*inputs), body(*inputs))
        with torch.autocast("cpu", torch.bfloat16):
            half = body(*inputs).float()
        torch.testing.assert_close(half, body(*inputs), rtol=0.1, atol=0.1)
        body(*inputs).pow(3).sum().backward()
        assert all(p.grad is not None for p in body.parameters() if p.requires_grad)


def test_shapes_can_be_had_without_memory():
    with torch.device("meta"):
        for body in bodies():
            features = body(torch.empty(2, 4, 10, 14), torch.empty(2, 5))
            assert features.is_meta
            assert features.shape == (2, 11)


def test_half_precision_copy():
    encoder = HFVisionEncoder((1, 10, 14), vit(), out_features=5).to(torch.bfloat16)
    assert encoder(torch.zeros(2, 1, 10, 14, dtype=torch.uint8)).dtype == torch.bfloat16


def test_a_built_model_keeps_its_mode_and_frozen_parameters():
    model = transformers.AutoModel.from_config(vit()).eval()
    model.embeddings.requires_grad_(False)
    encoder = HFVisionEncoder((3, 8, 8), model, pixel_mean=[0.5], pixel_std=[0.5])
    assert encoder.backbone is model
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.embeddings.parameters())
    assert all(parameter.requires_grad for parameter in model.layernorm.parameters())


def test_missing_transformers_names_the_extra():
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from tesserl_nn_components import HFVisionEncoder\n"
        "try: HFVisionEncoder((3, 8, 8), 'some/name')\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'install "tesserl-nn-components[hf]"' in result.stdout


def test_timm_models_come_through_the_wrapper():
    pytest.importorskip("timm")
    config = transformers.TimmWrapperConfig.from_dict({"architecture": "resnet18", "num_classes": 0})
    encoder = HFVisionEncoder((3, 32, 32), config, pooling="mean")
    assert isinstance(encoder.backbone, nn.Module)
    assert encoder(torch.rand(2, 3, 32, 32)).shape == (2, encoder.out_features)
