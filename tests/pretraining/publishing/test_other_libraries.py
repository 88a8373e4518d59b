"""An exported checkpoint in other hands: the pipelines of `transformers`, and sentence-transformers."""

import warnings

import pytest
import torch
from transformers import AutoTokenizer, pipeline

from pretraining.publishing.export import export_model, tokenizer_files
from tests.pretraining.publishing.test_export import small_model, tokenizer_directory, weights_of

__all__ = ["tokenizer_directory"]
TEXTS = ["the cat sat on a [MASK]", "two [MASK] dogs saw the cat and run on the mat"]


@pytest.fixture(params=["bert", "modernbert"])
def exported(request, tmp_path, tokenizer_directory):
    """The live model, in evaluation mode, and its export."""
    torch.manual_seed(3)
    model = small_model(request.param)
    with torch.no_grad():
        for parameter in model.parameters():  # its small random weights would predict every word alike
            parameter.add_(torch.randn_like(parameter) * 0.2)
    folder = tmp_path / "annealed-1000"
    export_model(model.transformer, weights_of(model), folder, tokenizer_files(tokenizer_directory))
    return model, folder


def encoded(folder, text):
    return AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")


def test_the_fill_mask_pipeline_gives_the_live_models_predictions(exported):
    model, folder = exported
    fill = pipeline("fill-mask", model=str(folder), device="cpu")
    words = len(fill.tokenizer)
    for text in TEXTS:
        given = {name: value for name, value in encoded(folder, text).items() if name != "token_type_ids"}
        positions = (given["input_ids"] == fill.tokenizer.mask_token_id).nonzero()[:, 1:]
        slots = {"mask_positions": positions, "mask_labels": positions * 0, "mask_weights": torch.ones(1, 1)}
        with torch.no_grad():
            live = model(**given, **slots, with_logits=True)["logits"][0, 0].softmax(-1)
        filled = {one["token"]: one["score"] for one in fill(text, top_k=words)}
        assert len(filled) == words
        assert [filled[token] for token in range(words)] == pytest.approx(live[:words].tolist(), abs=1e-5)
        assert max(filled.values()) > 2 / words, "predictions that differ from word to word"


def test_sentence_transformers_takes_the_mean_of_the_live_models_states(exported):
    library = pytest.importorskip("sentence_transformers")
    model, folder = exported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embedder = library.SentenceTransformer(str(folder), device="cpu")
    sentences = ["the cat sat", "two old dogs run on a mat and saw the cat"]
    found = torch.tensor(embedder.encode(sentences))
    for sentence, vector in zip(sentences, found, strict=True):
        given = {name: value for name, value in encoded(folder, sentence).items() if name != "token_type_ids"}
        with torch.no_grad():
            states = model.transformer.base_model(**given).last_hidden_state[0]
        torch.testing.assert_close(vector, states.mean(0), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
