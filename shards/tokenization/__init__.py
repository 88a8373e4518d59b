"""The tokenizer: trained or taken as it is, saved, loaded and fingerprinted."""
