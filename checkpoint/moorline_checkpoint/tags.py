"""Tags: what stands for a device in logs and errors.

A device ID may be a phone number, and all phone numbers of a country can be tried within an hour. So a tag leads to a
device only with the key that it was made with.
"""

from hashlib import blake2b

UNTAGGED = "untagged"
"""What stands for every device until the key is known."""


class DeviceTags:
    """Twelve hexadecimal digits for each device, the same in every process that uses the same key.

    The key is made from the `secret` if one is given; otherwise it is the one that the database keeps, once that has
    been read.
    """

    def __init__(self, secret: str | None = None) -> None:
        self._key = None if secret is None else blake2b(secret.encode(), digest_size=32).digest()

    @property
    def ready(self) -> bool:
        """Whether the key is known."""
        return self._key is not None

    def use(self, key: bytes) -> None:
        """Makes tags with this key, of up to 64 bytes, from now on."""
        self._key = key

    def of(self, device_id: str) -> str:
        """The device's tag, or `UNTAGGED`."""
        if self._key is None:
            return UNTAGGED
        return blake2b(device_id.encode(errors="surrogatepass"), key=self._key, digest_size=6).hexdigest()
