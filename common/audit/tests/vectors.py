#!/usr/bin/env python3
"""Writes vectors.json: roots and proofs of the certificate-transparency reference leaves, computed from the definitions of
RFC 6962, sections 2.1 to 2.1.2, by recursion over lists. It shares nothing with the crate. Run: python3 vectors.py > vectors.json"""
import hashlib
import json

LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]


def sha(data):
    return hashlib.sha256(data).digest()


def split(n):
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d):
    if not d:
        return sha(b"")
    if len(d) == 1:
        return sha(b"\x00" + d[0])
    k = split(len(d))
    return sha(b"\x01" + mth(d[:k]) + mth(d[k:]))


def path(m, d):
    if len(d) == 1:
        return []
    k = split(len(d))
    return path(m, d[:k]) + [mth(d[k:])] if m < k else path(m - k, d[k:]) + [mth(d[:k])]


def subproof(m, d, whole):
    if m == len(d):
        return [] if whole else [mth(d)]
    k = split(len(d))
    if m <= k:
        return subproof(m, d[:k], whole) + [mth(d[k:])]
    return subproof(m - k, d[k:], False) + [mth(d[:k])]


def main():
    d = [bytes.fromhex(leaf) for leaf in LEAVES]
    sizes = range(1, len(d) + 1)
    vectors = {
        "leaves": LEAVES,
        "roots": [mth(d[:n]).hex() for n in range(len(d) + 1)],
        "inclusion": [
            {"index": m, "size": n, "proof": [p.hex() for p in path(m, d[:n])]} for n in sizes for m in range(n)
        ],
        "consistency": [
            {"old": m, "new": n, "proof": [p.hex() for p in subproof(m, d[:n], True)]} for n in sizes for m in range(1, n + 1)
        ],
    }
    print(json.dumps(vectors, indent=1))


main()
