import copy
import json
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tesserl_nn_components import (
    MLP,
    CategoricalHead,
    ConcatFusion,
    ImpalaCNN,
    PatchViT,
    PostConcatFusion,
    TransformerTrunk,
    VectorEncoder,
    freeze,
    from_pretrained,
    load_pretrained,
    pull_from_hub,
    push_to_hub,
    read_config,
    save_pretrained,
)

IMPALA = {"image_shape": (3, 12, 20), "channels": (2, 3), "pool_size": 2, "spectral_norm": "residual"}


def two_branches(*, width, num_layers):
    """A body that no single class's keyword arguments describe."""
    return PostConcatFusion(
        vision=PatchViT((2, 10, 15), patch_size=5, d_model=8, num_layers=1, num_heads=2),
        vector=VectorEncoder(7, hidden_sizes=[width], running=True),
        layout="token_sequence",
        d_model=4 * width,
        trunk=partial(TransformerTrunk, num_layers=num_layers, num_heads=2),
        out_features=9,
    )


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_a_saved_encoder_is_built_again_by_its_class_and_computes_the_same(tmp_path):
    encoder = ImpalaCNN(**IMPALA)
    encoder(torch.rand(2, 3, 12, 20))  # moves the singular vectors, which are buffers
    save_pretrained(encoder, tmp_path, config=IMPALA)
    torch.manual_seed(1)
    twin = from_pretrained(ImpalaCNN, tmp_path)
    assert same(twin, encoder)
    assert twin.training
    pixels = torch.randint(256, (5, 3, 12, 20), dtype=torch.uint8)
    assert torch.equal(twin.eval()(pixels), encoder.eval()(pixels))


def test_a_composed_body_is_built_again_by_a_function(tmp_path):
    body = two_branches(width=3, num_layers=2)
    body.vector.normalizer.update(torch.randn(11, 7) * 5 + 3)
    save_pretrained(body, tmp_path, config={"width": 3, "num_layers": 2})
    twin = from_pretrained(two_branches, tmp_path)
    inputs = torch.rand(5, 2, 10, 15), torch.randn(5, 7)
    assert torch.equal(twin(*inputs), body(*inputs))


def test_data_statistics_travel_with_the_weights(tmp_path):
    running = VectorEncoder(3, hidden_sizes=[], running=True)
    running.normalizer.update(torch.randn(50, 3) * 4 + 2)
    save_pretrained(running, tmp_path / "running", config={})
    twin = VectorEncoder(3, hidden_sizes=[], running=True)
    load_pretrained(twin, tmp_path / "running")
    assert twin.normalizer.count == 50
    assert torch.equal(twin.normalizer.variance, running.normalizer.variance)

    fixed = VectorEncoder(2, hidden_sizes=[], mean=[1.0, 2.0], std=[3.0, 4.0])
    save_pretrained(fixed, tmp_path / "fixed", config={})
    twin = VectorEncoder(2, hidden_sizes=[], mean=[0.0, 0.0])
    load_pretrained(twin, tmp_path / "fixed")
    assert torch.equal(twin(torch.tensor([4.0, 10.0])), torch.tensor([1.0, 2.0]))


def test_a_body_starts_another_algorithm_part_by_part(tmp_path):
    body = two_branches(width=3, num_layers=1)
    save_pretrained(body, tmp_path, config={})
    vision = PatchViT((2, 10, 15), patch_size=5, d_model=8, num_layers=1, num_heads=2)
    other = nn.ModuleDict(
        {
            "body": ConcatFusion(vision=vision, vector=VectorEncoder(7, hidden_sizes=[5])),
            "head": CategoricalHead(13, 4),
        }
    )
    untouched = copy.deepcopy(other)
    load_pretrained(other["body"].vision, tmp_path, part="vision")
    assert same(other["body"].vision, body.vision)
    assert same(other["body"].vector, untouched["body"].vector)
    assert same(other["head"], untouched["head"])


def test_parts_may_be_nested_and_are_whole_names(tmp_path):
    net = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 3)}), "ab": nn.Linear(5, 7)})
    save_pretrained(net, tmp_path, config={})
    layer = nn.Linear(2, 3)
    load_pretrained(layer, tmp_path, part="a.b")
    assert same(layer, net["a"]["b"])
    with pytest.raises(ValueError, match=r"got 'c'; its parts are \['a', 'ab'\]"):
        load_pretrained(layer, tmp_path, part="c")


def test_every_difference_is_named_with_both_sides_and_nothing_is_changed(tmp_path):
    save_pretrained(MLP(5, [7], 3), tmp_path, config={})
    other = MLP(6, [7, 2], 3)
    before = copy.deepcopy(other)
    with pytest.raises(ValueError, match="does not fit MLP") as caught:
        load_pretrained(other, tmp_path)
    assert str(caught.value).splitlines()[1:] == [
        "  missing in the file: layers.4.weight (3, 2)",
        "  missing in the file: layers.4.bias (3,)",
        "  shape of layers.0.weight: (7, 5) in the file, (7, 6) in the network",
        "  shape of layers.2.weight: (3, 7) in the file, (2, 7) in the network",
        "  shape of layers.2.bias: (3,) in the file, (2,) in the network",
    ]
    assert same(other, before)

    with pytest.raises(ValueError, match=r"unknown to the network: layers\.2\.bias \(3,\)"):
        load_pretrained(MLP(5, [7]), tmp_path)


def test_differences_of_a_part_name_the_part(tmp_path):
    save_pretrained(nn.ModuleDict({"body": MLP(5, [7])}), tmp_path, config={})
    with pytest.raises(ValueError, match=r'part "body" of .* does not fit MLP[\s\S]*\(7, 5\) in the file, \(7, 6\) in'):
        load_pretrained(MLP(6, [7]), tmp_path, part="body")


def test_values_take_the_dtype_of_the_network_but_not_another_kind_of_number(tmp_path):
    save_pretrained(nn.Linear(2, 3).half(), tmp_path, config={})
    layer = nn.Linear(2, 3).double()
    load_pretrained(layer, tmp_path)
    assert layer.weight.dtype == torch.float64
    assert torch.equal(layer.weight.half(), load_file(tmp_path / "model.safetensors")["weight"])

    net = nn.Module()
    net.register_buffer("weight", torch.zeros(3, 2, dtype=torch.int64))
    net.register_buffer("bias", torch.zeros(3))
    with pytest.raises(ValueError, match=r"dtype of weight: torch\.float16 in the file, torch\.int64 in the network"):
        load_pretrained(net, tmp_path)


def test_frozen_parts_are_loaded_and_stay_frozen(tmp_path):
    body = two_branches(width=3, num_layers=1)
    save_pretrained(body, tmp_path, config={})
    torch.manual_seed(1)
    twin = two_branches(width=3, num_layers=1)
    freeze(twin, ["vision"])
    load_pretrained(twin, tmp_path)
    assert same(twin, body)
    assert not any(parameter.requires_grad for parameter in twin.vision.parameters())
    assert all(parameter.requires_grad for parameter in twin.trunk.parameters())


def test_optimisers_see_the_loaded_values(tmp_path):
    layer = nn.Linear(2, 3)
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    held = layer.weight
    load_pretrained(layer, tmp_path)
    assert layer.weight is held


def test_tied_and_strided_tensors_are_stored_under_each_name(tmp_path):
    net = nn.ModuleDict({"one": nn.Linear(2, 3, bias=False)})
    net["two"] = net["one"]
    net["one"].weight = nn.Parameter(torch.randn(2, 3).T)
    save_pretrained(net, tmp_path, config={})
    untied = nn.ModuleDict({"one": nn.Linear(2, 3, bias=False), "two": nn.Linear(2, 3, bias=False)})
    load_pretrained(untied, tmp_path)
    assert torch.equal(untied["two"].weight, net["one"].weight)


def test_saving_again_replaces_weights_and_configuration_but_keeps_the_card(tmp_path):
    save_pretrained(nn.Linear(2, 3), tmp_path, config={"in_features": 2, "out_features": 3})
    (tmp_path / "README.md").write_text("by hand")
    layer = nn.Linear(4, 5)
    save_pretrained(layer, tmp_path, config={"in_features": 4, "out_features": 5})
    assert same(from_pretrained(nn.Linear, tmp_path), layer)
    assert (tmp_path / "README.md").read_text() == "by hand"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_the_card_says_what_is_in_the_directory(tmp_path):
    body = ConcatFusion(vector=VectorEncoder(3, hidden_sizes=[4]))
    save_pretrained(body, tmp_path / "new" / "folder", config={}, description="Balances a pole.")
    card = (tmp_path / "new" / "folder" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: pytorch\n")
    assert "Balances a pole." in card
    assert "`tesserl_nn_components.fusion.ConcatFusion`" in card
    assert "2 tensors; inputs observation, 4 features out." in card
    assert "| vector | 16 |" in card


def test_configuration_reads_back_as_it_was_given(tmp_path):
    config = {"sizes": [(1, 2), 3], "rate": 0.1, "name": "ä", "none": None, "nested": {"on": True}}
    save_pretrained(nn.Linear(1, 1), tmp_path, config=config)
    assert read_config(tmp_path) == {**config, "sizes": [[1, 2], 3]}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"activation": nn.ReLU}, "activation"),
        ({"a": [{"b": torch.ones(1)}]}, r"a\[0\]\.b"),
        ({"rate": float("nan")}, "rate"),
        ({"table": {1: 2}}, "table"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path, config, name):
    with pytest.raises(TypeError, match=rf"config must hold JSON values .*, got {name}="):
        save_pretrained(nn.Linear(1, 1), tmp_path / "x", config=config)
    assert not (tmp_path / "x").exists()


def test_state_that_is_no_tensor_is_refused(tmp_path):
    class Counter(nn.Module):
        def get_extra_state(self):
            return {"calls": 3}

    with pytest.raises(TypeError, match=r"cannot save Counter: its state must be tensors, got \['_extra_state'\]"):
        save_pretrained(Counter(), tmp_path, config={})


def test_the_meta_device_is_refused_on_both_ways(tmp_path):
    with torch.device("meta"):
        empty = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"cannot save Linear: 2 tensors are on the meta device"):
        save_pretrained(empty, tmp_path, config={})
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    with pytest.raises(ValueError, match=r"cannot load into Linear: 2 tensors are on the meta device"):
        load_pretrained(empty, tmp_path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    save_pretrained(nn.Linear(2, 3), tmp_path, config={"in_features": 2, "out_features": 3})
    (tmp_path / name).unlink()
    for use in (partial(from_pretrained, nn.Linear), partial(push_to_hub, repo_id="me/x")):
        with pytest.raises(FileNotFoundError, match=rf"must have config\.json and model\.safetensors, got no .*{name}"):
            use(tmp_path)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_is_never_opened(tmp_path, save):
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    sprung = tmp_path / "sprung"
    save(Trap(sprung), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"must be a safetensors file, got .*; save or download it again"):
        load_pretrained(nn.Linear(2, 3), tmp_path)
    assert not sprung.exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": {}}'])
def test_a_damaged_configuration_is_refused(tmp_path, text):
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json must be as save_pretrained writes it, got"):
        load_pretrained(nn.Linear(2, 3), tmp_path)


def test_a_later_format_is_refused_with_the_release_that_wrote_it(tmp_path):
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**record, "format_version": 2, "tesserl_nn_components": "9.9"}))
    with pytest.raises(ValueError, match=r"must be 1, got 2; install the release .* that wrote it, 9\.9"):
        load_pretrained(nn.Linear(2, 3), tmp_path)


def test_a_builder_that_does_not_take_the_configuration_is_named(tmp_path):
    save_pretrained(nn.Linear(2, 3), tmp_path, config={"width": 3})
    with pytest.raises(TypeError, match=r"Linear must take the keyword arguments of .*config\.json, \['width'\]"):
        from_pretrained(nn.Linear, tmp_path)


def test_pushing_makes_the_repository_and_uploads_the_three_files_only(tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    def create_repo(self, repo_id, *, private, exist_ok):
        calls.append(("create", repo_id, private, exist_ok))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, revision, commit_message):
        names = sorted(path.name for path in Path(folder_path).iterdir())
        chosen = list(huggingface_hub.utils.filter_repo_objects(names, allow_patterns=allow_patterns))
        calls.append(("upload", repo_id, chosen, revision, commit_message))
        return SimpleNamespace(commit_url="https://hub/me/body/commit/1")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    (tmp_path / "secret.txt").write_text("not for the hub")
    url = push_to_hub(tmp_path, "me/body", private=True, revision="dev", commit_message="First")
    assert url == "https://hub/me/body/commit/1"
    assert calls == [
        ("create", "me/body", True, True),
        ("upload", "me/body", ["README.md", "config.json", "model.safetensors"], "dev", "First"),
    ]


def test_pulling_gives_a_directory_to_start_from(tmp_path, monkeypatch):
    import huggingface_hub

    layer = nn.Linear(2, 3)
    save_pretrained(layer, tmp_path, config={"in_features": 2, "out_features": 3})
    asked = {}

    def snapshot_download(repo_id, **options):
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    twin = from_pretrained(nn.Linear, pull_from_hub("me/layer", revision="abc", local_files_only=True))
    assert same(twin, layer)
    assert asked == {
        "repo_id": "me/layer",
        "revision": "abc",
        "local_files_only": True,
        "allow_patterns": ["model.safetensors", "config.json", "README.md"],
    }


def test_without_the_hub_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    save_pretrained(nn.Linear(2, 3), tmp_path, config={})
    with pytest.raises(ImportError, match=r'install "tesserl-nn-components\[hub\]"'):
        push_to_hub(tmp_path, "me/x")
    with pytest.raises(ImportError, match=r'install "tesserl-nn-components\[hub\]"'):
        pull_from_hub("me/x")


def test_saving_and_loading_need_no_hub(tmp_path):
    code = (
        "import sys; sys.modules['huggingface_hub'] = None; from torch import nn; import tesserl_nn_components as t; "
        f"t.save_pretrained(nn.Linear(2, 3), {str(tmp_path)!r}, config=dict(in_features=2, out_features=3)); "
        f"print(t.from_pretrained(nn.Linear, {str(tmp_path)!r}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "Linear(in_features=2, out_features=3, bias=True)"
