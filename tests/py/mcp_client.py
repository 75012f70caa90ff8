"""The official MCP client against `ld-master mcp`: every tool, a test with progress, a test that is cancelled.

Usage: mcp_client.py LD_MASTER FOLDER TARGET_URL. Prints one JSON object of what it saw.
"""

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path

import jsonschema
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

MASTER, FOLDER, TARGET = sys.argv[1], Path(sys.argv[2]), sys.argv[3]


def test(seconds, **more):
    return {
        "user_detail_dict": {"user": "fast_http_user"},
        "user_count": 2,
        "spawn_rate": 100,
        "test_time": seconds,
        "tasks": [{"method": "get", "request_url": TARGET, "name": "hit"}],
        **more,
    }


def get(result, *names):
    """The value of an attribute that versions of the client name differently."""
    for name in names:
        if hasattr(result, name):
            return getattr(result, name)
    raise AttributeError(names)


async def talk(session, seen):
    hello = await session.initialize()
    info = get(hello, "server_info", "serverInfo")
    seen["server"] = [info.name, info.version]
    seen["protocol"] = get(hello, "protocol_version", "protocolVersion")
    tools = (await session.list_tools()).tools
    schemas = {tool.name: get(tool, "output_schema", "outputSchema") for tool in tools}
    seen["tools"] = sorted(schemas)
    called = set()

    async def call(name, arguments=None, ok=True, **more):
        result = await session.call_tool(name, arguments or {}, **more)
        failed, value = get(result, "is_error", "isError"), get(result, "structured_content", "structuredContent")
        text = result.content[0].text
        assert bool(failed) != ok, (name, text)
        if ok:
            called.add(name.removeprefix("load_density."))
            jsonschema.validate(value, schemas[name.removeprefix("load_density.")])
            assert json.loads(text) == value, name
            return value
        return text

    await call("clear_records")
    assert "LD_start_test" in (await call("load_density.list_executor_commands"))["commands"]
    told = []

    async def on_progress(progress, total, message):
        told.append([progress, total, message])

    done = await call("run_test", test(3.2), progress_callback=on_progress)
    seen["run"], seen["progress"] = done, told
    summary = await call("summary")
    assert summary["totals"] == done["totals"], (summary["totals"], done["totals"])
    records = await call("run_action_json", {"actions": '[["len", [[1, 2]]]]'})
    assert records == {"execute: ['len', [[1, 2]]]": 2}, records
    printed = await call("run_action_json", {"actions": [["print", ["to stdout"]]]})
    assert printed == {"execute: ['print', ['to stdout']]": None}, printed
    assert (await call("persist_records", {"database_path": "m.db", "label": "x"})) == {"run_id": 1}
    runs = (await call("list_runs", {"database_path": "m.db"}))["runs"]
    assert [(run["id"], run["label"]) for run in runs] == [(1, "x")], runs
    records = (await call("fetch_run", {"database_path": "m.db", "run_id": 1}))["records"]
    # a fast machine ends more requests than are kept by default
    kept = min(done["totals"]["requests"], 100_000)
    assert len(records) == kept and records[0]["name"] == "hit", (len(records), done["totals"], records[:2])
    paths = await call("generate_reports", {"base_name": "m", "formats": ["csv", "summary", "json"]})
    assert paths["csv"] == str(FOLDER / "m.csv") and paths["summary"] == str(FOLDER / "m-summary.json"), paths
    assert Path(paths["csv"]).exists() and len(paths["json"]) == 2
    made = await call("create_project", {"path": "mp"})
    assert made == {"path": str(FOLDER / "mp"), "status": "created"}, made
    curls = await call("generate_from_curls", {"curls": [f"curl {TARGET}"], "user_count": 1, "test_time": 1})
    assert (await call("validate", {"actions": curls}))["valid"], curls
    har = {"log": {"entries": [{"request": {"method": "GET", "url": TARGET, "headers": []}, "response": {"status": 200}}]}}
    (FOLDER / "a.har").write_text(json.dumps(har))
    assert (await call("import_har", {"file_path": "a.har"}))["load_density"]
    api = {"openapi": "3.0.0", "info": {"title": "t", "version": "1"}, "servers": [{"url": TARGET}],
           "paths": {"/a": {"get": {"responses": {"200": {"description": "ok"}}}}}}
    (FOLDER / "api.json").write_text(json.dumps(api))
    assert (await call("generate_from_openapi", {"openapi_path": "api.json"}))["load_density"]
    faults = await call("validate", {"actions": [["LD_nope"], ["LD_add_package_to_executor", ["os"]]]})
    assert not faults["valid"] and faults["faults"][0]["pointer"].startswith("/0"), faults

    job = await call("start", {"actions": [["LD_start_test", test(300)]], "label": "long"})
    for _ in range(200):
        status = await call("status", {"job": job["job"]})
        if status["test"] and status["test"]["requests"] > 5:
            break
        await asyncio.sleep(0.1)
    seen["status"] = status
    await call("adjust", {"users": 5})
    await call("adjust", {"pause": True})
    await call("adjust", {"pause": False})
    seen["over_the_cap"] = await call("adjust", {"users": 1_000_000_000}, ok=False)
    stopped = await call("stop", {"job": job["job"]})
    seen["stopped"] = stopped["jobs"][0]
    second = stopped["jobs"][0]["runs"][0]["run"]
    compared = await call("compare", {"a": done["run"], "b": second})
    assert compared["a"]["id"] == done["run"], compared

    async def cancelled():
        await session.call_tool("run_test", test(300))

    # a client that gives up on an answer takes its request back
    try:
        await asyncio.wait_for(cancelled(), 2)
        raise AssertionError("it ran to its end")
    except TimeoutError:
        pass
    for _ in range(200):
        jobs = (await call("status"))["jobs"]
        if all(job["state"] == "finished" for job in jobs):
            break
        await asyncio.sleep(0.1)
    seen["cancelled"] = jobs[0]
    assert seen["tools"] == sorted(called), set(seen["tools"]) - called

    seen["errors"] = [
        await call("import_har", {"file_path": "nofile.har"}, ok=False),
        await call("persist_records", {}, ok=False),
        await call("persist_records", {"database_path": "/etc/x.db"}, ok=False),
        await call("run_test", test(5, user_count=999_999_999, spawn_rate=999_999_999), ok=False),
        await call("run_action_json", {"actions": "{bad"}, ok=False),
        await call("run_action_json", {"actions": [["LD_add_package_to_executor", ["os"]]]}, ok=False),
        await call("create_project", {"path": "../outside"}, ok=False),
        await call("stop", {"job": 999}, ok=False),
    ]
    try:
        await session.call_tool("nope", {})
        raise AssertionError("an unknown tool")
    except Exception as error:  # the class has moved between versions
        seen["unknown"] = str(error)
    resources = (await session.list_resources()).resources
    seen["resources"] = [str(resource.uri) for resource in resources]
    schema = (await session.read_resource(resources[0].uri)).contents[0].text
    jsonschema.Draft202012Validator.check_schema(json.loads(schema))
    html = [resource for resource in resources if str(resource.uri).endswith(".html")][0]
    assert "<html" in (await session.read_resource(html.uri)).contents[0].text


async def main():
    seen = {"client": version("mcp")}
    arguments = ["mcp", "--audit", str(FOLDER / "audit.jsonl"), "--max-users", "1000"]
    server = StdioServerParameters(command=MASTER, args=arguments, cwd=FOLDER, env={"HOME": str(FOLDER)})
    async with stdio_client(server) as (read, write):
        async with ClientSession(read, write) as session:
            await talk(session, seen)
    print(json.dumps(seen))


asyncio.run(main())
