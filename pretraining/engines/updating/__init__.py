"""Parts of an update that torch lacks or has for whole tensors only: LAMB, Muon over shards, loss scaling."""
