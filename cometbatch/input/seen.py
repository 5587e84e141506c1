"""A set of hashes in memory of a fixed size, however many values are compared."""

_MIN_SLOTS = 1 << 10
_HASH_BITS = (1 << 64) - 1


class Seen:
    """A set of hashes in memory of a fixed size. `room`: how many more it takes; `values`: how many were compared."""

    def __init__(self, rows: int, max_bytes: int) -> None:
        self._size = min(max(_MIN_SLOTS, 4 * rows // 3), max_bytes // 8)
        self._slots = memoryview(bytearray(8 * self._size)).cast("Q")
        self.room = 3 * self._size // 4
        self.values = 0

    def add(self, value: object) -> bool:
        """Whether a value was there before; False once there is no room."""
        if not self.room:
            return False
        self.values += 1
        key = hash(value) & _HASH_BITS or 1
        slots, size = self._slots, self._size
        at = key % size
        while (found := slots[at]) != key:
            if not found:
                slots[at] = key
                self.room -= 1
                return False
            at = (at + 1) % size
        return True
