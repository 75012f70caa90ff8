//! The API told of: an `OpenAPI` 3.1 document, made of the table by which requests are answered.

use super::field::Field;
use super::guard::{COOKIE_NAME, LOGIN, OPEN};
use super::problem::{self, Code};
use super::route::{Answer, JSON, Method, Payload, Route};
use super::routes::ROUTES;
use super::schemas;
use serde_json::{Map, Value, json};

/// How a route may refuse: for its own reasons, and for those of all.
pub(super) fn problems(route: &Route) -> Vec<Code> {
    let mut all = vec![Code::BadValue, Code::OtherHost];
    if !OPEN.contains(&route.path) {
        all.push(Code::TokenNeeded);
    }
    if route.method == Method::Post {
        all.extend([Code::CrossSite, Code::ViewersMayOnlyLook]);
    }
    match route.body {
        Payload::None | Payload::Token => {}
        Payload::Fields(_) | Payload::Document => {
            all.extend([Code::BadJson, Code::OtherType, Code::TooLarge, Code::TooSlow]);
        }
    }
    all.extend(route.problems);
    all
}

/// The document.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let method = match route.method {
            Method::Get => "get",
            Method::Post => "post",
        };
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "LoadDensity",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Starts, watches, changes and ends load tests of this master. Refusals are \
                            application/problem+json (RFC 9457) with a stable `code`, `params` and, where \
                            something has a place, a `pointer`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE_NAME},
            },
        },
        // the last: without a token set, none is asked for
        "security": [{"token": []}, {"cookie": []}, {}],
    })
}

fn operation(route: &Route) -> Value {
    let parameters: Vec<Value> = route
        .path_fields
        .iter()
        .map(|field| parameter(field, "path"))
        .chain(route.query.iter().map(|field| parameter(field, "query")))
        .chain(route.path.ends_with("/live").then(last_event_id))
        .collect();
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.about,
        "parameters": parameters,
        "responses": responses(route),
    });
    if OPEN.contains(&route.path) || route.path == LOGIN {
        operation["security"] = json!([]);
    }
    if let Some(body) = body(route.body) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameter(field: &Field, place: &str) -> Value {
    json!({
        "name": field.name, "in": place, "required": field.required, "description": field.about,
        "schema": field.kind.schema(),
    })
}

fn last_event_id() -> Value {
    json!({
        "name": "Last-Event-ID", "in": "header", "required": false,
        "description": "Goes on behind the event of this id",
        "schema": {"type": "string", "pattern": "^([0-9]{1,9}|[1-9][0-9]{0,8}:[0-9]{1,9}|end)$"},
    })
}

fn body(payload: Payload) -> Option<Value> {
    let json = |schema: Value| json!({"required": true, "content": {JSON: {"schema": schema}}});
    match payload {
        Payload::None => None,
        Payload::Fields(fields) => Some(json(object(fields))),
        Payload::Document => Some(json(schemas::named("Document"))),
        Payload::Token => {
            let schema = schemas::named("Token");
            let form = "application/x-www-form-urlencoded";
            Some(json!({"content": {JSON: {"schema": schema}, form: {"schema": schema}}}))
        }
    }
}

fn object(fields: &[Field]) -> Value {
    let property = |field: &Field| {
        let mut schema = field.kind.schema();
        schema["description"] = field.about.into();
        (field.name.to_owned(), schema)
    };
    let required: Vec<&str> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let properties: Map<String, Value> = fields.iter().map(property).collect();
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

fn responses(route: &Route) -> Value {
    let mut responses = Map::new();
    for Answer { status, about, content } in route.answers {
        let response = responses.entry(status.to_string()).or_insert_with(|| json!({"description": about}));
        if let Some((content, schema)) = content {
            let body = if schema.is_empty() { json!({}) } else { json!({"schema": schemas::named(schema)}) };
            response["content"][content] = body;
        }
        if *status == 202 && matches!(route.body, Payload::Document) {
            response["headers"]["Location"] = json!({"required": true, "schema": {"type": "string"}});
            response["links"] = links();
        }
    }
    for code in problems(route) {
        let response =
            responses.entry(code.status().as_u16().to_string()).or_insert_with(|| json!({"description": ""}));
        let told = response["description"].as_str().unwrap_or_default();
        let told = if told.is_empty() { String::new() } else { format!("{told}; ") };
        response["description"] = format!("{told}`{}`: {}", code.name(), code.title()).into();
        response["content"][problem::CONTENT] = json!({"schema": schemas::named("Problem")});
    }
    responses.into()
}

/// What can be asked about a run that was started.
fn links() -> Value {
    let about = ROUTES.iter().filter(|route| route.path_fields.iter().any(|field| field.name == "id"));
    let link = |route: &Route| {
        (route.name.to_owned(), json!({"operationId": route.name, "parameters": {"id": "$response.body#/id"}}))
    };
    about.map(link).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_is_whole() {
        let document = document();
        let text = document.to_string();
        let known = &document["components"]["schemas"];
        for reference in text.split("#/components/schemas/").skip(1) {
            let name: String = reference.chars().take_while(|c| c.is_alphanumeric()).collect();
            assert!(known.get(&name).is_some(), "{name}");
        }
        let names: BTreeSet<_> = ROUTES.iter().map(|route| route.name).collect();
        assert_eq!(names.len(), ROUTES.len());
        for route in ROUTES {
            assert!(!route.answers.is_empty() && !route.about.is_empty(), "{}", route.path);
            let named: Vec<_> = route.path.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
            assert_eq!(named, route.path_fields.iter().map(|field| field.name).collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_code_has_a_route() {
        let told: BTreeSet<_> = ROUTES.iter().flat_map(problems).map(Code::name).collect();
        let of_none = [Code::NoSuchPage, Code::NoSuchMethod].map(Code::name);
        for code in Code::ALL.map(Code::name) {
            assert!(told.contains(code) != of_none.contains(&code), "{code}");
        }
    }
}
