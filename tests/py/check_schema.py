"""Checks a JSON Schema, and documents against it.

Reads {"schema": …, "documents": {NAME: TEXT}} from stdin; prints {NAME: [fault, …]} as JSON.
"""

import json
import sys

from jsonschema import Draft202012Validator

order = json.load(sys.stdin)
Draft202012Validator.check_schema(order["schema"])
validator = Draft202012Validator(order["schema"])


def faults(text):
    """Every fault of a document, deepest causes included."""
    try:
        document = json.loads(text)
    except ValueError as error:
        return [f"no JSON: {error}"]
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in validator.iter_errors(document)]


json.dump({name: faults(text) for name, text in order["documents"].items()}, sys.stdout)
