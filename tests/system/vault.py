"""What the store keeps encrypted, opened by another program than ours: libcrypto, through ctypes.

A value is 1 byte of format, 4 bytes that name the key, 12 of nonce, the ciphertext, 16 of tag; bound to the
first five, and the row's sync, id and column."""

import base64
import ctypes
import ctypes.util
import hashlib
import hmac

HEAD, NONCE, TAG = 5, 12, 16
SET_TAG = 0x11  # EVP_CTRL_AEAD_SET_TAG


def _libcrypto():
    library = ctypes.CDLL(ctypes.util.find_library("crypto"))
    for name in ("EVP_CIPHER_CTX_new", "EVP_aes_256_gcm"):
        getattr(library, name).restype = ctypes.c_void_p
    library.EVP_DecryptInit_ex.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_char_p] * 2
    library.EVP_DecryptUpdate.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int),
                                          ctypes.c_char_p, ctypes.c_int]
    library.EVP_DecryptFinal_ex.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)]
    library.EVP_CIPHER_CTX_ctrl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_char_p]
    library.EVP_CIPHER_CTX_free.argtypes = [ctypes.c_void_p]
    return library


def _decrypt(key, nonce, about, ciphertext, tag):
    crypto = _libcrypto()
    out, n = ctypes.create_string_buffer(len(ciphertext) + 16), ctypes.c_int()
    context = crypto.EVP_CIPHER_CTX_new()
    try:
        assert crypto.EVP_DecryptInit_ex(context, crypto.EVP_aes_256_gcm(), None, key, nonce) == 1
        assert crypto.EVP_DecryptUpdate(context, None, n, about, len(about)) == 1
        assert crypto.EVP_DecryptUpdate(context, out, n, ciphertext, len(ciphertext)) == 1
        assert crypto.EVP_CIPHER_CTX_ctrl(context, SET_TAG, TAG, tag) == 1
        assert crypto.EVP_DecryptFinal_ex(context, ctypes.create_string_buffer(16), n) == 1, "not authentic"
        return out.raw[:len(ciphertext)]
    finally:
        crypto.EVP_CIPHER_CTX_free(context)


class Vault:
    """The key in a data_dir."""

    def __init__(self, data):
        self.master = base64.b64decode((data / "master.key").read_text())
        assert len(self.master) == 32

    def _key(self, purpose):
        return hmac.digest(self.master, purpose, hashlib.sha256)

    def open(self, sync, record_id, column, value):
        """The text of a column of the row."""
        if isinstance(value, str):
            assert value == "", "a value is not encrypted"
            return value
        head, rest = value[:HEAD], value[HEAD:]
        assert head == b"\1" + self._key(b"walpost check 1")[:4]
        about = head + "\0".join((sync, record_id, column)).encode()
        return _decrypt(self._key(b"walpost values 1"), rest[:NONCE], about, rest[NONCE:-TAG],
                        rest[-TAG:]).decode()
