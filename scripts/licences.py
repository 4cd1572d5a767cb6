#!/usr/bin/env python3
"""Holds the licences of all dependencies, as `cargo metadata` on standard input says, against deny.toml's list.

What `cargo deny check licenses` does, as far as that goes without reading licence texts.
"""

import json
import re
import sys
import tomllib


def is_allowed(expression: str, allowed: set[str]) -> bool:
    """`expression` as SPDX has it; an old `A/B` is `A OR B`."""
    words = {"OR": "or", "AND": "and", "(": "(", ")": ")"}
    terms = re.findall(r"[()]|[\w.+-]+(?: WITH [\w.+-]+)?", expression.replace("/", " OR "))
    return bool(terms) and eval(" ".join(words.get(term) or str(term in allowed) for term in terms), {})


def main() -> None:
    with open("deny.toml", "rb") as file:
        allowed = set(tomllib.load(file)["licenses"]["allow"])
    packages = json.load(sys.stdin)["packages"]
    refused = [p for p in packages if not is_allowed(p["license"] or "", allowed)]
    for package in refused:
        print(f"error: {package['name']} {package['version']}: licence {package['license']}, not in deny.toml")
    print(f"    {len(packages)} packages, {len(refused)} refused")
    sys.exit(bool(refused))


main()
