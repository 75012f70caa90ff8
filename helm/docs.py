#!/usr/bin/env python3
"""Writes values.yaml and README.md of the chart from values.schema.json.

    helm/docs.py            writes them
    helm/docs.py --check    exit code 1 if they are not what it would write
"""

import json
import sys
import textwrap
from pathlib import Path

CHART = Path(__file__).parent / "loaddensity"

HEAD = """\
# Helm chart `loaddensity`

One run of an action document on a cluster (`mode: run`), or a master that waits for tests (`mode: serve`). How to use it, and what
happens when pods die: [docs/deploy.md](../../docs/deploy.md).

```sh
helm install load helm/loaddensity --set image.repository=REGISTRY/loaddensity --set-file document=test.json
kubectl logs -f job/load-loaddensity-master-1
helm test load
```

## Values

`values.schema.json` is their source: this table and `values.yaml` are made from it (`helm/docs.py`), and Helm refuses what does not fit.

| value | type | default | what it is |
|---|---|---|---|
"""


def is_group(schema):
    return bool(schema.get("properties")) and "default" not in schema


def kind(schema):
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    types = schema["type"]
    return " or ".join(types) if isinstance(types, list) else types


def rows(schema, path=""):
    for name, value in schema["properties"].items():
        if is_group(value):
            yield from rows(value, f"{path}{name}.")
        else:
            default = json.dumps(value["default"], ensure_ascii=False)
            text = value["description"].replace("|", "\\|")
            yield f"| `{path}{name}` | {kind(value)} | `{default}` | {text} |\n"


def values(schema, indent=""):
    for name, value in schema["properties"].items():
        comment = value["description"]
        if "enum" in value:
            comment += f" ({', '.join(value['enum'])})"
        for line in textwrap.wrap(comment, 110 - len(indent)):
            yield f"{indent}# {line}\n"
        if is_group(value):
            yield f"{indent}{name}:\n"
            yield from values(value, indent + "  ")
        else:
            yield f"{indent}{name}: {json.dumps(value['default'], ensure_ascii=False)}\n"


def main():
    schema = json.loads((CHART / "values.schema.json").read_text())
    wanted = {
        CHART / "README.md": HEAD + "".join(rows(schema)),
        CHART / "values.yaml": "# Made from values.schema.json by helm/docs.py: change it there.\n\n" + "".join(values(schema)),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path} is not what values.schema.json says: run helm/docs.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(wanted[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
