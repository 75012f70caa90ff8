"""Serves the plain functions of an importable Python package as LoadDensity commands.

Speaks the plug-in protocol (docs/plugins.md) on stdin and stdout. What functions print goes to stderr.
Run by LoadDensity as `python3 -c BRIDGE PACKAGE`; the working folder is on the import path.
"""

import importlib
import inspect
import json
import sys

answers = sys.stdout
sys.stdout = sys.stderr


def send(answer):
    answers.write(json.dumps(answer, default=repr) + "\n")
    answers.flush()


def described(name, function):
    about = (inspect.getdoc(function) or "").split("\n")[0]
    try:
        parameters = [
            {"name": p.name, "required": p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
            for p in inspect.signature(function).parameters.values()
        ]
    except (TypeError, ValueError):
        parameters = []
    return {"name": name, "about": about, "parameters": parameters}


def main():
    package = sys.argv[1]
    functions, fault = {}, None
    try:
        module = importlib.import_module(package)
        functions = dict(inspect.getmembers(module, inspect.isfunction))
    except BaseException as error:  # whatever an import may raise, SystemExit too, is an answer
        fault = {"kind": type(error).__name__, "message": str(error)}
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"id": request["id"]}
        if fault:
            answer.update(ok=False, error=fault)
        elif request["op"] == "list":
            answer.update(ok=True, commands=[described(*item) for item in functions.items()])
        else:
            try:
                arguments = request["arguments"]
                function = functions[request["command"]]
                value = function(**arguments) if isinstance(arguments, dict) else function(*arguments)
                answer.update(ok=True, value=value)
            except BaseException as error:
                answer.update(ok=False, error={"kind": type(error).__name__, "message": str(error)})
        send(answer)


main()
