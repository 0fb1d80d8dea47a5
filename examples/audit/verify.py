#!/usr/bin/env python3
"""Checks an exported Starling audit log without any Starling code: python3 verify.py EXPORT [audit.pub]

Standard library only. It recomputes the leaf hashes, the chain, the Merkle roots (RFC 6962) and the contributors of each
version, and compares the roots with the checkpoints. Signatures (Ed25519) are checked where the package `cryptography` is
installed; otherwise it says that they were not. Exit code: 0 whole, 1 something was changed, 2 usage.
docs/AUDIT.md describes the format."""
import base64
import hashlib
import json
import sys

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    Ed25519PublicKey = None


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def append(peaks, leaf):
    """Adds a leaf to [(height, root)], the full subtrees of the tree so far, the largest first."""
    peaks.append((0, leaf))
    while len(peaks) > 1 and peaks[-1][0] == peaks[-2][0]:
        (height, right), (_, left) = peaks.pop(), peaks.pop()
        peaks.append((height + 1, sha(b"\x01", left, right)))


def root(peaks):
    if not peaks:
        return sha(b"")
    result = peaks[-1][1]
    for _, left in reversed(peaks[:-1]):
        result = sha(b"\x01", left, result)
    return result


def hexadecimal(text):
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def read_keys(texts):
    """{(name, id): public key} of keys written NAME+ID+BASE64; algorithm 1 is the log's."""
    keys = {}
    for text in texts:
        name, key_id, encoded = text.split("+", 2)
        key = base64.b64decode(encoded, validate=True)
        if sha(name.encode(), b"\n", key)[:4].hex() != key_id or key[0] != 1:
            raise ValueError(f"not a log's key: {text}")
        keys[(name, bytes.fromhex(key_id))] = key[1:]
    return keys


def read_checkpoint(note, keys):
    """(size, root) of a checkpoint that one of `keys` has signed."""
    text, signatures = note.rsplit("\n\n", 1)
    text += "\n"
    origin, size, encoded = text.splitlines()
    for line in signatures.splitlines():
        dash, name, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        key = keys.get((name, signature[:4]))
        if dash == "\u2014" and key and name == origin:
            if Ed25519PublicKey:
                Ed25519PublicKey.from_public_bytes(key).verify(signature[4:], text.encode())
            return int(size), base64.b64decode(encoded, validate=True)
    raise ValueError("no signature of the log's key")


def main(arguments):
    if len(arguments) not in (1, 2):
        print(__doc__)
        return 2
    problems, records, checkpoints, personal, commitments = [], [], [], [], set()
    known = open(arguments[1]).read().split() if len(arguments) == 2 else None
    keys, claimed = {}, None
    with open(arguments[0], "rb") as file:
        for number, line in enumerate(file.read().split(b"\n")[:-1], 1):
            try:
                value = json.loads(line)
                if json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() != line:
                    raise ValueError("written in another way")
                if "seq" in value:
                    records.append((number, value, sha(b"\x00", line)))
                    commitments.add(value.get("personal"))
                elif "export" in value and number == 1:
                    header = value["export"]
                    keys, claimed = read_keys(known or header["keys"]), header["records"]
                    if header["keys"] != (known or header["keys"]) or (header["format"], header["origin"]) != (1, list(keys)[-1][0]):
                        raise ValueError("another log, key or format")
                elif "checkpoint" in value:
                    checkpoints.append((number, *read_checkpoint(value["checkpoint"], keys)))
                elif "personal" in value:
                    personal.append((number, value["personal"]))
                else:
                    raise ValueError("unknown")
            except Exception as error:  # whatever is wrong with a line, its number is what matters
                problems.append(f"line {number}: cannot be read: {error!r}")
    roots, peaks, previous, admitted = {0: root([])}, [], bytes(32), {}
    for expected, (number, record, leaf) in enumerate(records):
        if record["seq"] != expected:
            problems.append(f"line {number}: record {record['seq']} where {expected} was expected")
            break
        if record.get("prev") != previous.hex():
            problems.append(f"line {number}: record {expected - 1} is not the one that record {expected} names")
        previous, about = leaf, record.get("about", {})
        append(peaks, leaf)
        roots[expected + 1] = root(peaks)
        address = (about.get("run"), about.get("round"), about.get("attempt"))
        if record.get("what") == "update-admitted" and record.get("who", "").startswith("device:"):
            entry = (hexadecimal(record["who"][7:]), hexadecimal(about.get("digest", "")))
            admitted.setdefault(address, []).append(entry)
        elif (record.get("what"), record.get("who")) == ("update-withdrawn", "system"):
            gone = (hexadecimal(about.get("device", "")), hexadecimal(about.get("digest", "")))
            admitted[address] = [entry for entry in admitted.get(address, []) if entry != gone]
        elif record.get("what") == "version-committed":
            tree = []
            for device, digest in sorted(admitted.pop(address, [])):
                append(tree, sha(b"\x00", device, digest))
            if root(tree).hex() != about.get("contributors_root"):
                problems.append(f"line {number}: other contributors than the updates before it")
    for number, size, signed in checkpoints:
        if roots.get(size) != signed:
            problems.append(f"line {number}: the first {size} records are not those that were signed")
    for number, field in personal:
        salt, value, commitment = (str(field.get(name)) for name in ("salt", "value", "commitment"))
        opened = sha(b"starling/audit/personal\x00", hexadecimal(salt), value.encode())
        if opened.hex() != commitment or commitment not in commitments:
            problems.append(f"line {number}: a personal field that no record speaks of")
    if not checkpoints or max(size for _, size, _ in checkpoints) != claimed or claimed != len(records):
        problems.append(f"{len(records)} records, and the export should have as many, all signed")
    print("\n".join(problems) if problems else f"whole: {len(records)} records, {len(checkpoints)} checkpoints")
    if not Ed25519PublicKey:
        print("signatures were not checked: the package `cryptography` is not installed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
