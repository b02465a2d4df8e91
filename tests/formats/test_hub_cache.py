"""The hub's cache as a source: the folder of a model stands for its snapshot, whose files are links to blobs."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from isomorph.cli.app import run
from isomorph.errors import FormatError
from isomorph.formats.registry import open_checkpoint
from isomorph.job.config import config_beside

ONE, TWO = "a" * 40, "b" * 40


def snapshot(model: Path, revision: str, value: float, name: str = "model.safetensors") -> Path:
    """A snapshot as huggingface_hub makes it: weights and a config, each a link to its blob."""
    folder = model / "snapshots" / revision
    folder.mkdir(parents=True)
    (model / "blobs").mkdir(exist_ok=True)
    weights = model / "blobs" / (revision[:1] * 64)
    save_file({"w": np.full(3, value, "f4")}, weights)
    config = model / "blobs" / (revision[:1] * 40)
    config.write_text(json.dumps({"hidden": value, "torch_dtype": "float32"}))
    (folder / name).symlink_to(f"../../blobs/{weights.name}")
    (folder / "config.json").symlink_to(f"../../blobs/{config.name}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """models--org--name with two snapshots, the second of which is main."""
    made = tmp_path / "hub/models--org--name"
    snapshot(made, ONE, 1.0)
    snapshot(made, TWO, 2.0)
    (made / "refs").mkdir()
    (made / "refs/main").write_text(TWO)
    return made


def value(path: Path) -> float:
    with open_checkpoint(path) as opened:
        return float(opened.fetch("w", 0, (1,), (1,)).view("f4")[0])


def failure(path: Path) -> str:
    with pytest.raises(FormatError) as caught:
        open_checkpoint(path)
    return str(caught.value)


def test_a_models_folder_is_its_snapshot(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """main, wherever it is named from; its config counts, and companions are copied as files."""
    assert value(model) == value(model / f"snapshots/{TWO}") == 2.0
    assert value(model / f"snapshots/{ONE}") == 1.0
    assert config_beside(model) == model / f"snapshots/{TWO}/config.json"
    assert run(["convert", str(model), str(tmp_path / "out") + "/", "-q"]) == 0
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert not (tmp_path / "out/config.json").is_symlink()
    assert json.loads((tmp_path / "out/config.json").read_text())["hidden"] == 2.0
    monkeypatch.chdir(model)
    assert value(Path()) == 2.0


def test_the_only_snapshot_needs_no_main(model: Path) -> None:
    """As after a download of one revision by its hash."""
    (model / "refs/main").unlink()
    assert f"with 2 snapshots ({ONE}, {TWO}) and no refs/main. Name the snapshot that is meant" in failure(model)
    for link in (model / f"snapshots/{TWO}").iterdir():
        link.unlink()
    (model / f"snapshots/{TWO}").rmdir()
    assert value(model) == 1.0


def test_a_main_that_is_not_there_is_named(model: Path) -> None:
    """A download that did not end; a main that is a path, a link, or no text is none."""
    (model / "refs/main").write_text("c" * 40)
    said = f"names the revision {'c' * 40}, of which there is no snapshot (it holds {ONE}, {TWO}). Download it again"
    assert said in failure(model)
    for text in ("../../../etc", "a/b", "", "\x1b[2J", "é"):
        (model / "refs/main").write_text(text)
        assert "2 snapshots" in failure(model)
    (model / "refs/main").unlink()
    (model / "refs/main").symlink_to("/etc/hostname")
    assert "2 snapshots" in failure(model)


def test_a_snapshot_that_is_a_link_is_none(model: Path, tmp_path: Path) -> None:
    """Whoever made the folder does not choose which other folder of this machine is read."""
    snapshot(tmp_path / "secret", ONE, 9.0)
    (model / "refs/main").write_text("d" * 40)
    (model / f"snapshots/{'d' * 40}").symlink_to(tmp_path / "secret/snapshots" / ONE)
    assert "of which there is no snapshot" in failure(model)


def test_a_cache_of_several_models_lists_them(model: Path) -> None:
    """The cache as a whole holds no checkpoint of its own."""
    snapshot(model.parent / "models--org--other", ONE, 1.0)
    assert "the hub's cache, of these models: models--org--name, models--org--other. Name the folder of one" in failure(
        model.parent
    )


def test_a_download_that_did_not_end_says_so(model: Path) -> None:
    """A link whose blob is not there yet."""
    (model / "blobs" / ("b" * 64)).unlink()
    assert "model.safetensors: a link to ../../blobs/bbbb" in failure(model)


def test_gguf_in_the_cache(tmp_path: Path) -> None:
    """Parts of a split file are links too, and are followed like shards."""
    made = tmp_path / "models--org--gguf"
    folder = made / "snapshots" / ONE
    folder.mkdir(parents=True)
    (made / "blobs").mkdir()
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    for name in "ab":
        writer.add_tensor(name, np.full(4, ord(name), "f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for number, part in enumerate(sorted(tmp_path.glob("m-*.gguf"))):
        part.rename(made / "blobs" / (str(number) * 64))
        (folder / part.name).symlink_to(f"../../blobs/{str(number) * 64}")
    with open_checkpoint(made) as opened:
        assert sorted(opened.manifest) == ["a", "b"]


def test_a_pipeline_of_models_says_where_they_are(tmp_path: Path) -> None:
    """Diffusers keeps a model in each folder, and none beside model_index.json."""
    for name in ("unet", "vae", "scheduler"):
        (tmp_path / name).mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{}")
    for name in ("unet", "vae"):
        save_file({"w": np.ones(2, np.float32)}, tmp_path / name / "diffusion_pytorch_model.safetensors")
    with pytest.raises(
        FormatError, match=r"a pipeline of several models; there is one in unet, vae\. Name the one .*/unet"
    ):
        open_checkpoint(tmp_path)
    (tmp_path / "model_index.json").unlink()
    with pytest.raises(FormatError, match="a folder without a checkpoint of its own; there is one in unet, vae"):
        open_checkpoint(tmp_path)
