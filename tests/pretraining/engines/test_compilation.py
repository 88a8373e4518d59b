"""What compiled code is given; compiling itself is seen in the slow suite."""

import pytest
import torch

from pretraining.engines import compilation
from pretraining.engines.compilation import Compilation
from pretraining.model.masked_lm import build_model
from tests.pretraining.model.test_masked_lm import batch_of, small_model


@pytest.fixture
def graphs(monkeypatch):
    """The names of the inputs of each call of compiled code: another set is another graph."""
    calls = []

    def compile_without_a_compiler(plain, *, dynamic):
        assert not dynamic

        def compiled(**inputs):
            calls.append(frozenset(inputs))
            return plain(**inputs)

        return compiled

    monkeypatch.setattr(compilation.torch, "compile", compile_without_a_compiler)
    return calls


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize(("attention", "number"), [("eager", 1), ("sdpa", 2)])
def test_a_micro_batch_without_padding_is_no_second_graph_where_masks_are_added(graphs, family, attention, number):
    """With the fused kernel no mask is faster than a mask of ones, and is worth a graph of its own."""
    padded = batch_of("mlm")
    whole = {name: value for name, value in padded.items() if name != "attention_mask"}
    model = build_model(small_model(family, "mlm").config, attention=attention, dropout=0.0).train()
    plain = [model(**batch)["loss_sum"] for batch in (padded, whole)]
    Compilation(model, by_layer=False).start()
    assert torch._dynamo.config.suppress_errors
    assert torch.equal(torch.stack([model(**batch)["loss_sum"] for batch in (padded, whole)]), torch.stack(plain))
    assert len(set(graphs)) == number
    assert len(graphs) == 2
    model.eval()
    model(**whole)
    assert len(graphs) == 2


@pytest.mark.parametrize("must", [False, True])
def test_a_compiler_that_fails_ends_only_a_run_that_must_be_compiled(monkeypatch, must):
    def broken(graph, inputs):
        raise OSError("no compiler")

    compiler = torch.compile
    monkeypatch.setattr(compilation.torch, "compile", lambda plain, *, dynamic: compiler(plain, backend=broken))
    model = build_model(small_model("bert", "mlm").config, dropout=0.0).train()
    expected = model(**batch_of("mlm"))["loss_sum"]
    Compilation(model, by_layer=False).start(must=must)
    try:
        if must:
            with pytest.raises(Exception, match="no compiler"):
                model(**batch_of("mlm"))
        else:
            assert torch.equal(model(**batch_of("mlm"))["loss_sum"], expected)
    finally:
        torch._dynamo.reset()
