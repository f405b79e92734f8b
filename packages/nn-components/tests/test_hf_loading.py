"""Models of Hugging Face come from safetensors alone, and bring no code along unless it is trusted."""

import importlib.util
import json

import pytest
import torch

from tesserl_nn_components import HFEmbeddingTrunk, HFVisionEncoder
from tesserl_nn_components.hf_loading import has_own_code, hf_model

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "mlp_ratio": 2}


@pytest.fixture
def unpickled(monkeypatch):
    """The files that torch was asked to unpickle."""
    files = []
    monkeypatch.setattr(torch, "load", lambda file, *args, **kwargs: files.append(file))
    return files


@pytest.fixture
def directory(tmp_path):
    model = transformers.Dinov2Model(transformers.Dinov2Config(**TINY, image_size=8, patch_size=4))
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def as_pickle(directory):
    """Turns the weights of a directory into the pickle that older models have."""
    model = transformers.Dinov2Model.from_pretrained(directory)
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()


def edit(directory, **entries):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


@pytest.mark.parametrize("build", [
    lambda path: hf_model(path, local_files_only=True),
    lambda path: hf_model(path, local_files_only=True, backbone=True),
    lambda path: hf_model(path),
    lambda path: HFVisionEncoder((3, 8, 8), path, pixel_mean=[0.5], pixel_std=[0.5], local_files_only=True),
    lambda path: HFEmbeddingTrunk(2, 4, model=path, local_files_only=True),
], ids=["model", "backbone", "online", "encoder", "trunk"])  # fmt: skip
def test_a_pickle_is_refused_and_not_opened(directory, unpickled, build):
    as_pickle(directory)
    with pytest.raises(
        ValueError, match=r"weights must be in model\.safetensors, .* save the model with save_pretrained"
    ):
        build(str(directory))
    assert unpickled == []


def test_a_sharded_pickle_is_refused_and_not_opened(directory, unpickled):
    as_pickle(directory)
    (directory / "pytorch_model.bin").rename(directory / "pytorch_model-00001-of-00001.bin")
    index = {"metadata": {}, "weight_map": {"layernorm.weight": "pytorch_model-00001-of-00001.bin"}}
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"weights must be in model\.safetensors"):
        hf_model(str(directory), local_files_only=True)
    assert unpickled == []


def test_safetensors_are_read_and_a_pickle_beside_them_is_not(directory, unpickled):
    (directory / "pytorch_model.bin").write_bytes(b"not even a pickle")
    expected = transformers.Dinov2Model.from_pretrained(directory).state_dict()
    loaded = hf_model(str(directory), local_files_only=True).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert unpickled == []


def test_a_backbone_is_read_from_a_local_directory(directory):
    expected = transformers.Dinov2Model.from_pretrained(directory).state_dict()
    backbone = hf_model(str(directory), local_files_only=True, backbone=True)
    assert type(backbone).__name__ == "Dinov2Backbone"
    loaded = backbone.state_dict()
    shared = [name for name in expected if name in loaded]
    assert len(shared) > 10
    assert all(torch.equal(loaded[name], expected[name]) for name in shared)


def test_a_model_is_a_directory_and_no_file(directory, unpickled):
    with pytest.raises(ValueError, match="must be a name on the hub or a local directory, got the file"):
        hf_model(str(directory / "config.json"), local_files_only=True)
    assert unpickled == []


def test_weights_that_timm_would_load_are_refused(directory):
    edit(directory, model_type="timm_backbone", backbone="resnet18")
    with pytest.raises(ValueError, match="timm_backbone leaves the choice to timm"):
        hf_model(str(directory), local_files_only=True, backbone=True)


def test_attention_that_would_be_downloaded_is_refused(directory):
    edit(directory, attn_implementation="somebody/kernel")
    with pytest.raises(ValueError, match="names code to download for the attention, somebody/kernel; remove it"):
        hf_model(str(directory), local_files_only=True)


def test_an_adapter_is_refused_where_peft_would_load_it(directory, monkeypatch):
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(directory)}))
    hf_model(str(directory), local_files_only=True)  # nobody reads it
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "peft" else found(name))
    with pytest.raises(ValueError, match="an adapter must be merged into its model before"):
        hf_model(str(directory), local_files_only=True)


def test_code_of_a_directory_runs_only_where_it_is_trusted(directory, tmp_path):
    mark = tmp_path / "mark"
    (directory / "own.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import Dinov2Config, Dinov2Model\n"
        "class OwnConfig(Dinov2Config):\n    model_type = 'own'\n"
        "class OwnModel(Dinov2Model):\n    config_class = OwnConfig\n"
    )
    assert not has_own_code(str(directory))
    edit(directory, model_type="own", auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"})
    assert has_own_code(str(directory))
    with pytest.raises(ValueError, match="custom code"):
        hf_model(str(directory), local_files_only=True)
    assert not mark.exists()
    assert type(hf_model(str(directory), local_files_only=True, trust_remote_code=True)).__name__ == "OwnModel"
    assert mark.exists()
