use super::*;
use crate::import::{Load, document};

fn import(spec: &Value) -> Imported {
    tasks(spec, &OpenApi::default()).unwrap()
}

#[test]
fn documents_are_the_seeds() {
    let spec = json!({
        "servers": [{"url": "http://127.0.0.1/v1/"}],
        "paths": {"/u/{id}": {
            "get": {"operationId": "getUser", "responses": {"200": {}}},
            "delete": {"responses": {"404": {}, "204": {}}},
        }},
    });
    let load =
        Load { user: "fast_http_user".into(), user_count: 10.into(), spawn_rate: 5.into(), test_time: 60.into() };
    let golden = concat!(
        r#"{"load_density":[["LD_start_test",{"user_detail_dict":{"user":"fast_http_user"},"tasks":{"mode":"sequence","tasks":["#,
        r#"{"method":"get","request_url":"http://127.0.0.1/v1/u/${var.id}","name":"getUser","assertions":[{"type":"status_code","value":200}]},"#,
        r#"{"method":"delete","request_url":"http://127.0.0.1/v1/u/${var.id}","name":"DELETE /u/{id}","assertions":[{"type":"status_code","value":204}]}"#,
        r#"]},"user_count":10,"spawn_rate":5,"test_time":60}]]}"#
    );
    assert_eq!(document(&import(&spec), &load).to_string(), golden);
    let elsewhere = OpenApi { base_url: Some("https://other/".into()) };
    assert_eq!(tasks(&spec, &elsewhere).unwrap().tasks[0]["request_url"], "https://other/u/${var.id}");
}

#[test]
fn parameters_bodies_and_references() {
    let spec = json!({
        "openapi": "3.1.0",
        "servers": [{"url": "https://{zone}.h/api", "variables": {"zone": {"default": "eu"}}}],
        "security": [{"key": []}],
        "components": {
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Key"}, "jwt-token": {"type": "http", "scheme": "Bearer"},
                "login": {"type": "http", "scheme": "basic"}, "mtls": {"type": "mutualTLS"},
            },
            "parameters": {"limit": {"name": "limit", "in": "query", "required": true, "schema": {"type": "integer", "default": 20}}},
            "schemas": {"Node": {"type": "object", "required": ["name", "next"], "properties": {
                "name": {"type": "string", "minLength": 6}, "next": {"$ref": "#/components/schemas/Node"},
                "id": {"type": "integer", "readOnly": true}, "note": {"type": "string"}, "kind": {"example": "leaf"}}}},
        },
        "paths": {
            "/a/{id}": {
                "parameters": [{"name": "id", "in": "path", "required": true, "example": 7}, {"name": "q", "in": "query", "required": true}],
                "get": {
                    "parameters": [{"$ref": "#/components/parameters/limit"}, {"name": "q", "in": "query", "required": true, "schema": {"enum": ["x"]}},
                        {"name": "X-N", "in": "header", "required": true, "example": 5}, {"name": "skip", "in": "query"}],
                    "security": [], "responses": {"default": {}},
                },
                "post": {
                    "security": [{"jwt-token": []}], "responses": {"2XX": {}, "201": {}},
                    "requestBody": {"content": {"text/plain": {}, "application/merge-patch+json": {"schema": {"allOf": [
                        {"type": "object", "properties": {"a": {"type": "boolean"}}}, {"properties": {"b": {"type": ["null", "number"]}}}]}}}},
                },
                "trace": {},
            },
            "/form": {"put": {"security": [{}, {"login": []}], "requestBody": {"content": {"application/x-www-form-urlencoded": {
                "examples": {"one": {"value": {"a": [1, 2], "b": {"c": 1}}}}}}}}},
            "/node": {"servers": [{"url": "/v2"}], "post": {"operationId": "node", "security": [{"login": [], "mtls": []}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Node"}}}}}},
            "/raw": {"patch": {"requestBody": {"content": {"application/xml": {"example": "<a/>"}}}}},
        },
    });
    let imported = import(&spec);
    assert_eq!(imported.variables, *json!({"id": 7}).as_object().unwrap());
    let tasks = &imported.tasks;
    assert_eq!(
        json!(tasks[..3]),
        json!([
            {"method": "get", "request_url": "https://eu.h/api/a/${var.id}", "name": "GET /a/{id}",
                "params": {"limit": 20, "q": "x"}, "headers": {"X-N": "5"}},
            {"method": "post", "request_url": "https://eu.h/api/a/${var.id}", "name": "POST /a/{id}", "params": {"q": "${var.q}"},
                "headers": {"Content-Type": "application/merge-patch+json"}, "json": {"a": true, "b": 1.0},
                "auth": {"type": "bearer", "token": "${secret.JWT_TOKEN}"}, "assertions": [{"type": "status_code", "value": 201}]},
            {"method": "put", "request_url": "https://eu.h/api/form", "name": "PUT /form", "data": {"a": [1, 2], "b": "{\"c\":1}"}},
        ])
    );
    assert_eq!(tasks[3]["request_url"], "${var.base_url}/v2/node");
    assert_eq!((&tasks[3]["json"]["name"], &tasks[3]["json"]["kind"]), (&json!("textxx"), &json!("leaf")));
    assert!(tasks[3]["json"].get("id").is_none() && tasks[3]["json"].get("note").is_none());
    assert_eq!(tasks[3]["auth"]["username"], "${secret.LOGIN_USERNAME}");
    assert_eq!(
        (&tasks[4]["data"], &tasks[4]["headers"]),
        (&json!("<a/>"), &json!({"Content-Type": "application/xml", "X-Key": "${secret.KEY}"}))
    );
    let notes = imported.notes.join("\n");
    for note in ["TRACE /a/{id}", "`mtls` of `node`", "no server with an address"] {
        assert!(notes.contains(note), "{note}: {notes}");
    }
    assert_eq!(imported.credentials, ["JWT_TOKEN", "LOGIN_USERNAME", "LOGIN_PASSWORD", "KEY"]);
}

#[test]
fn json_and_yaml_files() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_openapi(&path)
    };
    let expected = json!({"openapi": "3.0.0", "paths": {"/a": {"get": {"responses": {"200": {}, "404": {"x": 1.5}}}}}});
    let yaml = "openapi: 3.0.0\npaths:\n  /a:\n    get:\n      responses:\n        200: {}\n        404: {x: 1.5}\n";
    assert_eq!(file("a.yaml", yaml).unwrap(), expected);
    assert_eq!(file("a.json", &format!("\u{feff}{expected}")).unwrap(), expected);
    assert_eq!(file("b.yaml", "a: [").unwrap_err().kind(), "YAMLError");
    assert_eq!(file("b.json", "{").unwrap_err().kind(), "JSONDecodeError");
    assert_eq!(read_openapi(&folder.path().join("none")).unwrap_err().kind(), "FileNotFoundError");
    for (spec, text) in [(json!({"swagger": "2.0", "paths": {}}), "OpenAPI 2"), (json!([]), "no OpenAPI description")] {
        assert!(tasks(&spec, &OpenApi::default()).unwrap_err().to_string().contains(text));
    }
    // what goes round ends
    let round = json!({"paths": {"/a": {"$ref": "#/paths/~1a"}}});
    assert!(import(&round).tasks.is_empty());
}
