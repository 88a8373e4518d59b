"""Object stores through fsspec: addresses, whole files with retries, folders with a manifest, a cache, uploads."""
