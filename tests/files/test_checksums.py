# SPDX-License-Identifier: BSD-3-Clause
from mlimages_jax.files import checksums


def test_the_masked_crc_of_the_standard_check_value():
    """CRC-32C of these digits is 0xE3069283; rotated right by 15 bits, plus 0xA282EAD8."""
    rotated = (0xE3069283 >> 15) | (0xE3069283 & 0x7FFF) << 17
    assert checksums.masked_crc(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_sha256_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    digest = checksums.sha256(tmp_path / "file")
    assert digest.startswith("ba7816bf8f01cfea414140de5dae2223")
    assert len(digest) == 64
