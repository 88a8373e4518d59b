import hashlib

from transformers import BertConfig

from finetuning.run.finished import weights_digest
from finetuning.sweep.options import state_of
from gap.cells.job_list import model_digest
from pretraining.model.source.weights import checkpoint_digest


def test_a_checkpoint_is_known_again_by_its_content_alone(tmp_path):
    """The digest in the fingerprints of finished runs: it must stay what it was."""
    source, moved = tmp_path / "a", tmp_path / "b"
    source.mkdir()
    BertConfig(num_hidden_layers=1).save_pretrained(source)
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "tokenizer.json").write_text("{}")
    names = ("config.json", "model.safetensors", "tokenizer.json")
    listed = [f"{name}:{hashlib.sha256((source / name).read_bytes()).hexdigest()}\n" for name in names]
    assert checkpoint_digest(source) == hashlib.sha256("".join(listed[:2]).encode()).hexdigest()
    assert checkpoint_digest(source, "json") == hashlib.sha256("".join(listed).encode()).hexdigest()
    in_sweeps = f"{checkpoint_digest(source)}\n{listed[2]}"
    assert checkpoint_digest(source, "all") == hashlib.sha256(in_sweeps.encode()).hexdigest()
    assert weights_digest(str(source)) == checkpoint_digest(source)
    assert model_digest(str(source)) == checkpoint_digest(source, "json")
    assert state_of(str(source)) == checkpoint_digest(source, "all")
    before = checkpoint_digest(source)
    source.rename(moved)
    (moved / "README.md").write_text("another text")
    assert checkpoint_digest(moved) == before
    (moved / "config.json").write_text("{}")
    assert checkpoint_digest(moved) != before
