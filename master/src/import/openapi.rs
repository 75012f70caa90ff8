//! OpenAPI 3 descriptions as tasks: one per operation.
//!
//! | of the description | in the task |
//! |---|---|
//! | `servers` of the operation, the path or the whole | start of the URL; without any `${var.base_url}` |
//! | `operationId`, else METHOD and path | `name` |
//! | path parameter | `${var.NAME}`; its example is the variable's value |
//! | required query and header parameters | `params`, `headers`, with their examples |
//! | request body | `json` or `data`, from example, default or schema |
//! | first 2xx response | a `status_code` assertion |

mod example;
mod reader;

use super::{ImportError, Imported, Task, text};
use reader::Spec;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// Settings of an import.
#[derive(Clone, Debug, Default)]
pub struct OpenApi {
    /// Start of every URL, instead of the servers that the description names.
    pub base_url: Option<String>,
}

/// Methods that a path may have. `trace` is none of an HTTP user.
const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];
/// The variable that stands for the server of a description that names none.
const BASE: &str = "${var.base_url}";

/// Reads a description: JSON, or YAML.
///
/// # Errors
///
/// A file that is missing, unreadable, or neither.
pub fn read_openapi(path: &Path) -> Result<Value, ImportError> {
    let bytes = super::read_file(path)?;
    let begins = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if begins == Some(&b'{') {
        return serde_json::from_slice(&bytes).map_err(|source| ImportError::Json { path: path.into(), source });
    }
    let yaml = yaml_serde::from_slice(&bytes).map_err(|source| ImportError::Yaml { path: path.into(), source })?;
    Ok(reader::to_json(yaml))
}

/// The operations of a description.
///
/// # Errors
///
/// Something that is no description, or one of version 2.
pub fn tasks(spec: &Value, settings: &OpenApi) -> Result<Imported, ImportError> {
    if spec.get("swagger").is_some() {
        let message = "this is a description of OpenAPI 2 (Swagger): convert it to OpenAPI 3 first";
        return Err(ImportError::Shape(message.to_owned()));
    }
    let Some(paths) = spec.get("paths").and_then(Value::as_object) else {
        return Err(ImportError::Shape("this is no OpenAPI description: it has no object `paths`".to_owned()));
    };
    let spec = Spec::new(spec);
    let mut imported = Imported::default();
    for (path, item) in paths {
        let item = spec.resolved(item);
        for (method, operation) in item.as_object().into_iter().flatten() {
            if METHODS.contains(&method.as_str()) && operation.is_object() {
                let place = Place { spec: &spec, path, item, method, operation };
                place.task(settings, &mut imported);
            } else if method == "trace" {
                imported.notes.push(format!("TRACE {path} is left out: HTTP users know no such method"));
            }
        }
    }
    if !imported.credentials.is_empty() {
        let names = imported.credentials.join(", ");
        imported.notes.push(format!(
            "credentials are placeholders: {names}; give their values by environment (LD_SECRET_NAME) or by --secrets FILE"
        ));
    }
    let without_base =
        |task: &Task| task.get("request_url").and_then(Value::as_str).is_some_and(|url| url.starts_with(BASE));
    if imported.tasks.iter().any(without_base) {
        imported.notes.push(
            "the description names no server with an address: give `base_url`, or the variable `base_url`".into(),
        );
    }
    Ok(imported)
}

/// One operation.
struct Place<'a> {
    spec: &'a Spec<'a>,
    path: &'a str,
    item: &'a Value,
    method: &'a str,
    operation: &'a Value,
}

impl Place<'_> {
    fn task(&self, settings: &OpenApi, imported: &mut Imported) {
        let base = settings.base_url.clone().unwrap_or_else(|| self.base());
        let mut url = format!("{}{}", base.trim_end_matches('/'), self.path);
        let mut params = Map::new();
        let mut headers = Map::new();
        for parameter in self.parameters() {
            let Some(name) = text(parameter, "name") else { continue };
            let example = self.spec.parameter_example(parameter);
            let required = parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
            match text(parameter, "in") {
                Some("path") => imported.variables.extend(example.map(|value| (name.to_owned(), value))),
                Some("query") if required => {
                    params.insert(name.into(), example.unwrap_or_else(|| placeholder(name)));
                }
                Some("header") if required => {
                    let value = example.unwrap_or_else(|| placeholder(name));
                    let value = if value.is_string() { value } else { value.to_string().into() };
                    headers.insert(name.into(), value);
                }
                _ => {}
            }
        }
        url = filled(&url);
        let name = text(self.operation, "operationId")
            .map_or_else(|| format!("{} {}", self.method.to_uppercase(), self.path), str::to_owned);
        let mut task = Task::new();
        task.insert("method".into(), self.method.into());
        task.insert("request_url".into(), url.into());
        task.insert("name".into(), name.as_str().into());
        if !params.is_empty() {
            task.insert("params".into(), params.into());
        }
        let body = self.body(&name, &mut imported.notes);
        if let Some(kind) = body.as_ref().and_then(|body| body.content_type.clone()) {
            headers.insert("Content-Type".into(), kind.into());
        }
        if !headers.is_empty() {
            task.insert("headers".into(), headers.into());
        }
        task.extend(body.into_iter().flat_map(|body| body.fields));
        self.security(&mut task, &name, imported);
        if let Some(status) = self.status() {
            task.insert("assertions".into(), json!([{"type": "status_code", "value": status}]));
        }
        imported.tasks.push(task);
    }

    /// Start of the URL by the nearest `servers`.
    fn base(&self) -> String {
        let levels = [self.operation, self.item, self.spec.root()];
        let server = levels.into_iter().find_map(|level| level.get("servers")?.as_array()?.first());
        let url = server.and_then(|server| text(server, "url")).unwrap_or_default();
        let mut url = url.to_owned();
        let variables = server.and_then(|server| server.get("variables")).and_then(Value::as_object);
        for (name, variable) in variables.into_iter().flatten() {
            if let Some(default) = text(variable, "default") {
                url = url.replace(&format!("{{{name}}}"), default);
            }
        }
        if url.contains("://") { url } else { format!("{BASE}{}", url.trim_end_matches('/')) }
    }

    /// Parameters of the path and of the operation; one of the operation stands for its namesake.
    fn parameters(&self) -> Vec<&Value> {
        let own: Vec<&Value> = self.spec.list(self.operation, "parameters");
        let same = |a: &Value, b: &Value| text(a, "name") == text(b, "name") && text(a, "in") == text(b, "in");
        let shared = self.spec.list(self.item, "parameters").into_iter();
        let shared = shared.filter(|parameter| !own.iter().any(|other| same(parameter, other)));
        shared.chain(own.iter().copied()).collect()
    }

    /// The first response of 200 to 299 that is named by its number.
    fn status(&self) -> Option<u64> {
        let responses = self.operation.get("responses")?.as_object()?;
        responses.keys().filter_map(|code| code.parse().ok()).find(|code| (200..300).contains(code))
    }

    fn body(&self, name: &str, notes: &mut Vec<String>) -> Option<Body> {
        let body = self.spec.resolved(self.operation.get("requestBody")?);
        let content = body.get("content")?.as_object()?;
        let is_json = |kind: &str| kind.starts_with("application/json") || kind.contains("+json");
        let (kind, media) = content
            .iter()
            .find(|(kind, _)| is_json(kind))
            .or_else(|| content.iter().find(|(kind, _)| kind.starts_with("application/x-www-form-urlencoded")))
            .or_else(|| content.iter().find(|(kind, _)| kind.starts_with("multipart/form-data")))
            .or_else(|| content.iter().next())?;
        let value = self.spec.media_example(media);
        let mut fields = Map::new();
        let mut content_type = None;
        if is_json(kind) {
            fields.insert("json".into(), value.unwrap_or_else(|| json!({})));
            content_type = (!kind.starts_with("application/json")).then(|| kind.clone());
        } else if let Some(Value::Object(form)) = &value {
            let form: Map<String, Value> = form.iter().map(|(key, value)| (key.clone(), flat(value))).collect();
            fields.insert("data".into(), form.into());
            if kind.starts_with("multipart/") {
                fields.insert("files".into(), json!({}));
            }
        } else if let Some(value) = value {
            fields.insert("data".into(), value.as_str().map_or_else(|| value.to_string(), str::to_owned).into());
            content_type = Some(kind.clone());
        } else {
            notes
                .push(format!("`{name}` needs a body of {kind}, for which the description has no example: add `data`"));
        }
        Some(Body { fields, content_type })
    }

    /// What of the security requirements a task can say: placeholders for the credentials.
    fn security(&self, task: &mut Task, name: &str, imported: &mut Imported) {
        let requirements = self.operation.get("security").or_else(|| self.spec.root().get("security"));
        let requirements = requirements.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        // an empty one among them: it also goes without
        let anonymous = requirements.iter().any(|one| one.as_object().is_some_and(Map::is_empty));
        let Some(Value::Object(requirement)) = requirements.first().filter(|_| !anonymous) else { return };
        for scheme in requirement.keys() {
            let known = self.spec.component("securitySchemes", scheme);
            let (kind, how) = (text(known, "type"), text(known, "scheme").unwrap_or_default().to_ascii_lowercase());
            let base: String =
                scheme.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
            let mut secret = |name: String| {
                let placeholder = format!("${{secret.{name}}}");
                if !imported.credentials.contains(&name) {
                    imported.credentials.push(name);
                }
                placeholder
            };
            match (kind, how.as_str(), text(known, "in"), text(known, "name")) {
                (Some("http"), "basic", ..) => {
                    let auth = json!({"type": "basic", "username": secret(format!("{base}_USERNAME")), "password": secret(format!("{base}_PASSWORD"))});
                    task.insert("auth".into(), auth);
                }
                (Some("http"), "bearer", ..) | (Some("oauth2" | "openIdConnect"), ..) => {
                    task.insert("auth".into(), json!({"type": "bearer", "token": secret(base)}));
                }
                (Some("apiKey"), _, Some("header"), Some(key)) => super::default_header(task, key, &secret(base)),
                (Some("apiKey"), _, Some("query"), Some(key)) => {
                    let params = task.entry("params").or_insert_with(|| json!({}));
                    params[key] = secret(base).into();
                }
                (Some("apiKey"), _, Some("cookie"), Some(key)) => {
                    task.insert("cookies".into(), json!({key: secret(base)}));
                }
                _ => imported.notes.push(format!("the security scheme `{scheme}` of `{name}` is not taken over")),
            }
        }
    }
}

/// A body: fields of the task, and the content type if it is not the field's own.
struct Body {
    fields: Map<String, Value>,
    content_type: Option<String>,
}

fn placeholder(name: &str) -> Value {
    format!("${{var.{name}}}").into()
}

/// A value of a form: texts, numbers, truth values and lists of them; else its JSON.
fn flat(value: &Value) -> Value {
    match value {
        Value::Object(_) => value.to_string().into(),
        Value::Array(items) => {
            items.iter().map(|item| if item.is_array() { item.to_string().into() } else { flat(item) }).collect()
        }
        plain => plain.clone(),
    }
}

/// A path with `${var.x}` for each `{x}`.
fn filled(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    let mut rest = url;
    while let Some(at) = rest.find('{') {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        let end = after.find('}').map_or(after.len(), |end| end + 1);
        let (token, after) = after.split_at(end);
        let name = token.trim_matches(['{', '}']);
        // placeholders of ours stay
        if before.ends_with('$') {
            out.push_str(token);
        } else {
            write!(out, "${{var.{name}}}").expect("writing to a String cannot fail");
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests;
