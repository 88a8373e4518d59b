"""SplitMix64 as a counter-based random generator: the same integers give the same bits on every machine and numpy."""

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble uint64 values of any shape, one to one (the finalizer of Steele, Lea and Flood 2014, section 4)."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def key(*numbers: int) -> np.uint64:
    """One 64-bit key from integers, in their order."""
    state = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        state = mix(state + np.uint64((number * int(GOLDEN) + int(GOLDEN)) & _MASK))
    return np.uint64(state[0])


def keys(first: np.uint64 | np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """One key for each number (an integer array of any shape), drawn from the key `first`; uint64, same shape."""
    return mix(numbers.astype(np.uint64) * GOLDEN + first)
