//! Postman collections, format 2.1, as tasks: folders walked in order, one task per request.

use super::{ImportError, Imported, Task, add_repeated, default_header, exact_json, list, text};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The requests of a collection.
///
/// URLs stand as the collection has them; `{{x}}` becomes `${var.x}`, and the collection's own
/// variables are those of [`Imported`].
///
/// # Errors
///
/// Something that is no collection.
pub fn tasks(collection: &Value) -> Result<Imported, ImportError> {
    // as its API wraps it
    let collection = collection.get("collection").unwrap_or(collection);
    if !collection.get("item").is_some_and(Value::is_array) {
        return Err(ImportError::Shape("this is no Postman collection: it has no list `item`".to_owned()));
    }
    let mut imported = Imported::default();
    for variable in list(collection, "variable").iter().filter(|variable| is_enabled(variable)) {
        let Some(key) = text(variable, "key").or(text(variable, "id")) else { continue };
        let value = variable.get("value").cloned().unwrap_or_default();
        let value = value.as_str().map_or(value.clone(), |text| converted(text).into());
        imported.variables.insert(key.into(), value);
    }
    let mut walk = Walk { imported, scripts: 0, depth: 0 };
    walk.scripts += list(collection, "event").len();
    walk.items(list(collection, "item"), collection.get("auth"));
    let Walk { mut imported, scripts, .. } = walk;
    if scripts > 0 {
        imported.notes.push(format!(
            "{scripts} scripts of the collection are not taken over: say what they check by `assertions`, what they keep by `extract`"
        ));
    }
    Ok(imported)
}

/// The tasks with what Postman adds: a scheme where a URL has none.
pub fn complete(imported: &mut Imported) {
    for task in &mut imported.tasks {
        if let Some(Value::String(url)) = task.get_mut("request_url")
            && !url.contains("://")
            && !url.starts_with("${")
        {
            url.insert_str(0, "http://");
        }
    }
}

/// Folders within folders; more are no collection that a person made.
const MOST_DEEP: u32 = 64;

struct Walk {
    imported: Imported,
    scripts: usize,
    depth: u32,
}

impl Walk {
    fn items(&mut self, items: &[Value], auth: Option<&Value>) {
        if self.depth >= MOST_DEEP {
            self.imported.notes.push(format!("folders more than {MOST_DEEP} deep are not taken over"));
            return;
        }
        for item in items {
            self.scripts += list(item, "event").len();
            let auth = item.get("auth").filter(|auth| !auth.is_null()).or(auth);
            if item.get("item").is_some_and(Value::is_array) {
                self.depth += 1;
                self.items(list(item, "item"), auth);
                self.depth -= 1;
            } else if let Some(request) = item.get("request") {
                self.request(item, request, auth);
            }
        }
    }

    fn request(&mut self, item: &Value, request: &Value, auth: Option<&Value>) {
        let method = text(request, "method").unwrap_or("GET");
        // a request may be no more than its URL
        let Some(url) = url(if request.is_string() { request } else { request.get("url").unwrap_or(&Value::Null) })
        else {
            let name = text(item, "name").unwrap_or("without a name");
            self.imported.notes.push(format!("the request `{name}` has no URL and is left out"));
            return;
        };
        let name = text(item, "name").map_or_else(|| format!("{method} {url}"), converted);
        let mut task = Task::new();
        task.insert("method".into(), method.to_lowercase().into());
        task.insert("request_url".into(), url.into());
        task.insert("name".into(), name.as_str().into());
        let headers = headers(request);
        if !headers.is_empty() {
            task.insert("headers".into(), headers.into());
        }
        if let Some(body) = request.get("body").filter(|body| !body.is_null() && is_enabled(body)) {
            self.body(&mut task, body, &name);
        }
        if let Some(auth) = request.get("auth").filter(|auth| !auth.is_null()).or(auth) {
            self.auth(&mut task, auth, &name);
        }
        self.imported.tasks.push(task);
    }

    fn body(&mut self, task: &mut Task, body: &Value, name: &str) {
        match text(body, "mode").unwrap_or_default() {
            "raw" => {
                let Some(raw) = text(body, "raw") else { return };
                raw_body(task, body, &converted(raw));
            }
            "urlencoded" => {
                let (fields, _) = fields(list(body, "urlencoded"));
                if !fields.is_empty() {
                    task.insert("data".into(), fields.into());
                }
            }
            "formdata" => {
                let (fields, files) = fields(list(body, "formdata"));
                if !files.is_empty() {
                    let files = files.join(", ");
                    self.imported.notes.push(format!(
                        "`{name}` uploads files ({files}), whose content the collection does not hold: add them to `files`"
                    ));
                }
                task.insert("data".into(), fields.into());
                // its boundary is chosen when it is sent
                if let Some(Value::Object(headers)) = task.get_mut("headers") {
                    headers.retain(|name, _| !name.eq_ignore_ascii_case("content-type"));
                }
                // even without a file the body is a multipart one
                task.insert("files".into(), json!({}));
            }
            "graphql" => {
                let graphql = body.get("graphql").cloned().unwrap_or_default();
                let mut json = Map::new();
                json.insert("query".into(), converted(text(&graphql, "query").unwrap_or_default()).into());
                let variables = match graphql.get("variables") {
                    Some(Value::String(text)) => exact_json(&converted(text)),
                    Some(object @ Value::Object(_)) => Some(object.clone()),
                    _ => None,
                };
                json.extend(variables.map(|variables| ("variables".to_owned(), variables)));
                json.extend(text(&graphql, "operationName").map(|name| ("operationName".to_owned(), name.into())));
                task.insert("json".into(), json.into());
            }
            "" => {}
            mode => {
                self.imported.notes.push(format!("the body of `{name}` is not taken over: mode `{mode}`"));
            }
        }
    }

    fn auth(&mut self, task: &mut Task, auth: &Value, name: &str) {
        let kind = text(auth, "type").unwrap_or("noauth");
        let value = |key: &str| parameter(auth, kind, key).map(|text| converted(&text)).unwrap_or_default();
        match kind {
            "noauth" => {}
            "basic" => {
                let auth = json!({"type": "basic", "username": value("username"), "password": value("password")});
                task.insert("auth".into(), auth);
            }
            "bearer" => drop(task.insert("auth".into(), json!({"type": "bearer", "token": value("token")}))),
            "apikey" if value("in") == "query" => {
                task.insert("params".into(), json!({value("key"): value("value")}));
            }
            "apikey" => default_header(task, &value("key"), &value("value")),
            kind => {
                let note =
                    format!("authentication `{kind}` of `{name}` is not taken over: basic, bearer and apikey are");
                self.imported.notes.push(note);
            }
        }
    }
}

/// A parameter of an authentication: a list of `{key, value}` in 2.1, an object in 2.0.
fn parameter(auth: &Value, kind: &str, key: &str) -> Option<String> {
    let parameters = auth.get(kind)?;
    let value = match parameters {
        Value::Array(items) => items.iter().find(|item| text(item, "key") == Some(key))?.get("value")?,
        object => object.get(key)?,
    };
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn is_enabled(value: &Value) -> bool {
    value.get("disabled").and_then(Value::as_bool) != Some(true)
}

fn headers(request: &Value) -> Map<String, Value> {
    let mut headers = Map::new();
    for header in list(request, "header").iter().filter(|header| is_enabled(header)) {
        if let Some(key) = text(header, "key") {
            let value = header.get("value").and_then(Value::as_str).unwrap_or_default();
            headers.insert(converted(key), converted(value).into());
        }
    }
    headers
}

/// Fields of a form that are switched on, and the names of those that are files.
fn fields(items: &[Value]) -> (Map<String, Value>, Vec<String>) {
    let mut fields = Map::new();
    let mut files = Vec::new();
    for item in items.iter().filter(|item| is_enabled(item)) {
        let Some(key) = text(item, "key") else { continue };
        if text(item, "type") == Some("file") {
            files.push(key.to_owned());
            continue;
        }
        let value = match item.get("value") {
            Some(Value::String(text)) => converted(text).into(),
            other => other.cloned().unwrap_or_else(|| "".into()),
        };
        add_repeated(&mut fields, &converted(key), value);
    }
    (fields, files)
}

/// A text body: JSON if it is said to be, or if nothing else is said and it reads as an object or a list.
fn raw_body(task: &mut Task, body: &Value, raw: &str) {
    let language = body.get("options").and_then(|o| o.get("raw")).and_then(|raw| text(raw, "language"));
    let header = task
        .get("headers")
        .and_then(Value::as_object)
        .and_then(|headers| headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"))?.1.as_str());
    let is_json = match (header, language) {
        (Some(kind), _) => kind.to_ascii_lowercase().contains("json"),
        (None, Some(language)) => language == "json",
        (None, None) => raw.trim_start().starts_with(['{', '[']),
    };
    if let Some(json) = exact_json(raw).filter(|_| is_json) {
        task.insert("json".into(), json);
    } else {
        let kind = match language {
            Some("json") => Some("application/json"),
            Some("xml") => Some("application/xml"),
            Some("html") => Some("text/html"),
            Some("javascript") => Some("application/javascript"),
            _ => None,
        };
        if let Some(kind) = kind {
            default_header(task, "Content-Type", kind);
        }
        task.insert("data".into(), raw.into());
    }
}

/// A URL: a text, or an object with `raw` or with its parts.
fn url(value: &Value) -> Option<String> {
    let whole = match value {
        Value::String(text) => text.clone(),
        object => match text(object, "raw") {
            Some(raw) => raw.to_owned(),
            None => assembled(object)?,
        },
    };
    let whole = whole.trim();
    if whole.is_empty() {
        return None;
    }
    let (path, query) = whole.find(['?', '#']).map_or((whole, ""), |at| whole.split_at(at));
    let from = path.find("://").map_or(0, |at| at + 3);
    let (scheme, path) = path.split_at(from);
    let segments = path.split('/').map(|segment| match segment.strip_prefix(':').filter(|name| !name.is_empty()) {
        Some(name) => path_variable(value, name),
        None => segment.to_owned(),
    });
    Some(converted(&format!("{scheme}{}{query}", segments.collect::<Vec<_>>().join("/"))))
}

/// What stands for `:name` in a path: the value that the URL gives, else a variable of that name.
fn path_variable(url: &Value, name: &str) -> String {
    let variable = list(url, "variable").iter().find(|variable| text(variable, "key") == Some(name));
    let value = variable.and_then(|variable| variable.get("value")).filter(|value| !value.is_null());
    match value {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => format!("${{var.{name}}}"),
    }
}

fn assembled(url: &Value) -> Option<String> {
    let joined = |key: &str, by: &str| match url.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.as_str().or_else(|| text(part, "value")));
            Some(texts.collect::<Vec<_>>().join(by))
        }
        _ => None,
    };
    let mut whole = String::new();
    if let Some(protocol) = text(url, "protocol") {
        whole = format!("{}://", protocol.trim_end_matches("://"));
    }
    whole.push_str(&joined("host", ".")?);
    if let Some(port) = text(url, "port") {
        whole = format!("{whole}:{port}");
    }
    if let Some(path) = joined("path", "/") {
        whole = format!("{whole}/{}", path.trim_start_matches('/'));
    }
    let pairs: Vec<String> = list(url, "query").iter().filter(|pair| is_enabled(pair)).filter_map(pair).collect();
    if !pairs.is_empty() {
        whole = format!("{whole}?{}", pairs.join("&"));
    }
    Some(whole)
}

fn pair(pair: &Value) -> Option<String> {
    let key = text(pair, "key")?;
    Some(match pair.get("value").and_then(Value::as_str) {
        Some(value) => format!("{key}={value}"),
        None => key.to_owned(),
    })
}

/// A text with Postman's placeholders turned into ours.
fn converted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else { break };
        out.push_str(before);
        match name.trim() {
            "$guid" | "$randomUUID" => out.push_str("${uuid()}"),
            "$isoTimestamp" => out.push_str("${now()}"),
            "$randomInt" => out.push_str("${randint(0,1000)}"),
            "$randomEmail" => out.push_str("${faker.email}"),
            "$randomFirstName" => out.push_str("${faker.first_name}"),
            "$randomLastName" => out.push_str("${faker.last_name}"),
            "$randomFullName" => out.push_str("${faker.name}"),
            "$randomUserName" => out.push_str("${faker.user_name}"),
            "$randomPhoneNumber" => out.push_str("${faker.phone_number}"),
            "$randomCity" => out.push_str("${faker.city}"),
            name => write!(out, "${{var.{}}}", name.trim_start_matches('$')).expect("writing to a String cannot fail"),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_the_seeds() {
        let collection = json!({"item": [
            {"name": "folder", "item": [{"name": "get it", "request": {
                "method": "GET", "url": {"host": ["127", "0", "0", "1"], "path": ["x"]},
                "header": [{"key": "A", "value": "b"}, {"key": "off", "value": "1", "disabled": true}],
            }}]},
            {"name": "raw", "request": {"method": "POST", "url": "http://127.0.0.1/y", "body": {"mode": "raw", "raw": "{\"a\": 1}"}}},
        ]});
        let golden = r#"[{"method":"get","request_url":"127.0.0.1/x","name":"get it","headers":{"A":"b"}},{"method":"post","request_url":"http://127.0.0.1/y","name":"raw","json":{"a":1}}]"#;
        let mut imported = tasks(&collection).unwrap();
        assert_eq!(serde_json::to_string(&imported.tasks).unwrap(), golden);
        complete(&mut imported);
        assert_eq!(imported.tasks[0]["request_url"], "http://127.0.0.1/x");
    }

    #[test]
    fn what_collections_hold() {
        let bearer = json!({"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}"}]});
        let request = |more: Value| {
            let mut request = json!({"method": "POST", "url": "{{base}}/x"});
            request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"name": "n", "request": request})
        };
        let collection = json!({"collection": {
            "auth": bearer, "event": [{}],
            "variable": [{"key": "base", "value": "http://h"}, {"key": "n", "value": 5}, {"key": "off", "value": "", "disabled": true}],
            "item": [
                request(json!({"body": {"mode": "urlencoded", "urlencoded": [{"key": "a", "value": "1"}, {"key": "a", "value": "{{n}}"},
                    {"key": "b", "value": "2", "disabled": true}]}})),
                request(json!({"auth": {"type": "noauth"}, "body": {"mode": "formdata", "formdata": [{"key": "a", "value": "1", "type": "text"},
                    {"key": "f", "type": "file", "src": "/x"}]}})),
                {"name": "inner", "auth": {"type": "apikey", "apikey": [{"key": "key", "value": "X-Key"}, {"key": "value", "value": "v"}]}, "item": [
                    request(json!({"body": {"mode": "graphql", "graphql": {"query": "{a}", "variables": "{\"v\": 1}"}}})),
                    request(json!({"auth": {"type": "apikey", "apikey": {"key": "k", "value": "v", "in": "query"}},
                        "body": {"mode": "raw", "raw": "{\"a\": {{n}}}", "options": {"raw": {"language": "json"}}}})),
                ]},
                {"request": "{{base}}/plain"},
                {"name": "v", "request": {"url": {"raw": "{{base}}/u/:id/:name?q={{$guid}}", "variable": [{"key": "id", "value": "7"}]},
                    "auth": {"type": "oauth2"}, "body": {"mode": "file"}}},
                {"name": "parts", "request": {"url": {"protocol": "https", "host": ["h", "i"], "port": "8", "path": ["a", "b"],
                    "query": [{"key": "q", "value": "1"}, {"key": "r"}, {"key": "s", "value": "", "disabled": true}]}, "auth": {"type": "noauth"}}},
                {"name": "no url", "request": {}},
            ],
        }});
        let imported = tasks(&collection).unwrap();
        assert_eq!(imported.variables, *json!({"base": "http://h", "n": 5}).as_object().unwrap());
        let token = json!({"type": "bearer", "token": "${var.token}"});
        let expected = json!([
            {"method": "post", "request_url": "${var.base}/x", "name": "n", "data": {"a": ["1", "${var.n}"]}, "auth": token},
            {"method": "post", "request_url": "${var.base}/x", "name": "n", "data": {"a": "1"}, "files": {}},
            {"method": "post", "request_url": "${var.base}/x", "name": "n", "json": {"query": "{a}", "variables": {"v": 1}}, "headers": {"X-Key": "v"}},
            {"method": "post", "request_url": "${var.base}/x", "name": "n", "headers": {"Content-Type": "application/json"},
                "data": "{\"a\": ${var.n}}", "params": {"k": "v"}},
            {"method": "get", "request_url": "${var.base}/plain", "name": "GET ${var.base}/plain", "auth": token},
            {"method": "get", "request_url": "${var.base}/u/7/${var.name}?q=${uuid()}", "name": "v"},
            {"method": "get", "request_url": "https://h.i:8/a/b?q=1&r", "name": "parts"},
        ]);
        assert_eq!(json!(imported.tasks), expected);
        let notes = imported.notes.join("\n");
        for note in ["uploads files (f)", "`oauth2` of `v`", "mode `file`", "`no url` has no URL", "1 scripts"] {
            assert!(notes.contains(note), "{note}: {notes}");
        }
        assert!(tasks(&json!({"log": {}})).unwrap_err().to_string().contains("no Postman collection"));
    }
}
