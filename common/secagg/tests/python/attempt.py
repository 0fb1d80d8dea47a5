"""Three devices of one attempt, computed from docs/PROTOCOL.md with the `cryptography` package and nothing of ours.

    python3 common/secagg/tests/python/attempt.py

prints the digests that tests/rounds/vectors.rs expects. Identities, entropy and inputs are those of tests/rounds/world.rs.
"""

import hashlib
import struct

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PRIME = 2**31 + 11
VALUES, VALUE_MAX, COHORT_MIN, COHORT_MAX, CORRUPT, DROPOUT = 50, 100, 3, 3, 0, 300
THRESHOLD, WIDTH, LANE = 2, 10, 2  # floor(3 / 2) + 1; 2 * 3 * 100 + 1 <= 2^10


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def derive(secret, salt, purpose, *devices):
    info = b"starling/1 secagg " + purpose + b"\0" + b"".join(devices)
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def keystream(key, count):
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(count))


def raw(key):
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def agree(secret, public):
    return secret.exchange(X25519PublicKey.from_public_bytes(public))


def elements(stream):
    while True:
        (drawn,) = struct.unpack("<I", next(stream))
        if drawn < PRIME:
            yield drawn


def words(key):
    data = keystream(key, 1 << 16)
    return (data[at : at + 4] for at in range(0, len(data), 4))


def digits(secret):
    number = int.from_bytes(secret, "big")
    return [number >> (31 * (8 - place)) & (2**31 - 1) for place in range(9)]


def polynomials(secret, drawn):
    return [[digit] + [next(drawn) for _ in range(THRESHOLD - 1)] for digit in digits(secret)]


def share(polynomials, point):
    values = [sum(c * point**power for power, c in enumerate(poly)) % PRIME for poly in polynomials]
    return struct.pack(">9I", *values)


def inputs(device):
    """SplitMix64 over the device's first eight bytes, scaled to the bound; seed 1."""
    mask = 2**64 - 1
    first = int.from_bytes(device[:8], "little") ^ 1
    for index in range(VALUES):
        z = (first + index * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & mask
        yield ((z ^ z >> 31) * (2 * VALUE_MAX + 1) >> 64) - VALUE_MAX


def pack(values):
    bits = sum((value % 2**WIDTH) << (WIDTH * index) for index, value in enumerate(values))
    return bits.to_bytes((WIDTH * len(values) + 7) // 8, "little")


def main():
    model, plan = sha256(b"model"), sha256(b"plan")
    setup = sha256(
        b"starling/1 secagg setup\0", bytes([7] * 16), struct.pack("<IIH", 3, 1, 1), model, plan,
        struct.pack("<IQQIHHHH", VALUES, VALUE_MAX, COHORT_MAX * VALUE_MAX, 1, COHORT_MIN, COHORT_MAX, CORRUPT, DROPOUT),
    )
    ids = sorted(sha256(b"starling/device/", struct.pack("<QI", 5, index))[:16] for index in range(3))
    machines, members = [], []
    for device in ids:
        entropy = sha256(b"entropy", struct.pack("<Q", 1), device)
        secret = {name: derive(entropy, setup, name) for name in (b"mask secret", b"envelope secret", b"self mask seed", b"polynomials")}
        mask = X25519PrivateKey.from_private_bytes(secret[b"mask secret"])
        envelope = X25519PrivateKey.from_private_bytes(secret[b"envelope secret"])
        identity = Ed25519PrivateKey.from_private_bytes(sha256(b"identity", device))
        signed = b"starling/1 secagg advertise\0" + setup + device + raw(mask) + raw(envelope)
        members.append(device + struct.pack("<IH", 1, 1) + model + raw(mask) + raw(envelope) + identity.sign(signed))
        machines.append((device, mask, envelope, secret))
    roster = bytes([1, 2]) + setup + struct.pack("<H", 3) + b"".join(members)
    session = sha256(b"starling/1 secagg session\0", roster)
    print("setup  ", setup.hex())
    print("session", session.hex())
    for own, (device, mask, envelope, secret) in enumerate(machines):
        seed = secret[b"self mask seed"]
        drawn = elements(words(secret[b"polynomials"]))
        of_seed = polynomials(seed, drawn)
        of_key = polynomials(secret[b"mask secret"], drawn)
        shared = bytes([1, 3]) + session + sha256(b"starling/1 secagg seed\0", session, device, seed)
        vector = list(inputs(device))
        masks = [(1, derive(seed, session, b"self mask", device))]
        for other, (peer, peer_mask, peer_envelope, _) in enumerate(machines):
            if other == own:
                continue
            key = derive(agree(envelope, raw(peer_envelope)), session, b"envelope", device, peer)
            plain = share(of_seed, other + 1) + share(of_key, other + 1)
            shared += ChaCha20Poly1305(key).encrypt(bytes(12), plain, session)
            low, high = sorted([device, peer])
            pair = derive(agree(mask, raw(peer_mask)), session, b"pair mask", low, high)
            masks.append((1 if own < other else -1, pair))
        for sign, key in masks:
            lanes = struct.unpack(f"<{VALUES}H", keystream(key, LANE * VALUES))
            vector = [value + sign * lane for value, lane in zip(vector, lanes)]
        masked = bytes([1, 5]) + session + pack(vector)
        print("share  ", own, sha256(shared).hex())
        print("masked ", own, sha256(masked).hex())


main()
